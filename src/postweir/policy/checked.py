"""What the engine compiled a condition to (`cel.expr.CheckedExpr`), read as plain protobuf."""

from collections.abc import Iterator


def pairs(data: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: (number, varint or bytes)."""
    body = as_bytes(data)
    at = 0
    while at < len(body):
        key, at = _varint(body, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(body, at)
            yield number, value
        elif kind == 2:
            length, at = _varint(body, at)
            yield number, body[at : at + length]
            at += length
        else:  # fixed64, fixed32: a double constant
            at += 8 if kind == 1 else 4


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def as_bytes(value: int | bytes) -> bytes:
    """Return a field that holds bytes: a text or a message."""
    assert isinstance(value, bytes)
    return value


def as_int(value: int | bytes) -> int:
    """Return a field that holds a number."""
    assert isinstance(value, int)
    return value
