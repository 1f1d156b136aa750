"""One SMTP reply, and the two kinds of fault that end in one."""

from postweir.runtime.frames import Value


class Reply(Value, frozen=True):
    """What one side answers: `250 2.1.0 Sender ok`. A line end in `text` makes it several lines."""

    code: int  # RFC 5321 4.2
    status: str  # RFC 3463, such as "2.1.0"; "" where none belongs (greeting, EHLO, 354)
    text: str

    @property
    def accepted(self) -> bool:
        """True for 2xx and 3xx: judge a reply by its first digit, RFC 5321 4.2.1."""
        return self.code < 400

    @property
    def transient(self) -> bool:
        """True for 4xx: the same again may work later."""
        return 400 <= self.code < 500

    def __bytes__(self) -> bytes:
        status = f"{self.status} " if self.status else ""
        if "\n" not in self.text:  # as nearly all are
            return f"{self.code} {status}{self.text}\r\n".encode("ascii", "replace")
        lines = self.text.split("\n")
        out = "".join(f"{self.code}-{status}{line}\r\n" for line in lines[:-1])
        return f"{out}{self.code} {status}{lines[-1]}\r\n".encode("ascii", "replace")

    def __str__(self) -> str:
        return bytes(self).decode().replace("\r\n", " ").strip()


class RemoteFault(Exception):
    """The peer broke the protocol. Answer with `reply`, then close."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class LocalFault(Exception):
    """Our own code broke the protocol. Nothing to tell the peer: fix the caller."""
