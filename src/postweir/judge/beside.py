"""A policy in a file, and the files beside it that it names: read within bounds, and no others."""

import os
import stat
from pathlib import Path

from postweir.policy.document import BYTES_MAX, Fault, Files, Parsed, Wrong, parse
from postweir.policy.sets import BYTES_MAX as SET_BYTES_MAX
from postweir.policy.sets import file_name_fault


def text_of(path: Path) -> str:
    """Return a policy's text. Raises Wrong: it is none, OSError."""
    with path.open("rb") as file:
        data = file.read(BYTES_MAX + 4)  # one more than is taken, with a mark before it
    try:
        return data.decode()
    except UnicodeDecodeError as fault:
        if len(data) > BYTES_MAX:  # cut in the midst of a character
            return data.decode("utf-8", "replace")
        line = data[: fault.start].count(b"\n") + 1
        what, do = "is not UTF-8", "save it as UTF-8"
        raise Wrong([Fault(f"{path}:{line}", "", what, do)]) from None


def files(path: Path) -> Files:
    """Return what reads the files beside a policy."""
    return lambda name: _read(path.parent, name)


def read(path: Path) -> Parsed:
    """Return the policy in a file, with its sets. Raises Wrong, OSError."""
    return parse(text_of(path), str(path), files(path))


def _read(folder: Path, name: str) -> bytes | str:
    """Return a file's bytes, or a sentence: why it is not read.

    No link is followed, neither the file's own nor a folder's on the way: it could lead anywhere.
    """
    fault = file_name_fault(name)
    if fault:
        return f"{name[:80]!r} {fault}"
    try:
        descriptor = _opened(folder, name)
    except OSError as error:
        words = (error.strerror or "cannot be read").lower()
        return f"{name} cannot be read: {_WORDS.get(words, words)}"
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return f"{name} is no ordinary file"
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(SET_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > SET_BYTES_MAX:
        return f"{name} is larger than {SET_BYTES_MAX >> 20} MiB"
    return data


_WORDS = {"too many levels of symbolic links": "it is a link, and links are not followed",
          "not a directory": "a folder on the way is a link, or none"}  # fmt: skip


def _opened(folder: Path, name: str) -> int:
    """Open a file below a folder, step by step. Raises OSError."""
    *steps, last = [step for step in name.split("/") if step not in ("", ".")] or [""]
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for step in steps:
            below = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        # Without O_NONBLOCK a pipe would wait for somebody to write.
        return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
