"""Is it well: every process's metrics and health, in one place."""
