"""File systems in image files, mounted for the length of a `with`, whose power can be cut."""

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.crash.life import Unfit
from tests.crash.scratch import scratch
from tests.peers.unpacked import environment, program

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
LOG_FLUSH, NO_LOG_FLUSH = 1, 2  # 0 flushes everything: no power cut
BYTES = {"ext4": 96 << 20, "xfs": 320 << 20}  # of an image, sparse; mkfs.xfs makes none below 300
NEW_MOUNTS = 0x20000  # CLONE_NEWNS
UMOUNT_TRIES, UMOUNT_PAUSE_S = 100, 0.05


class Image:
    """One file system; `mount` and `umount` as often as wanted."""

    def __init__(self, kind: str, folder: Path) -> None:
        """Make it. Raises Unfit."""
        self._kind, self._file, self.folder = kind, folder / f"{kind}.img", folder / kind
        self.folder.mkdir()
        maker = program(f"mkfs.{kind}")
        if maker is None:
            raise Unfit(f"no mkfs.{kind}")
        with self._file.open("wb") as file:
            file.truncate(BYTES[kind])
        words = ["-q", "-F"] if kind == "ext4" else ["-q", "-f"]
        _run([maker, *words, str(self._file)], environment())

    def mount(self) -> None:
        """Make its files visible; replays the journal. Raises Unfit."""
        _run(["mount", "-o", "loop", "-t", self._kind, str(self._file), str(self.folder)])

    def umount(self) -> None:
        """Take it away; its loop device goes with it."""
        for _ in range(UMOUNT_TRIES):
            done = subprocess.run(["umount", str(self.folder)], capture_output=True, check=False)
            if done.returncode == 0 or not os.path.ismount(self.folder):
                return
            time.sleep(UMOUNT_PAUSE_S)  # who was killed there is not quite gone
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)
        raise RuntimeError(f"{self.folder} cannot be unmounted: {done.stderr!r}")

    def open(self) -> int:
        """Return a descriptor by which its power can be cut."""
        return os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def cut(descriptor: int, flags: int) -> None:
    """Cut the power of a mounted file system: nothing reaches its device any more."""
    fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", flags))


def alone() -> None:
    """Mount from now on for this process and its children only: gone with them, whatever ends them.

    Where the kernel does not allow it, `images` still takes away what it mounted.
    """
    if ctypes.CDLL(None).unshare(NEW_MOUNTS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False)


@contextlib.contextmanager
def images(kind: str) -> Iterator[Image]:
    """Return a new one, mounted. Raises Unfit."""
    if os.geteuid() != 0:
        raise Unfit("loop devices need root")
    with scratch() as folder:
        image = Image(kind, folder)
        image.mount()
        try:
            yield image
        finally:
            if os.path.ismount(image.folder):
                image.umount()


def _run(words: list[str], environment: dict[str, str] | None = None) -> None:
    """Raises Unfit: the machine does not do it."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise Unfit(f"{' '.join(words[:2])}: {done.stderr.strip()[-200:]}")
