"""A remote's replies, read out of whatever bytes it sends: bounded, printable, or a fault."""

from postweir.mail.reply import Reply

LINE_BYTES_MAX = 2048  # RFC 5321 4.5.3.1.5 says 512; a longer line is cut, not refused
LINES_MAX = 100  # of one reply: an EHLO has twenty
TEXT_BYTES_MAX = 16 * 1024  # of one reply; what is beyond is dropped


class ReplyReader:
    """Cuts a stream of bytes into replies, however the bytes arrive.

    A remote that breaks the grammar is not argued with: `fault` says how, and nothing more comes.
    """

    def __init__(self) -> None:
        self.fault = ""
        self._buffer = b""
        self._at = 0  # what is before has been read: lines are not cut off one by one
        self._code = 0  # of the reply under way
        self._status = ""
        self._lines: list[str] = []
        self._text_bytes = 0

    @property
    def buffered(self) -> int:
        """Bytes of what is not yet a reply."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        if not self.fault:
            self._buffer = self._buffer[self._at :] + data
            self._at = 0

    def next_reply(self) -> Reply | None:
        """Return the next whole reply, or None."""
        while not self.fault:
            at = self._at
            end = self._buffer.find(b"\n", at)
            if end < 0:
                # Keeps the beginning of a line that is too long, whatever its length.
                self._buffer = self._buffer[at : at + LINE_BYTES_MAX]
                self._at = 0
                return None
            line = self._buffer[at : min(end, at + LINE_BYTES_MAX)]
            self._at = end + 1
            if self._take(line):
                return self._whole()
        return None

    def _take(self, line: bytes) -> bool:
        """Add one line to the reply under way; True when it was the last."""
        text = _printable(line.rstrip(b"\r"))
        digits, mark = text[:3], text[3:4]
        if len(digits) < 3 or not digits.isdecimal() or digits[0] not in "2345":
            return self._broken(f"It said {text[:80]!r}")
        if mark not in ("", " ", "-"):
            return self._broken(f"It said {text[:80]!r}")
        if self._lines and int(digits) != self._code:
            return self._broken(f"Its reply says both {self._code} and {digits}")
        if len(self._lines) >= LINES_MAX:
            return self._broken(f"Its reply has more than {LINES_MAX} lines")
        self._code = int(digits)
        self._add(text[4:])
        return mark != "-"

    def _add(self, text: str) -> None:
        status, _, rest = text.partition(" ")
        if _is_status(status, self._code):
            self._status = self._status or status
            text = rest if status == self._status else text
        text = text[: TEXT_BYTES_MAX - self._text_bytes]
        self._text_bytes += len(text)
        self._lines.append(text)

    def _whole(self) -> Reply:
        reply = Reply(self._code, self._status, "\n".join(self._lines))
        self._code, self._status, self._text_bytes = 0, "", 0
        self._lines = []
        return reply

    def _broken(self, what: str) -> bool:
        self.fault = what
        self._buffer, self._at = b"", 0
        return False


def _is_status(text: str, code: int) -> bool:
    """True for an enhanced status (RFC 2034) that agrees with the code's first digit."""
    parts = text.split(".", 3)
    return (
        len(parts) == 3
        and parts[0] == str(code)[0]
        and all(part.isdecimal() and len(part) <= 3 for part in parts)
    )


def _printable(line: bytes) -> str:
    text = line.decode("ascii", "replace").replace("\ufffd", "?").replace("\t", " ")
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
