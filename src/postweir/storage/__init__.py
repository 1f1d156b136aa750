"""Where things are kept: SQLite on one host."""
