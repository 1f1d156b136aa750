"""What we do about it: a pure function of facts."""
