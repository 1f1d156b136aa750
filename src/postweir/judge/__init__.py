"""One question, one answer, in time."""
