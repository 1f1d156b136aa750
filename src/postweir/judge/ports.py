"""What crosses between those who ask and the judge, and what this room asks of others."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope
from postweir.policy.bundle import Bundle, name_of
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
    reason: str  # "", or: late, busy, scan (not all looked at in time), engine, off, loading, gone
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
    """One message that was counted: what a judge of the version before this one asks for."""

    message: str
    at_us: int
    account: str
    sender: str  # Sender.key
    recipients: int


class Used(Value, frozen=True):
    """A message that counts, or what became of one recipient: what levels are made of."""

    kind: str  # accepted, refused; or delivered, bounced, unknown (bounced: no such recipient)
    at_us: int  # when it came; or when the recipient ended
    account: str
    sender: str  # Sender.key
    message: str
    recipients: int = 0
    bytes: int = 0
    addresses: list[str] = []  # of the first recipients
    from_domain: str = ""
    envelope_domain: str = ""


class Fed(Value, frozen=True):
    """A page of what shards tell of usage."""

    rows: list[Used]
    cursors: dict[str, int]  # to go on from, of those that answered
    more: bool  # some have more to tell at once
    unread: list[str] = []  # shards that did not answer, or have more to tell


class UsageFeed(Protocol):
    """What was sent and what became of it, in the order each shard committed it: spool.client."""

    async def after(self, cursors: Mapping[str, int], since_us: int, *, whole: bool) -> Fed:
        """Return what came after these cursors, a page of each shard that answers.

        A shard without a cursor, or whose cursor is past its end (another file is in its place),
        tells what came since that time. Not `whole`: only what became of mail.
        """
        ...


class Loadable(Value, frozen=True, dict=True, gc=True):
    """A policy with all that a worker needs to run it.

    Of 500 rules its bytes and its name take 25 ms: they are made once, best in a thread.
    """

    bundle: Bundle
    sets: dict[str, bytes] = {}  # by set_<sha256>
    kept: bytes = b""  # of an older format: the bytes that it is named after

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that it is named after, kept and sent as."""
        return self.kept or self.bundle.canonical

    @cached_property
    def policy(self) -> str:
        """Its name."""
        return name_of(self.canonical)


class Deployment(Value, frozen=True):
    """One time that an operator put a policy in force."""

    number: int
    verb: str  # deploy, rollback
    policy: str
    at_us: int
    by: str
    reason: str = ""


class Deployments(Protocol):
    """What operators put in force, as tables keep it; called in a thread. All raise OSError."""

    def last(self) -> Deployment | None:
        """Return the deployment that counts, None before the first."""
        ...

    def loadable(self, policy: str) -> Loadable | None:
        """Return a policy that was stored, with its sets. None: it is not there."""
        ...


class Promoting(Protocol):
    """The engine, as promotions see it."""

    @property
    def policy(self) -> str:
        """The policy that judges now, "" while none is loaded."""
        ...

    async def promote(self, policies: Sequence[Loadable]) -> str:
        """Judge by the first of these, and fall back to the others in turn. "", or why not.

        When it cannot be loaded, or the caller gives up, what judged before judges on. No question
        is lost.
        """
        ...

    def mask(self, rules: Sequence[str], off: bool) -> None:
        """From here on leave these rules out; `off`: use no engine at all."""
        ...
