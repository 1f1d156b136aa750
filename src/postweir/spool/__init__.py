"""What we have promised."""
