"""Small files that are whole or not there: written under another name, synced, then renamed."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from postweir.runtime.frames import Torn

HASH_BYTES = 16


def replace(path: Path, data: bytes) -> None:
    """Write a file such that its name stands for all of it or for what was there before.

    Durable when this returns. Raises OSError.
    """
    replace_in_parts(path, (data,))


def replace_in_parts(path: Path, parts: Iterable[bytes]) -> None:
    """The same for what is large: in parts, so that other threads get their turn between them."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    sync_folder(path.parent)


def read(path: Path, bytes_max: int) -> bytes:
    """Return all of a file. Raises OSError; Torn when it is larger than it may be."""
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise Torn("too large")
    return data


def sealed(data: bytes) -> bytes:
    """Return data with its hash before it, for files that are not named after theirs."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest() + data


def unsealed(data: bytes) -> bytes:
    """Return what was sealed. Raises Torn: it is not what was written."""
    text = data[HASH_BYTES:]
    if hashlib.blake2b(text, digest_size=HASH_BYTES).digest() != data[:HASH_BYTES]:
        raise Torn("its bytes are not those that were written")
    return text


def sealed_parts(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is large, and then its hash."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for part in parts:
        digest.update(part)
        yield part
    yield digest.digest()


def unsealed_parts(data: bytes) -> bytes:
    """Return what `sealed_parts` was given, in one. Raises Torn: it is not what was written."""
    text, digest = data[:-HASH_BYTES], data[-HASH_BYTES:]
    if hashlib.blake2b(text, digest_size=HASH_BYTES).digest() != digest:
        raise Torn("its bytes are not those that were written")
    return text


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
