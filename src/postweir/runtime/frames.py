"""What processes say to each other: u32 length + msgpack, one value a frame.

Pure: bytes in, frames out. A frame is a `Frame`; what it carries is made of `Value`s, numbers,
texts and bytes. Both travel as arrays, so a field may only be added last, and with a default:
then a process one version older or newer still reads it. A tag nobody here knows is skipped and
counted, never an error: the neighbour may be newer than we are.
"""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

FRAME_BYTES_MAX = 8 * 1024 * 1024  # 1,000 recipients, an inline body and facts fit several times

F = TypeVar("F")
V = TypeVar("V")

Struct = msgspec.Struct
made = msgspec.field  # of a Struct: `made(default_factory=…)`
Bad = msgspec.ValidationError
# What a decoder says of bytes that are none; texts that are not UTF-8 it leaves to Python.
BROKEN = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something that is carried: immutable, compared by content, packed as an array."""


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """One thing said over a link; its class name is its tag."""


class _Nobody(Frame, frozen=True):
    """Never sent: it makes every family a union."""


class Torn(Exception):
    """The bytes are no frames: too long, or not what was declared. Close the link."""


_encoder = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    """Return a value as msgpack, without a length."""
    return _encoder.encode(value)


def unpack(data: bytes, kind: type[V]) -> V:
    """Return what `pack` packed. Raises `Torn` when it is not a `kind`."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except BROKEN as fault:
        raise Torn(str(fault)) from None


def convert(value: object, kind: Any) -> Any:
    """Return a plain value (from TOML or JSON) as `kind`. Raises `Bad` with what is wrong."""
    return msgspec.convert(value, kind, strict=True)


def with_field(value: V, name: str, other: object) -> V:
    """Return a value with another in one field."""
    return msgspec.structs.replace(value, **{name: other})  # type: ignore[type-var]


def plain(value: object) -> Any:
    """Return a value as dicts, lists, texts and numbers, for JSON."""
    return msgspec.to_builtins(value)


def json(value: object) -> bytes:
    """Return a value as JSON."""
    return msgspec.json.encode(value)


def from_json(data: bytes, kind: Any) -> Any:
    """Return JSON as `kind`. Raises `Torn` when it is not."""
    try:
        return msgspec.json.decode(data, type=kind)
    except BROKEN as fault:
        raise Torn(str(fault)) from None


def encode(frames: Iterable[Frame]) -> bytes:
    """Return the bytes that carry these frames, in order."""
    out = bytearray()
    for frame in frames:
        body = _encoder.encode(frame)
        assert len(body) <= FRAME_BYTES_MAX, f"{type(frame).__name__}: {len(body)} bytes"
        out += len(body).to_bytes(4, "big")
        out += body
    return bytes(out)


class Splitter(Generic[F]):
    """Cuts a stream of bytes into frames of one family, however the bytes arrive."""

    def __init__(self, family: Any) -> None:
        # Of a union the tag is looked at first, whatever else is odd about the frame.
        self._decoder = msgspec.msgpack.Decoder(family | _Nobody)
        self._buffer = bytearray()
        self.skipped = 0  # frames whose tag is not of the family

    def feed(self, data: bytes) -> list[F]:
        """Return the frames that are complete now. Raises `Torn`."""
        buffer = self._buffer
        buffer += data
        frames: list[F] = []
        at = 0
        while len(buffer) - at >= 4:
            length = int.from_bytes(buffer[at : at + 4], "big")
            if length > FRAME_BYTES_MAX:
                raise Torn(f"a frame of {length} bytes")
            if len(buffer) - at - 4 < length:
                break
            body = bytes(memoryview(buffer)[at + 4 : at + 4 + length])
            at += 4 + length
            frame = self._decode(body)
            if frame is not None:
                frames.append(frame)
        if at:
            del buffer[:at]
        return frames

    def _decode(self, body: bytes) -> F | None:
        try:
            return self._decoder.decode(body)  # type: ignore[no-any-return]
        except msgspec.ValidationError as fault:
            if "Invalid value" in str(fault) and str(fault).endswith("`$[0]`"):
                self.skipped += 1
                return None
            raise Torn(str(fault)) from None
        except BROKEN as fault:
            raise Torn(str(fault)) from None
