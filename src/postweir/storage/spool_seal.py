"""The seal of a message: a hash over all of it that must never change, kept in its rows.

A page's checksum finds bytes that changed on the disk. The seal finds what a checksum cannot: a
page that was left behind, a row of another message, a byte that changed before it was written.
It is looked at when a message leaves, when a bounce is made of it, and when a file is salvaged.
The body has a hash of its own, which the seal covers. Rows of schema 2 and before have no seal.
A late verdict may add a header and choose the way out: then the second part is made anew.
"""

import hashlib
import zlib
from collections.abc import Sequence

from postweir.runtime.frames import pack

PART_BYTES = 8  # one part for the message's row, one for the headers that we add and the way out
SEALED = (
    "id", "name", "accepted_at", "origin", "account", "sender", "who", "mail_from", "helo",
    "eight_bit", "client", "tls", "size", "digest", "body_file", "lifetime_s", "bounces_1h_max",
    "return_path", "authenticated", "loops", "recipients",
)  # fmt: skip
OF_MESSAGE = ", ".join(f"m.{column}" for column in SEALED)


def seal_of(values: Sequence[object], added: bytes, way_out: bytes = b"") -> bytes:
    """Return the seal of a message with these values of `SEALED`, our headers and the way out."""
    assert len(values) == len(SEALED)
    return _hash(pack(tuple(values))) + _hash(added + way_out)


def chosen(pool: object, lifetime_s: object) -> bytes:
    """Return what a verdict chose for the way out, as it is sealed; b"" where it chose nothing."""
    return pack((pool, lifetime_s)) if pool or lifetime_s else b""


def resealed(seal: bytes | None, added: bytes, way_out: bytes) -> bytes | None:
    """Return the seal with these headers and this way out; None where there was none."""
    return seal[:PART_BYTES] + _hash(added + way_out) if seal is not None else None


def recipient_seal(message_seal: bytes, recipient: int, address: str) -> int:
    """Return the seal of one recipient's row: it binds the address to its message."""
    seed = int.from_bytes(message_seal[:4], "little")
    return zlib.crc32(b"%d %b" % (recipient, address.encode("utf-8", "surrogateescape")), seed)


def envelope_sound(values: Sequence[object], seal: object) -> bool:
    """True when a message's row bears its seal out; one without a seal cannot be asked."""
    return seal is None or (
        isinstance(seal, bytes) and _hash(pack(tuple(values))) == seal[:PART_BYTES]
    )


def headers_sound(added: object, seal: object, way_out: bytes = b"") -> bool:
    """True when the headers that we add, and the way out, are those that were sealed."""
    return seal is None or (
        isinstance(seal, bytes)
        and isinstance(added, bytes)
        and _hash(added + way_out) == seal[PART_BYTES:]
    )


def address_sound(message_seal: object, recipient: int, address: object, seal: object) -> bool:
    """True when a recipient's row bears its seal out; one without a seal cannot be asked."""
    if message_seal is None and seal is None:
        return True
    if not isinstance(message_seal, bytes) or not isinstance(address, str):
        return False
    return recipient_seal(message_seal, recipient, address) == seal


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=PART_BYTES).digest()
