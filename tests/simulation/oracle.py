"""What must be true, judged by what clients were told, hosts were given and the disks hold."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.disk import Disk
from tests.simulation.loop import World

from postweir.mail.address import domain_of
from postweir.spool.ports import Accept, Change, Out, Request, Settle
from postweir.spool.states import MessageState, RecipientState, message_of
from postweir.storage.memory import MemoryStore, Message

LEDGER_EVERY = 6  # commits: any moment will do, and it is dear


@dataclass(eq=False)
class Letter:
    """What a client wants delivered, however often it must offer it."""

    number: int
    recipients: tuple[str, ...]
    mail_from: str
    account: str
    identity: str
    verdict: str  # accept, hold, pending
    late: str  # what the judge says when asked later: accept, hold, refuse
    lifetime_s: int
    fair_s: float = 0.0  # it has to be with its host so soon after its 250; 0: no hurry
    tries: int = 0
    acked: str = ""  # the name that was answered 250
    offers: dict[str, str] = field(default_factory=dict)  # name: open, safe, refused, unknown, cut


@dataclass(eq=False)
class Told:
    """What one shard process has heard of operators' wishes, by the word of its writer."""

    incarnation: int
    before: list[Request]  # stood in the table when it started
    seen: set[int] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)


class Oracle:
    """Knows what was promised."""

    def __init__(self, world: World, disks: list[Disk]) -> None:
        self.world, self.disks = world, disks
        self.letters: list[Letter] = []
        self.by_name: dict[str, Letter] = {}
        self.doubles: Counter[tuple[str, str]] = Counter()  # how often one more is forgiven
        self.taken: Counter[tuple[str, str]] = Counter()
        self.told: dict[int, Told] = {}
        self.table: list[Request] = []
        self.marks: dict[tuple[int, int, int], int] = {}  # (shard, recipient, attempt): incarnation
        self.acked_s: dict[str, float] = {}
        self.on_deferred: Callable[[], None] = lambda: None
        self.stepped = False
        self.commits = 0

    # What happens

    def answered(self, letter: Letter, name: str, what: str) -> None:
        """The client has its reply, or knows that it will have none."""
        letter.offers[name] = what
        self.world.note("client", f"letter {letter.number} {name}: {what}")
        if what == "safe":
            letter.acked = name
            self.acked_s[name] = self.world.now_s
            found = [self.row(disk, name) for disk in self.disks]
            if not any(found):
                self.world.fault(f"{name} was answered 250 and is nowhere")

    def delivered(self, message: str, address: str) -> None:
        """A host has it."""
        self.world.note("host", f"has {message} for {address}")
        key = (message, address)
        self.taken[key] += 1
        if self.taken[key] > 1 + self.doubles[key]:
            self.world.fault(f"{message} was delivered {self.taken[key]} times to {address}")
        for disk in self.disks:
            row = self.row(disk, message)
            if row is not None and row.state in (MessageState.PENDING, MessageState.HELD):
                self.world.fault(f"{message} was delivered while {row.state.name}")
        letter = self.by_name.get(message)
        if letter is not None and letter.fair_s and self.taken[key] == 1:
            waited_s = self.world.now_s - self.acked_s.get(message, self.world.now_s)
            if waited_s > letter.fair_s:
                self.world.fault(f"{message} waits {waited_s:.1f} s behind another's flood")
        if letter is not None and letter.offers.get(message) == "refused":
            self.world.fault(f"{message} was surely not taken, and is delivered")

    def doubtful(self, message: str, address: str) -> None:
        """It may be sent once more, and nobody is to blame."""
        self.doubles[message, address] += 1

    def handed_out(self, shard: int, out: Out) -> None:
        """It leaves a shard."""
        told, disk = self.told[shard], self.disks[shard - 1]
        row = self.row(disk, out.message)
        assert row is not None
        if row.state in (MessageState.PENDING, MessageState.HELD):
            self.world.fault(f"{out.message} leaves while {row.state.name}")
        if self._matches(told.paused, row, out) or out.message in told.dropped:
            self.world.fault(f"{out.message} to {out.address} leaves, suspended or dropped")
        for request in told.before:
            if request.number not in told.seen and self._matches({request.scope}, row, out):
                self.world.fault(f"{out.message} leaves before request {request.number} is read")
        mark = self.marks.pop((shard, out.recipient, out.attempt), None)
        if mark == told.incarnation and not out.possible_duplicate:
            self.world.fault(f"{out.message} to {out.address} is doubled without a mark")

    def worker_died(
        self, in_hand: list[tuple[int, int, int, str, str]], bound: int, known: set[tuple[int, int]]
    ) -> None:
        """What it had, (shard, recipient, attempt, message, address), may be sent once more.

        The shards that live and know, (shard, recipient), that it had it must mark it.
        """
        if len(in_hand) > bound:
            self.world.fault(f"a worker had {len(in_hand)} in hand, more than {bound}")
        for shard, recipient, attempt, message, address in in_hand:
            self.doubles[message, address] += 1
            if (shard, recipient) in known:
                self.marks[shard, recipient, attempt] = self.told[shard].incarnation

    def shard_started(self, shard: int, incarnation: int) -> None:
        before = [r for r in self.table if r.verb in ("suspend", "drop")]
        self.told[shard] = Told(incarnation, before)
        store = self.disks[shard - 1].store
        self.told[shard].seen = {r.number for r in before if r.number <= store.request_done()}
        self.told[shard].paused = set(store._pauses)

    def heard(self, shard: int, request: Request) -> None:
        """The shard's loop knows that this is committed."""
        told = self.told[shard]
        told.seen.add(request.number)
        if request.verb == "suspend":
            told.paused.add(request.scope)
        elif request.verb == "resume":
            told.paused.discard(request.scope)
            told.before = [r for r in told.before if r.scope != request.scope]
        elif request.verb == "drop":
            told.dropped.add(request.scope)

    def committed(self, disk: Disk, changes: Sequence[Change]) -> None:
        """Any moment will do for the ledger; a commit is where it changes."""
        for change in changes:
            if isinstance(change, Accept):
                disk.accepted_s.setdefault(change.message, self.world.now_s)
            elif isinstance(change, Settle) and change.reply.status == "4.4.7":
                self._expired(disk, change)
            if isinstance(change, Settle) and change.outcome == "deferred":
                self.on_deferred()
        self.commits += 1
        if self.commits % LEDGER_EVERY == 0:
            self._ledger(disk)

    def _expired(self, disk: Disk, settle: Settle) -> None:
        row = disk.store._messages[message_of(settle.recipient)]
        age_s = self.world.now_s - disk.accepted_s[row.accept.message]
        if age_s < row.accept.lifetime_s - 0.5:
            self.world.fault(f"{row.accept.message} expires after {age_s:.1f} s: the clock was set")

    def _ledger(self, disk: Disk) -> None:
        told = self.told.get(disk.number)
        if told is not None and told.paused:
            told.paused &= set(disk.store._pauses)  # resumed: it may go from this moment on
        for line in disk.store.ledger():
            if line.residual:
                self.world.fault(f"the ledger of {line.account} has a residual of {line.residual}")

    # What is found at the end

    def at_the_end(self) -> None:
        """Judge every letter, every row and every bounce."""
        bounces = self._bounces()
        for letter in self.letters:
            for name, what in letter.offers.items():
                rows = [(d, r) for d in self.disks if (r := self.row(d, name)) is not None]
                if len(rows) > 1:
                    self.world.fault(f"{name} is in two shards")
                elif what == "safe" and not rows:
                    self.world.fault(f"{name} was answered 250 and is nowhere")
                elif what == "refused" and rows:
                    self.world.fault(f"{name} was surely not taken, and is there")
                for disk, row in rows:
                    self._ended(letter, disk, row, bounces)
        for disk in self.disks:
            self._ledger(disk)

    def _ended(
        self, letter: Letter, disk: Disk, row: Message, bounces: Counter[tuple[str, str]]
    ) -> None:
        name = row.accept.message
        for recipient in row.recipients.values():
            state, address = recipient.state, recipient.address
            key = (name, address)
            told = bounces[key]
            wanted = state in (RecipientState.BOUNCED, RecipientState.REFUSED)
            if state is RecipientState.DELIVERED and not self.taken[key]:
                self.world.fault(f"{name} to {address} is called delivered and no host has it")
            if told != (wanted and bool(letter.mail_from)):
                self.world.fault(f"{name} to {address} is {state.name}, and bounced {told} times")
            short = letter.lifetime_s < 100  # its time may be over before its host is back
            if state is RecipientState.BOUNCED and not (short or address.startswith("bad")):
                self.world.fault(f"{name} to {address} bounced, and no host refused it")
            if state is RecipientState.REFUSED and (letter.verdict, letter.late) != (
                "pending", "refuse"
            ):  # fmt: skip
                self.world.fault(f"{name} is refused, and nobody said so")
            if state is RecipientState.DROPPED and not any(
                r.verb == "drop" and r.scope == name for r in self.table
            ):
                self.world.fault(f"{name} is dropped, and nobody wished it")
            if state is RecipientState.QUEUED:
                self._still_here(letter, row, recipient)

    def _still_here(self, letter: Letter, row: Message, recipient: Any) -> None:
        if row.state is MessageState.HELD:
            if letter.verdict != "hold" and letter.late == "accept":
                self.world.fault(f"{row.accept.message} is held, and nobody said so")
        elif row.state is MessageState.PENDING:
            self.world.fault(f"{row.accept.message} is still pending")
        elif not self.excused(recipient):
            self.world.fault(f"{row.accept.message} to {recipient.address} never leaves")

    def excused(self, recipient: Any) -> bool:
        """After a step back it is due late; after any step no lifetime ends for an hour."""
        later = recipient.due_us > self.world.wall_us()
        return self.stepped and (later or recipient.address.startswith("never"))

    def _bounces(self) -> Counter[tuple[str, str]]:
        """How often each recipient of each message was told to have failed."""
        told: Counter[tuple[str, str]] = Counter()
        for disk in self.disks:
            for row in disk.store._messages.values():
                if row.accept.origin != "dsn":
                    continue
                # Its body may be gone, for it was delivered: the accept still has it.
                text = (row.accept.body or b"").decode()
                name = text.split("X-Postweir-Id: ", 1)[1].split("\r\n", 1)[0]
                for part in text.split("Final-Recipient: rfc822; ")[1:]:
                    told[name, part.split("\r\n", 1)[0]] += 1
        return told

    def _matches(self, scopes: set[str], row: Message, out: Out) -> bool:
        if not scopes:
            return False
        account = row.accept.sender.account
        return bool(
            scopes
            & {out.message, f"account={account}", f"sender={out.sender}",
               f"domain={domain_of(out.address)}"}
        )  # fmt: skip

    def row(self, disk: Disk, name: str) -> Message | None:
        store: MemoryStore = disk.store
        number = store._numbers.get(name)
        return store._messages[number] if number is not None else None
