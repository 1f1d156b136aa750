"""What crosses between a shard and all others, and what this room asks of storage."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from postweir.identity.sender import Sender
from postweir.judge.ports import Counted, Used
from postweir.mail.envelope import Envelope
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.runtime.frames import Frame, Value

BUCKETS = 64  # slices of sites; far more than workers, so that they share evenly
LANES = 256  # slices of senders in the backlog


class Settle(Frame, frozen=True):
    """What one attempt at one recipient came to."""

    recipient: int
    attempt: int
    at_us: int  # wall clock, for the journal only
    outcome: str  # delivered, deferred, failed (for good, or its lifetime ended)
    retry_in_s: float | None  # with deferred: from now; the shard sets the due time
    reply: Reply  # the remote's, or ours (4.4.1 no answer); bounded and printable
    source: str  # our address that spoke, "" when none did
    peer: str  # "host[address]:port", "" when none was reached
    tls: str  # "TLSv1.3 TLS_AES_256_GCM_SHA384", or ""
    site: str = ""


class Hello(Frame, frozen=True):
    """The first frame of every connection to a shard, and its answer's twin."""

    version: int
    process: str  # edge, delivery, judge, command, ...
    index: int
    of: int  # delivery: how many workers there are; bucket % of == index is mine
    incarnation: int
    settings: str
    in_hand: list[tuple[int, int]] = []  # delivery: (recipient, attempt) it still works on
    unsettled: list[Settle] = []  # delivery: outcomes whose commit it has not heard of


class Accept(Frame, frozen=True):
    """Make this message ours. Past `by_ns` (CLOCK_MONOTONIC) the commit is not begun."""

    ask: int
    message: str
    by_ns: int
    origin: str  # smtp, dsn, probe
    envelope: Envelope
    sender: Sender
    client: str
    tls: bool
    added: bytes  # headers we put before the message at egress
    body: bytes | None
    body_file: str | None  # name inside spool/bodies-K, already synced with its directory
    length: int  # bytes of the body (as stored, without `added`)
    check: bytes  # blake2b, 16 bytes, of the body
    verdict: Verdict | None  # None: pending
    reason: str
    facts: bytes
    lifetime_s: int
    log: dict[str, str] = {}  # what the timeline shows of the connection: helo, tls version, ...
    bounces_1h_max: int = 1000
    return_path: str = ""
    eight_bit: bool = False
    authenticated: bool = True  # as the judge was told; it is asked again about pending mail
    loops: int = 0


class Safe(Frame, frozen=True):
    """Committed and synced: 250 may be said."""

    ask: int


class Unsafe(Frame, frozen=True):
    """Not taken, surely: nothing of it is kept. `reason`: full, late, failed, corrupt."""

    ask: int
    reason: str


class Refusal(Frame, frozen=True):
    """A message we did not take, for the record; nobody waits for its commit."""

    message: str
    at_us: int
    stage: str  # mail, rcpt, data, verdict
    sender: Sender
    envelope: Envelope
    client: str
    reply: Reply
    verdict: Verdict | None
    facts: bytes


class Judged(Frame, frozen=True):
    """A late verdict for a pending message."""

    message: str
    verdict: Verdict
    facts: bytes


class Request(Value, frozen=True):
    """An operator's wish, numbered; `scope` is a message id, or account=…, sender=…, domain=…."""

    number: int
    verb: str  # release, retry, drop, suspend, resume
    scope: str
    reason: str
    by: str
    at_us: int
    until_us: int | None = None


class Health(Frame, frozen=True):
    """Every 50 ms to all who are connected."""

    settings: str
    accepts: bool
    reason: str  # why not: full, draining, starting, busy, unwritable, unproven, held up
    free_bytes: int
    queued: int
    incarnation: int = 0  # of this shard's process; 0: one that does not say
    records: bool = True  # outcomes can be committed; while not, nothing more of it is sent


class Content(Frame, frozen=True):
    """A message about to leave; its Outs follow in the same batch. Kept until they are settled."""

    message: str
    mail_from: str
    added: bytes
    body: bytes | None
    body_file: str | None  # absolute path
    length: int
    check: bytes
    eight_bit: bool = False
    origin: str = "smtp"
    pool: str = ""  # which of our addresses it leaves by; "": any


class Out(Frame, frozen=True):
    """One recipient handed to delivery."""

    recipient: int
    attempt: int  # rises with each time it is handed out; a Settle names it
    message: str
    sender: str  # Sender.key: whom to be fair between
    address: str
    accepted_at_us: int
    age_s: float  # monotonic where it can be: how long we have had it
    tries: int  # attempts that failed before
    lifetime_s: int
    may_expire: bool = True  # False for an hour after a clock step
    possible_duplicate: bool = False
    bucket: int = -1  # whose credit it took; -1: its domain's


class Settled(Frame, frozen=True):
    """These (recipient, attempt) are committed: forget them."""

    done: list[tuple[int, int]]


class Credit(Frame, frozen=True):
    """`more` further recipients of this bucket may be handed out.

    Below 0 it asks for unused credit back, and in the answer it is what is given back: only the
    shard knows what it has not used.
    """

    bucket: int
    more: int


class Sited(Frame, frozen=True):
    """This recipient's site is another worker's: the shard moves it to that site's bucket."""

    recipient: int
    attempt: int
    site: str


class Wake(Frame, frozen=True):
    """A hint: the tables may have changed, look now."""


class Read(Frame, frozen=True):
    """A bounded question, one of `questions.QUESTIONS`.

    `committed` is asked by who lost a shard with accepts in flight: `argument` is their names,
    with spaces between, at most `count_max`; a row `Committed` answers each.
    """

    ask: int
    question: str
    argument: str
    after: int
    count_max: int


class Page(Frame, frozen=True):
    """Rows of an answer, each packed; `next` to go on, None at the end."""

    ask: int
    rows: list[bytes]
    next: int | None


ShardFrame = (
    Hello | Accept | Safe | Unsafe | Refusal | Judged | Health | Content | Out | Settle | Settled
    | Credit | Sited | Wake | Read | Page
)  # fmt: skip


class Reached(Value, frozen=True):
    """The first row of `usage` and `turned`: how far this page read, and how far there is to."""

    next: int  # the cursor to go on from
    last: int


class Committed(Value, frozen=True):
    """What a shard's file says of one name: whether its accept was committed, ever."""

    message: str
    taken: bool


class Unknown(Exception):
    """Nobody can say whether the message was taken: 451, and it may come again."""


class Ledger(Value, frozen=True):
    """One account's line, in recipients. `residual` is 0 or somebody is paged."""

    account: str  # "-" for our own bounces
    accepted: int = 0
    delivered: int = 0
    bounced: int = 0
    refused: int = 0  # accepted first, then refused by a late verdict or an expired hold
    dropped: int = 0
    held: int = 0
    queued: int = 0
    pending: int = 0

    @property
    def residual(self) -> int:
        """What is missing (positive) or too many (negative)."""
        ends = self.delivered + self.bounced + self.refused + self.dropped
        return self.accepted - ends - self.held - self.queued - self.pending


class Step(Value, frozen=True):
    """One committed change of a message's or recipient's state."""

    number: int  # in commit order within its shard: the cursor
    at_us: int
    message: str
    recipient: int  # 0: the message as a whole
    step: str  # accepted, pending, judged, held, released, attempt, delivered, bounced, ...
    detail: dict[str, str | int | float | bool | None] = {}


class RecipientRow(Value, frozen=True):
    """A recipient as `message show` and `queue ls` see it."""

    recipient: int
    address: str
    state: str  # queued, held, pending, delivered, bounced, refused, dropped
    next_attempt_at_us: int | None
    tries: int
    reply: str  # the last one, "" before any
    in_hand: bool = False


class MessageRow(Value, frozen=True):
    """A message as `message show` and `queue ls` see it."""

    shard: int
    id: str
    accepted_at_us: int
    origin: str
    account: str
    sender: Sender
    client: str
    mail_from: str
    state: str  # queued, pending, held, settled; refused for a refusal that was never ours
    verdict: Verdict | None
    reason: str
    facts: bytes
    bytes: int
    recipients: list[RecipientRow]
    log: dict[str, str] = {}
    stage: str = ""  # of a refusal
    reply: str = ""  # of a refusal
    lifetime_s: int = 0  # how long each recipient is tried
    pool: str = ""  # which of our addresses it leaves by
    held_at_us: int | None = None  # since when, while it is held
    hold_until_us: int | None = None  # by its verdict; None: as `spool.hold_days` says


class Recorded(Value, frozen=True):
    """A message with the facts that its verdict was made of: what a policy is tried on again.

    With no facts it only tells how many of its sender were not kept, up to this one.
    """

    number: int  # its row: the cursor
    message: str
    at_us: int
    account: str
    sender: str  # Sender.key
    verdict: Verdict | None
    facts: bytes
    unkept: int = 0  # before it, of the same sender and as much objected to: it stands for them
    objected: bool = False


class Quarantine(Value, frozen=True):
    """This message's body is not what was accepted: hold it, and never deliver it."""

    message: str
    what: str  # of the body: missing, length, check; else envelope, address


Change = Accept | Refusal | Settle | Judged | Request | Sited | Quarantine


class Done(Value, frozen=True):
    """What one committed change came to, for the shard's memory."""

    reason: str = ""  # an Accept that was not taken, and why: full, corrupt, failed
    number: int = 0  # an Accept that was taken: its row
    ready: tuple[int, ...] = ()  # of it, the recipients that may leave now
    due: tuple[tuple[int, int, int], ...] = ()  # (bucket, lane, due_us): look there then
    ended: tuple[int, ...] = ()  # recipients that are no longer queued to leave: forget them
    noted: tuple[str, ...] = ()  # for log and metrics: bounced, capped, held, corrupt, ...
    more: bool = False  # a Request with a wide scope: commit it again to go on


class Full(OSError):
    """No room: everything was rolled back, surely, and the store goes on."""


class Damaged(OSError):
    """What the file says is not what was written to it: nothing more may be taken or said."""


class Away(OSError):
    """The folder of bodies is not there now: nothing can be said of any of them, look later."""


class Store(Protocol):
    """Where one shard keeps its rows. All calls on one thread, the writer's."""

    def commit(self, changes: Sequence[Change]) -> Sequence[Done]:
        """Make all changes, or none, and sync; an answer for each.

        Raises Full: none was made, and the store goes on. Raises OSError: nobody knows; stop
        acknowledging and exit.
        """
        ...

    def earliest(self) -> Sequence[tuple[int, int, int]]:
        """Return (bucket, lane, due_us) of the first due of every lane that has any."""
        ...

    def next_due(self, bucket: int, lane: int, after_us: int) -> int | None:
        """Return the first due time of this lane that is later than `after_us`."""
        ...

    def upkeep(self) -> bool:
        """Do a small batch of what retention asks for; True when more is left to do."""
        ...

    def queued(self) -> int:
        """Return how many recipients have not ended."""
        ...

    def close(self) -> None:
        """Leave the file tidy. Nothing depends on it."""
        ...

    def due(
        self, bucket: int, lane: int, until_us: int, out: AbstractSet[int], count_max: int
    ) -> Sequence[Out]:
        """Return recipients of this bucket and lane due by then and not in `out`, oldest first."""
        ...

    def pending(self, after: int, count_max: int) -> Sequence[Accept]:
        """Return messages not yet judged, oldest first."""
        ...

    def content(self, message: str) -> Content | None:
        """Return what leaves, verified; None when it is corrupt (then it is quarantined).

        Raises Away.
        """
        ...

    def request_done(self) -> int:
        """Return the number of the last request whose effect is committed."""
        ...


class Reader(Protocol):
    """Bounded reads of one shard's rows, on a thread of their own."""

    def ledger(self) -> Sequence[Ledger]:
        """Return one line an account, from one read transaction."""
        ...

    def steps(self, after: int, count_max: int) -> Sequence[Step]:
        """Return steps in commit order after that number."""
        ...

    def message(self, message: str) -> MessageRow | None:
        """Return one message with all its recipients, or None."""
        ...

    def queue(self, scope: str, after: int, count_max: int) -> tuple[list["QueueRow"], int | None]:
        """Return recipients that have not ended, and the cursor to go on from."""
        ...

    def counted(
        self, since_us: int, after: int, count_max: int
    ) -> tuple[list[Counted], int | None]:
        """Return what the judge counted since then, and the cursor to go on from."""
        ...

    def usage(
        self, since_us: int, whole: bool, after: int, count_max: int
    ) -> "list[Reached | Used]":
        """Return where it was read to, then messages that count and ends of recipients."""
        ...

    def turned(
        self, since_us: int, whole: bool, after: int, count_max: int
    ) -> "list[Reached | Used]":
        """Return where it was read to, then messages that were judged and refused."""
        ...

    def refusals(
        self, scope: str, after: int, count_max: int
    ) -> tuple[list["MessageRow"], int | None]:
        """Return messages that were never ours, newest first, and the cursor to go on from."""
        ...

    def recorded(
        self, since_us: int, account: str, after: int, count_max: int
    ) -> tuple[list[Recorded], int | None]:
        """Return judged messages with their facts, oldest first, and the cursor to go on from."""
        ...

    def timeline(self, message: str) -> Sequence[Step]:
        """Return the steps of one message, in commit order."""
        ...

    def status(self) -> "ShardStatus":
        """Return how full this shard is."""
        ...

    def committed(self, messages: Sequence[str]) -> AbstractSet[str]:
        """Return which of these names were ever committed, by this process or one before it."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Requests(Protocol):
    """The operator's wishes, in order."""

    def after(self, number: int) -> Sequence[Request]:
        """Return requests with a higher number, oldest first, at most 1,000."""
        ...


class QueueRow(Value, frozen=True):
    """One recipient that has no final outcome yet, as `queue ls` lists it."""

    shard: int
    id: str
    account: str
    sender: str  # Sender.key
    address: str
    state: str  # queued, held, pending
    accepted_at_us: int
    next_attempt_at_us: int | None
    tries: int
    reply: str
    bytes: int
    in_hand: bool = False
    suspended: bool = False  # its account, sender or domain is


class ShardStatus(Value, frozen=True):
    """How full one shard is, in recipients but for `oldest_us`."""

    shard: int
    free_bytes: int
    queued: int
    pending: int
    held: int
    oldest_us: int | None  # when the oldest message that has not ended was accepted
    in_hand: int = 0
    steps_last: int = 0
    request_done: int = 0  # the last operator's request whose effect is committed
