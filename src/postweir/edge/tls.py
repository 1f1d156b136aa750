"""TLS as bytes in and bytes out: no transport is swapped, so there is no moment between two.

`loop.start_tls` changes the protocol under a connection that is already being read: stock asyncio
hands over decrypted data before it says that TLS stands, and uvloop reads the first bytes of a
handshake as if they were commands when the TLS begins with the connection. Here each byte goes
through this layer or does not, by a line of ours. It also costs no 256 KiB buffer a connection.
"""

import contextlib
import ssl

PIECE_BYTES = 16 * 1024  # RFC 8446 5.1: no record holds more


class Tls:
    """The server's side of one TLS connection. Methods raise ssl.SSLError, an OSError."""

    __slots__ = ("_in", "_object", "_out", "closed", "standing")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_side=True)
        self.standing = False  # the handshake is done
        self.closed = False  # the client said goodbye

    @property
    def object(self) -> ssl.SSLObject:
        """What the handshake agreed on can be asked of it."""
        return self._object

    def receive(self, data: bytes) -> bytes:
        """Take what the socket gave; return what it says, b"" while nothing does."""
        self._in.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.standing:
                self._object.do_handshake()
                self.standing = True
        return self._read() if self.standing else b""

    def send(self, data: bytes) -> None:
        """Say something; `unsent` has it for the socket."""
        if data:
            self._object.write(data)

    def unsent(self) -> bytes:
        """Return what the socket must send now."""
        return self._out.read()

    def say_goodbye(self) -> None:
        """Announce the end; `unsent` has it."""
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()

    def _read(self) -> bytes:
        pieces = []
        try:
            while piece := self._object.read(PIECE_BYTES):
                pieces.append(piece)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
