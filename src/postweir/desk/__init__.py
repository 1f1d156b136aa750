"""What people may do, one function a verb; the command line is one face of it."""
