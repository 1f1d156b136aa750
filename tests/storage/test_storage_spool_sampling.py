"""Facts above their bound: what stays is fair, and whoever reads knows what is missing."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import THOROUGH
from tests.spool.given import HOLD, START_US, accept, name, settle

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.runtime.settings import Spool
from postweir.spool import questions
from postweir.spool.ports import Read, Recorded, Refusal
from postweir.storage import spool_sampling
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_sampling import LATEST, NEVER, goes_at
from postweir.storage.sqlite import connect
from postweir.storage.sqlite_spool import SqliteStore

FACTS = b"f" * 100
ACCEPT = Verdict("accept", policy="pol_test")
REFUSE = Verdict("refuse", rule="r", policy="pol_test", code="CS", text="No.")


class Shard:
    """A store with its reader, in a folder."""

    def __init__(self, folder, bound):
        self.now_us, self.count = START_US, 0
        (folder / "bodies-1").mkdir(exist_ok=True)
        self.path = folder / "shard-1.db"
        self.store = SqliteStore(
            self.path, folder / "bodies-1", settings=Spool(facts_bytes_max=bound),
            now_us=lambda: self.now_us,
        )  # fmt: skip

    def come(self, *who_and_verdicts):
        """Take a message, or refuse it, for each (identity, verdict)."""
        changes = []
        for identity, verdict in who_and_verdicts:
            self.count += 1
            n = self.count
            if verdict.takes_mail:
                changes.append(accept(n, identity=identity, verdict=verdict, facts=FACTS))
            else:
                changes.append(Refusal(
                    name(n), self.now_us, "verdict", Sender("acme", "sasl", identity),
                    Envelope("joe@customer.example", ("ann@far.example",), ""), "",
                    Reply(550, "5.7.1", "No"), verdict, FACTS,
                ))  # fmt: skip
        self.store.commit(changes)

    def upkeep(self):
        pieces = 0
        while self.store.upkeep():
            pieces += 1
        return pieces

    def rows(self, sql):
        connection = connect(self.path, readonly=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def bytes(self):
        return self.rows("SELECT ifnull(sum(length(data)), 0) FROM facts")[0][0]

    def kept(self):
        """Return what is recorded, by sender."""
        return Counter(row.sender for row in self.recorded() if row.facts)

    def recorded(self, count_max=1000, account=""):
        reader = SqliteReader(self.path, shard=1)
        found, after = [], 0
        while after is not None:
            argument = f"since=0 account={account}" if account else "since=0"
            read = Read(1, "facts", argument, after, count_max)
            rows, after = questions.QUESTIONS["facts"](reader, read)
            found += rows
        reader.close()
        return found


@pytest.fixture
def shard(tmp_path, request):
    one = Shard(tmp_path, getattr(request, "param", 20_000))
    yield one
    one.store.close()


def test_nothing_goes_while_there_is_room(shard):
    """A bound is no reason to forget anything below it."""
    shard.come(*[("joe", ACCEPT)] * 150)
    shard.upkeep()

    assert shard.bytes() == 15_000


def test_a_loud_sender_is_thinned_and_a_quiet_one_is_not(shard):
    """What one sender sends in masses never costs another its record."""
    for n in range(10):
        shard.come((f"quiet{n}", ACCEPT))
    for _ in range(10):
        shard.come(*[("loud", ACCEPT)] * 100)
    shard.upkeep()

    kept = shard.kept()
    assert shard.bytes() <= 20_000
    assert [kept[f"acme|sasl|quiet{n}"] for n in range(10)] == [1] * 10
    assert kept["acme|sasl|loud"] >= LATEST


def test_what_was_objected_to_is_kept_first(shard):
    """A refusal says more about a policy than one accept more."""
    for _ in range(4):
        shard.come(*[("joe", ACCEPT)] * 190, *[("joe", REFUSE)] * 5, *[("joe", HOLD)] * 5)
    shard.upkeep()

    verbs = Counter(row.verdict.verb for row in shard.recorded() if row.facts)
    assert shard.bytes() <= 20_000
    assert (verbs["refuse"], verbs["hold"]) == (20, 20)
    assert verbs["accept"] < 190


def test_the_bound_counts_more_than_any_sender(shard):
    """With more senders than there is room for, the oldest go."""
    for n in range(300):
        shard.come((f"s{n}", REFUSE))
    shard.upkeep()

    kept = shard.kept()
    assert 15_000 < shard.bytes() <= 20_000
    assert kept["acme|sasl|s299"] == 1
    assert kept["acme|sasl|s0"] == 0


@settings(max_examples=80 if THOROUGH else 8, deadline=None)
@given(data=st.data())
def test_the_bound_holds_and_nobody_vanishes(tmp_path_factory, data):
    """However mail comes, what stays is within the bound, with somebody of each sender."""
    bound = 20_000
    shard = Shard(tmp_path_factory.mktemp("shard"), bound)
    senders = st.sampled_from([f"s{n}" for n in range(40)])
    mail = data.draw(st.lists(st.tuples(senders, st.sampled_from([ACCEPT, HOLD, REFUSE]),
                                        st.integers(1, 60)), min_size=1, max_size=30))  # fmt: skip
    came = Counter()
    for identity, verdict, count in mail:
        shard.come(*[(identity, verdict)] * count)
        came[f"acme|sasl|{identity}"] += count
        if data.draw(st.booleans()):
            shard.upkeep()
            assert shard.bytes() <= bound
    shard.upkeep()
    kept = shard.kept()
    stand_for = defaultdict(int)
    for row in shard.recorded():
        stand_for[row.sender] += row.unkept + bool(row.facts)
    shard.store.close()

    assert shard.bytes() <= bound
    assert kept.keys() == came.keys()
    assert stand_for == came  # all that came is accounted for, kept or not


@given(st.integers(1, 10_000), st.booleans(), st.integers(1, 2**53))
def test_the_ladder_is_one(rank, objects, number):
    """The latest go last, each later than those before it; what was objected to, after the rest."""
    step = goes_at(rank, objects, number)

    assert 1 <= step <= NEVER
    assert goes_at(rank + 1, objects, number) <= step
    assert goes_at(rank, True, number) >= goes_at(rank, False, number)
    assert (step == NEVER) == (rank == 1)


def test_thinning_is_even():
    """Each step leaves half of what the step below it left, wherever in time."""
    numbers = range(1, 64_001)
    for step in (1, 2, 3, 4):
        left = [n for n in numbers if goes_at(LATEST + 1, False, n) > step]
        early = sum(n <= 32_000 for n in left)

        assert len(left) == pytest.approx(64_000 / 2**step, rel=0.03)
        assert early == pytest.approx(len(left) / 2, rel=0.05)


def test_a_few_rows_at_a_time(shard, monkeypatch):
    """No accept waits for thousands of deletions."""
    monkeypatch.setattr(spool_sampling, "BATCH_ROWS", 20)
    shard.come(*[("joe", ACCEPT)] * 400)
    before, pieces = shard.rows("SELECT count(*) FROM facts")[0][0], 0
    while shard.store.upkeep():
        now = shard.rows("SELECT count(*) FROM facts")[0][0]
        assert before - now <= 20
        before, pieces = now, pieces + 1

    assert pieces > 30
    assert shard.bytes() <= 20_000


def test_what_is_measured_is_not_measured_again(shard):
    """A shard below its bound leaves its disk alone."""
    shard.come(*[("joe", ACCEPT)] * 100)
    shard.upkeep()
    asked = []
    shard.store._db.exec_trace = lambda _, sql, __: asked.append(sql) or True
    shard.come(*[("joe", ACCEPT)] * 10)
    shard.upkeep()

    assert not any("length(f.data), coalesce" in sql for sql in asked)


def test_facts_go_by_age_also_those_of_a_refusal(shard):
    """They outlive the body, and never `facts_hours`; the refusal itself stays."""
    shard.come(("joe", ACCEPT), ("joe", REFUSE))
    shard.store.commit([settle(1 << 10)])
    shard.upkeep()
    reader = SqliteReader(shard.path, shard=1)
    assert reader.message(name(1)).facts == FACTS
    assert reader.message(name(2)).facts == FACTS
    shard.now_us += 73 * 3600 * 1_000_000
    shard.upkeep()

    assert reader.message(name(1)).facts == b""
    assert reader.message(name(2)).facts == b""
    assert reader.message(name(2)).verdict == REFUSE
    assert b"f" * 20 not in shard.rows("SELECT data FROM refusal")[0][0]
    reader.close()


def test_what_was_not_kept_is_counted_to_the_next_that_was(shard):
    """So that shares are right: what stays stands for what went before it."""
    shard.come(("a", ACCEPT), ("a", ACCEPT), ("b", ACCEPT), ("a", REFUSE), ("a", ACCEPT))
    shard.store._db.execute("DELETE FROM facts WHERE id IN (1, 2, 3)")

    rows = [(r.number, r.sender[-1], r.unkept, bool(r.facts)) for r in shard.recorded()]
    assert rows == [(4, "a", 0, True), (5, "a", 2, True), (3, "b", 1, False)]
    by_page = [(r.number, r.unkept, bool(r.facts)) for r in shard.recorded(count_max=2)]
    assert by_page == [(2, 2, False), (4, 0, True), (3, 1, False), (5, 0, True)]
    assert shard.recorded(account="other") == []
    assert isinstance(shard.recorded(account="acme")[0], Recorded)
