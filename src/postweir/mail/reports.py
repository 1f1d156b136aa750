"""Delivery status notifications: what became of a message, told to whoever sent it."""

from collections.abc import Sequence

from postweir.mail.headers import header_end
from postweir.mail.received import date, tamed
from postweir.runtime.frames import Value

HEADER_BYTES_MAX = 64 * 1024  # of the original, returned; the rest helps nobody find the message
LINE_BYTES_MAX = 998  # RFC 5322 2.1.1, CRLF not counted
REPLY_BYTES_MAX = 900  # of a remote's words, so that a Diagnostic-Code fits its line
FAILURES_MAX = 1000  # the recipients of one message

_PRINTABLE = bytes(c if 32 <= c < 127 or c in b"\t\r\n" else ord("?") for c in range(256))


class Failure(Value, frozen=True):
    """One recipient that did not get it."""

    address: str
    status: str  # RFC 3463; what is none is derived from the reply's first digit
    reply: str  # the remote's, or ours where none answered: "550 5.1.1 No such user"
    peer: str  # "host[address]:port", or "" when none was reached


def dsn(
    *,
    id: str,
    hostname: str,
    to: str,
    original_id: str,
    arrived_at_s: float,
    at_s: float,
    failures: Sequence[Failure],
    original_header: bytes,
) -> bytes:
    """Return a whole message (RFC 3464, 6522) that says which recipients failed, and why.

    It is 7-bit and made of CRLF lines, whatever the remote said and the original holds.
    """
    boundary = f"=_{tamed(id)}/{tamed(hostname)[:40]}"  # "=_" is in no base64 or quoted-printable
    failures = failures[:FAILURES_MAX]
    parts = [
        _part("text/plain; charset=us-ascii", _told(hostname, original_id, failures)),
        _part("message/delivery-status", _status(hostname, original_id, arrived_at_s, failures)),
        _part("text/rfc822-headers", _returned(original_header)),
    ]
    body = "".join(f"--{boundary}\r\n{part}" for part in parts)
    head = _header(id, hostname, to, at_s, boundary)
    return f"{head}\r\n{body}--{boundary}--\r\n".encode("ascii", "replace")


def _header(id: str, hostname: str, to: str, at_s: float, boundary: str) -> str:
    lines = [
        f"From: Mail Delivery System <mailer-daemon@{hostname}>",
        f"To: <{_line(to)}>",
        "Subject: Your message could not be delivered",
        f"Date: {date(at_s)}",
        f"Message-ID: <{tamed(id)}@{hostname}>",
        "Auto-Submitted: auto-replied",  # RFC 3834: nobody's vacation answers this
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "Content-Transfer-Encoding: 7bit",
    ]
    return _lines(lines)


def _part(kind: str, text: str) -> str:
    # The blank line before the next boundary belongs to the boundary, RFC 2046 5.1.1.
    return f"Content-Type: {kind}\r\n\r\n{text}\r\n"


def _told(hostname: str, original_id: str, failures: Sequence[Failure]) -> str:
    who = "this recipient" if len(failures) == 1 else "these recipients"
    lines = [
        f"This is the mail system at {hostname}.",
        "",
        f"Your message could not be delivered to {who}.",
        "We will not try again: please correct the address, or send it once more later.",
        "",
    ]
    for failure in failures:
        # Not "said": the words are ours where its silence or its limits decided.
        where = f"At {_line(failure.peer)}" if failure.peer else "No server was reached"
        lines += [f"<{_line(failure.address)}>", f"    {where}: {_words(failure.reply)}", ""]
    lines.append(f"If you ask us about it, name the message: {tamed(original_id)}")
    return _lines(lines)


def _status(
    hostname: str, original_id: str, arrived_at_s: float, failures: Sequence[Failure]
) -> str:
    groups = [
        _lines(
            [
                f"Reporting-MTA: dns; {_line(hostname)}",
                f"X-Postweir-Id: {tamed(original_id)}",
                f"Arrival-Date: {date(arrived_at_s)}",
            ]
        )
    ]
    groups += [_group(failure) for failure in failures]
    return "\r\n".join(groups)


def _group(failure: Failure) -> str:
    lines = [
        f"Final-Recipient: rfc822; {_line(failure.address)}",
        "Action: failed",
        f"Status: {_status_of(failure)}",
    ]
    if failure.peer:
        lines.append(f"Remote-MTA: dns; {_line(failure.peer.partition('[')[0] or failure.peer)}")
        lines.append(f"Diagnostic-Code: smtp; {_words(failure.reply)}")
    else:
        # RFC 3464 2.3.6: a code of ours is no SMTP reply of theirs.
        lines.append(f"Diagnostic-Code: x-postweir; {_words(failure.reply)}")
    return _lines(lines)


def _status_of(failure: Failure) -> str:
    """Return the status as it is, or as far as the code tells it: a DSN must have one."""
    parts = failure.status.split(".")
    numbers = all(p.isascii() and p.isdecimal() and len(p) <= 3 for p in parts)
    if len(parts) == 3 and numbers and parts[0] in ("4", "5"):
        return failure.status
    return "4.0.0" if failure.reply.startswith("4") else "5.0.0"


def _words(reply: str) -> str:
    return _line(reply.replace("\r", "").replace("\n", " "))[:REPLY_BYTES_MAX]


def _line(text: str) -> str:
    """Return text as printable ASCII on one line."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return text


def _returned(original_header: bytes) -> str:
    """Return the original's header, cut at a line, 7-bit, each line short enough."""
    header = original_header[: header_end(original_header)]
    if len(header) > HEADER_BYTES_MAX:
        header = header[: header.rfind(b"\n", 0, HEADER_BYTES_MAX) + 1]
    text = header.translate(_PRINTABLE).decode("ascii")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    return _lines(lines)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line[:LINE_BYTES_MAX]}\r\n" for line in lines)
