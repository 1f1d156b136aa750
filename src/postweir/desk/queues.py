"""What waits to leave: listed, summed up, suspended, resumed, tried now, dropped."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from postweir.desk import accounts, messages, names, reading, requests
from postweir.desk.ports import Misused, Office
from postweir.outcomes.journal import utc
from postweir.runtime.frames import Struct
from postweir.spool.ports import QueueRow

STATES = ("queued", "held", "pending")
COUNT_MAX = 1_000_000  # rows read to sum up or to count; more takes longer than anyone waits
VERBS = ("suspend", "resume", "retry", "drop")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients; "" is any."""

    account: str = ""
    sender: str = ""
    domain: str = ""
    state: str = ""

    def checked(self) -> "Filter":
        """Return the filter with names as the spool writes them. Raises Misused."""
        if self.state and self.state not in STATES:
            raise Misused(f"{self.state!r} is no state of mail that waits"
                          f"{names.meant(self.state, STATES)}")  # fmt: skip
        return Filter(
            account=names.account_name(self.account)
            if self.account not in ("", "-")
            else self.account,
            sender=names.sender_key(self.sender) if self.sender else "",
            domain=names.domain(self.domain) if self.domain else "",
            state=self.state,
        )

    @property
    def scope(self) -> str:
        """What a shard sieves by itself: words `key=value`, so nothing with a space in it."""
        words = [(key, getattr(self, key)) for key in ("account", "sender", "domain", "state")]
        return " ".join(f"{key}={value}" for key, value in words if value and " " not in value)

    def fits(self, row: QueueRow) -> bool:
        """True when the row is meant."""
        return (
            self.account in ("", row.account)
            and self.sender in ("", row.sender)
            and self.domain in ("", row.address.rpartition("@")[2])
            and self.state in ("", row.state)
        )


class Waiting(Struct, frozen=True):
    """One recipient that waits, as `queue ls` gives it."""

    id: str
    account: str
    sender: str
    address: str
    state: str
    accepted_at: str | None
    next_attempt_at: str | None
    tries: int
    reply: str
    bytes: int
    in_hand: bool
    shard: int
    suspended: bool = False  # its account, sender or domain is: nothing of it is tried


class Summed(Struct, frozen=True):
    """What waits for one domain, as `queue show` gives it."""

    domain: str
    queued: int = 0
    held: int = 0
    pending: int = 0
    oldest_at: str | None = None
    next_attempt_at: str | None = None


class Asked(Struct, frozen=True):
    """What a verb does, or would do, to what waits."""

    verb: str
    scope: str
    recipients: int | None  # None: nobody counted
    dry_run: bool = False
    number: int = 0
    waiting: list[int] = []


async def ls(office: Office, wanted: Filter, count_max: int) -> list[Waiting]:
    """Return what waits, at most so many. Raises Misused, Unreadable."""
    found: list[Waiting] = []
    async for row in _rows(office, wanted.checked()):
        if len(found) >= count_max:
            break
        found.append(_waiting(row))
    return found


async def show(office: Office, wanted: Filter) -> list[Summed]:
    """Return sums by domain, the largest first. Raises Misused, Unreadable."""
    counts: dict[str, dict[str, int]] = {}
    oldest: dict[str, int] = {}
    soonest: dict[str, int] = {}
    async for row in _rows(office, wanted.checked()):
        domain = row.address.rpartition("@")[2]
        of = counts.setdefault(domain, dict.fromkeys(STATES, 0))
        of[row.state] = of.get(row.state, 0) + 1
        oldest[domain] = min(oldest.get(domain, row.accepted_at_us), row.accepted_at_us)
        due_us = row.next_attempt_at_us
        if row.state == "queued" and due_us is not None:
            soonest[domain] = min(soonest.get(domain, due_us), due_us)
    summed = [
        Summed(
            domain,
            queued=of["queued"],
            held=of["held"],
            pending=of["pending"],
            oldest_at=utc(oldest[domain]),
            next_attempt_at=utc(soonest.get(domain)),
        )
        for domain, of in counts.items()
    ]
    return sorted(summed, key=lambda s: (-(s.queued + s.held + s.pending), s.domain))


async def ask(
    office: Office, verb: str, wanted: Filter, *, reason: str, dry_run: bool = False,
    until_us: int | None = None,
) -> Asked:  # fmt: skip
    """Suspend, resume, retry or drop all in one scope. Raises Missing, Misused, Unreadable."""
    assert verb in VERBS
    scope = requests.scope_of(account=wanted.account, sender=wanted.sender, domain=wanted.domain)
    _known(office, wanted)
    if dry_run:
        count = sum([1 async for _ in _rows(office, wanted.checked())])
        return Asked(verb, scope, count, dry_run=True)
    if verb == "drop":
        messages.why(reason)
    done = await requests.put(office, verb, scope, reason, until_us=until_us)
    return Asked(verb, scope, None, number=done.number, waiting=done.waiting)


def _known(office: Office, wanted: Filter) -> None:
    """Raise Missing for an account nobody has: a slip of the pen must not look like success."""
    name = wanted.account or wanted.sender.partition("|")[0]
    if name:
        accounts.find(accounts.known(office.tables), name)


async def _rows(office: Office, wanted: Filter) -> AsyncIterator[QueueRow]:
    seen = 0
    for shard in office.shards.numbers:
        async for row in reading.rows(office, shard, "queue", wanted.scope, QueueRow):
            seen += 1
            if seen > COUNT_MAX:
                raise Misused(f"more than {COUNT_MAX} recipients wait: narrow it down")
            if wanted.fits(row):
                yield row


def _waiting(row: QueueRow) -> Waiting:
    return Waiting(
        id=row.id, account=row.account, sender=row.sender, address=row.address, state=row.state,
        accepted_at=utc(row.accepted_at_us),
        next_attempt_at=utc(row.next_attempt_at_us) if row.state == "queued" else None,
        tries=row.tries, reply=row.reply, bytes=row.bytes, in_hand=row.in_hand, shard=row.shard,
        suspended=row.suspended,
    )  # fmt: skip
