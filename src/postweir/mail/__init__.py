"""What email is, with no I/O at all."""
