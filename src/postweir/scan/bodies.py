"""Reads a body from its file, which must be one, and not a link to elsewhere."""

import os
from pathlib import Path

BODY_BYTES_MAX = 100 * 1024 * 1024  # what the MIME parser takes; the rest is not looked at


def read_file(path: Path) -> bytes:
    """Return a body's bytes. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(BODY_BYTES_MAX)


def size_of(body: bytes | Path) -> int:
    """Return how long a body is. Raises OSError."""
    return len(body) if isinstance(body, bytes) else os.lstat(body).st_size
