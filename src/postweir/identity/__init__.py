"""Who is sending."""
