"""Messages and outcomes that tests of the spool give it."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope, message_id
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.spool.ports import Accept, Settle

ACCEPT = Verdict("accept", policy="pol_test")
HOLD = Verdict("hold", rule="r")
REFUSE = Verdict("refuse", rule="r", code="CS", text="Looks like spam.")
START_US = 1_790_000_000_000_000
BODY = b"Subject: greetings\r\n\r\nHello.\r\n"


def name(n: int) -> str:
    """Return the n-th message's name."""
    return message_id(at_ms=START_US // 1000 + n, incarnation=7, counter=n & 0xFFFF)


def accept(
    n: int = 1, *recipients: str, verdict: Verdict | None = ACCEPT, **changed: Any
) -> Accept:
    """Return the n-th message, to one recipient unless more are named."""
    body = changed.pop("body", BODY)
    values: dict[str, Any] = {
        "ask": n,
        "message": name(n),
        "by_ns": 0,
        "origin": "smtp",
        "envelope": Envelope(
            changed.pop("mail_from", "joe@customer.example"),
            recipients or ("ann@far.example",),
            "mail.customer.example",
        ),
        "sender": Sender(changed.pop("account", "acme"), "sasl", changed.pop("identity", "joe")),
        "client": "192.0.2.1",
        "tls": True,
        "added": b"Received: by us\r\n",
        "body": body,
        "body_file": None,
        "length": len(body or b""),
        "check": hashlib.blake2b(body or b"", digest_size=16).digest(),
        "verdict": verdict,
        "reason": "" if verdict else "late",
        "facts": b"facts",
        "lifetime_s": 48 * 3600,
    }
    return Accept(**{**values, **changed})


def settle(recipient: int, outcome: str = "delivered", attempt: int = 1, **changed: Any) -> Settle:
    """Return what an attempt came to."""
    reply = {
        "delivered": Reply(250, "2.0.0", "Ok"),
        "deferred": Reply(450, "4.2.0", "Come again"),
        "failed": Reply(550, "5.1.1", "No such user"),
    }[outcome]
    values: dict[str, Any] = {
        "recipient": recipient,
        "attempt": attempt,
        "at_us": START_US,
        "outcome": outcome,
        "retry_in_s": 300.0 if outcome == "deferred" else None,
        "reply": reply,
        "source": "192.0.2.9",
        "peer": "mx.far.example[192.0.2.5]:25",
        "tls": "",
    }
    return Settle(**{**values, **changed})


class Clock:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        self.us = START_US

    def __call__(self) -> int:
        return self.us

    def move(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


async def until(true: Callable[[], Any], wait_s: float = 10.0) -> None:
    """Let the event loop run until something is so. Raises TimeoutError."""
    async with asyncio.timeout(wait_s):
        while not true():  # noqa: ASYNC110 what is waited for has no event of its own
            await asyncio.sleep(0.001)
