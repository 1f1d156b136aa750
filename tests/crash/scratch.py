"""Folders that go with whoever made them: in memory, where there is room for them."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from os import getpid
from pathlib import Path

ROOM_BYTES_MIN = 1 << 30
MEMORY = Path("/dev/shm")
PREFIX = "postweir-crash-"


@contextlib.contextmanager
def scratch(*, in_memory: bool = True) -> Iterator[Path]:
    """Make one, and remove what processes left that were killed."""
    where = Path(tempfile.gettempdir())
    with contextlib.suppress(OSError):
        if in_memory and shutil.disk_usage(MEMORY).free >= ROOM_BYTES_MIN:
            where = MEMORY
    for left in where.glob(f"{PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(PREFIX).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{PREFIX}{getpid()}-", dir=where, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
