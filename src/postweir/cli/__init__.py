"""What an operator types; it calls desk only."""
