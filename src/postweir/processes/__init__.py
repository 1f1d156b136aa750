"""What runs: each file builds one process out of the rooms."""
