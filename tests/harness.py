"""What tests of real processes share: the demo's installation, and what a checker knows."""

from demo.installation import Installation, certificate, free_port, wait_for

__all__ = ["Installation", "certificate", "free_port", "wait_for"]
