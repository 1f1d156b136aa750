"""What crosses between those who ask and the judge, and what this room asks of others."""

from collections.abc import Sequence
from typing import Protocol

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope
from postweir.policy.verdict import Verdict
from postweir.runtime.frames import Frame, Value


class Ask(Frame, frozen=True):
    """Judge this message. Past `by_ns` (CLOCK_MONOTONIC) nobody waits: neither judge nor count."""

    ask: int
    message: str
    by_ns: int
    late: bool  # asked by spool.later: it is pending and already counted as accepted
    envelope: Envelope
    sender: Sender
    client: str  # address of the customer's server, without port; "" for our own
    tls: bool
    body: bytes | None  # header and body as they will leave, without what we add
    body_file: str | None  # instead of `body`, absolute path
    authenticated: bool = True  # False: known by its network only
    loops: int = 0  # how often our own loop trace stands in it


class Answer(Frame, frozen=True):
    """The verdict, or None: pending, and `reason` says why."""

    ask: int
    verdict: Verdict | None
    reason: str  # "", or: late, busy, scan (not all looked at in time), engine, loading, gone
    facts: bytes  # packed dict[str, Fact] with findings: what the verdict can be repeated from
    repeat: bool = False  # this id was counted before


class Uncount(Frame, frozen=True):
    """The message was judged and then not taken, by our own fault: take it off the counters."""

    message: str


class Alive(Frame, frozen=True):
    """Every 50 ms to all who are connected."""

    settings: str
    policy: str
    open_asks: int


JudgeFrame = Ask | Answer | Uncount | Alive


class Asked(Value, frozen=True):
    """What came of asking: a verdict, or None (pending) with the reason."""

    verdict: Verdict | None
    reason: str = ""  # as in Answer, or: breaker, silent, down, large
    facts: bytes = b""


class Judge(Protocol):
    """The judge as edge and spool.later see it: judge.asking over a socket."""

    async def ask(self, ask: Ask, wait_s: float) -> Asked:
        """Return within `wait_s`, whatever the judge does; never raises."""
        ...

    def uncount(self, account: str, message: str) -> None:
        """Take a message off the counters; a hint, may be lost with the judge."""
        ...


class Counted(Value, frozen=True):
    """One message that was counted: what a restarted judge reads to know its levels again."""

    message: str
    at_us: int
    account: str
    sender: str  # Sender.key
    recipients: int


class UsageFeed(Protocol):
    """What was counted lately, from every shard; spool.client gives it."""

    async def counted(self, since_us: int) -> Sequence[Counted]:
        """Return what was accepted or refused since. Raises ConnectionError: a shard is down."""
        ...
