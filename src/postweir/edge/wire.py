"""One client's bytes: written in order and through TLS, read only while wanted, ended politely."""

import asyncio
import ssl
from typing import Any

from postweir.edge.tls import Tls


class Wire:
    """A transport, with or without TLS on it. Nothing here waits, and nothing is late."""

    __slots__ = ("_layer", "_out", "_paused", "_transport", "closing")

    def __init__(self) -> None:
        self._transport: Any = None  # an asyncio.Transport; uvloop's do not say so
        self._layer: Tls | None = None  # through which every byte goes, once there is one
        self._out: list[bytes] = []
        self._paused = False  # we do not read
        self.closing = False  # nothing is read or said any more

    def made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = transport

    def lost(self) -> bool:
        """It is gone; False when that was known."""
        known = self._transport is None
        self._transport, self.closing = None, True
        self._out.clear()
        return not known

    @property
    def over(self) -> bool:
        """True when the client has said, in TLS, that it says no more."""
        return self._layer is not None and self._layer.closed

    @property
    def handshaking(self) -> bool:
        """True while TLS is being agreed on."""
        return self._layer is not None and not self._layer.standing

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What the handshake agreed on can be asked of it; None in clear."""
        return self._layer.object if self._layer is not None and self._layer.standing else None

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """From here on every byte goes through TLS, or the connection ends."""
        self._layer = Tls(context)

    def decrypted(self, data: bytes) -> bytes:
        """Return what the client says; b"" while nothing. Raises OSError: TLS is broken, close."""
        if self._layer is None:
            return data
        plain = self._layer.receive(data)
        self._write_unsent()
        return plain

    def say(self, data: bytes) -> None:
        """Have something leave with the next `flush`."""
        self._out.append(data)

    def flush(self) -> bool:
        """Write what was said, in one go; False when there is nothing."""
        if not self._out or self._transport is None:
            return False
        data = b"".join(self._out)
        self._out.clear()
        if self._layer is None:
            self._transport.write(data)
        elif self._layer.standing:  # else nobody could read it
            self._layer.send(data)
            self._write_unsent()
        return True

    def end(self, last: bytes = b"") -> None:
        """Say the last words, and close."""
        if last:
            self._out.append(last)
        self.flush()
        if self._layer is not None:
            self._layer.say_goodbye()
        self.close()

    def close(self) -> None:
        """Close once what was written is out; of TLS that broke, with the alert that says why."""
        self._write_unsent()
        self.closing = True
        self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()

    def read(self, wanted: bool) -> None:
        """Read on, or do not."""
        if self._transport is None or self.closing or wanted == (not self._paused):
            return
        self._paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    @property
    def paused(self) -> bool:
        """True while nothing is read."""
        return self._paused

    def _write_unsent(self) -> None:
        if self._layer is not None and (unsent := self._layer.unsent()):
            self._transport.write(unsent)
