"""What is in the message: findings, never verdicts."""
