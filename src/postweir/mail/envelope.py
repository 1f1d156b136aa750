"""What travels together: the envelope, and the name a message goes by."""

from postweir.runtime.frames import Value

RECIPIENTS_MAX = 1000  # one message's rows in one commit; RFC 5321 4.5.3.1.8 asks for 100


class Envelope(Value, frozen=True):
    """RFC 5321 2.3.1. Addresses as `mail.address` writes them: domain lower-case, no brackets."""

    mail_from: str  # "" is the null sender
    recipients: tuple[str, ...]
    helo: str
    eight_bit: bool = False  # BODY=8BITMIME, RFC 6152


_DIGITS = "0123456789abcdefghijklmnopqrstuv"  # RFC 4648 base32hex: sorts as the number does
_PAIRS = tuple(a + b for a in _DIGITS for b in _DIGITS)  # ten bits at a time: twice as fast


def message_id(*, at_ms: int, incarnation: int, counter: int) -> str:
    """Return a message's name: 48 bits of time, 16 of worker incarnation, 16 of counter.

    Sixteen characters that sort by time. A name, not a row's key.
    """
    assert 0 <= incarnation < 1 << 16
    assert 0 <= counter < 1 << 16
    number = (at_ms & (1 << 48) - 1) << 32 | incarnation << 16 | counter
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(70, -1, -10)])


def is_message_id(text: str) -> bool:
    """True when `text` may be a name that `message_id` gave."""
    return len(text) == 16 and all(c in _DIGITS for c in text)
