"""What every store of a shard must do: the same suite in memory and on disk."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.spool.given import ACCEPT, HOLD, REFUSE, START_US, Clock, accept, name, settle

from postweir.policy.verdict import Verdict
from postweir.runtime.settings import Spool
from postweir.spool.ports import Done, Judged, Ledger, Quarantine, Refusal, Request, Sited
from postweir.spool.states import bucket_of, lane_of, message_of
from postweir.storage.memory import MemoryStore
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite_spool import SqliteStore

FAR = bucket_of("far.example")
LANE = lane_of("acme|sasl|joe")


class Subject:
    """A store, its clock, and its ledger by whatever reads it."""

    def __init__(self, kind: str, folder: Path, **wishes: object) -> None:
        self.clock, self.kind, self.folder = Clock(), kind, folder
        self.reader: SqliteReader | None = None
        wishes = {"settings": Spool(), **wishes}
        if kind == "memory":
            self.store: MemoryStore | SqliteStore = MemoryStore(now_us=self.clock, **wishes)
        else:
            self.store = SqliteStore(
                folder / "s.db", folder / "bodies", now_us=self.clock, **wishes
            )

    def commit(self, *changes: object) -> list[Done]:
        return list(self.store.commit(changes))

    def one(self, change: object) -> Done:
        return self.commit(change)[0]

    def taken(self, *more: object, **how: object) -> int:
        """Take one message; returns its first recipient."""
        done = self.one(accept(*more, **how))
        assert not done.reason
        return done.number << 10

    def ledger(self) -> list[Ledger]:
        if isinstance(self.store, MemoryStore):
            return list(self.store.ledger())
        if self.reader is None:
            self.reader = SqliteReader(self.folder / "s.db", shard=1)
        return list(self.reader.ledger())

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.store.close()

    def line(self, account: str = "acme") -> Ledger:
        return next(line for line in self.ledger() if line.account == account)

    def due(self, bucket: int = FAR, lane: int = LANE, out: frozenset[int] = frozenset()) -> list:
        return list(self.store.due(bucket, lane, self.clock.us, out, 100))


@pytest.fixture(params=["memory", "sqlite"])
def kind(request):
    return request.param


@pytest.fixture
def subject(kind, tmp_path):
    made = []

    def make(**wishes):
        made.append(Subject(kind, tmp_path, **wishes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def request(number: int, verb: str, scope: str, until_us: int | None = None) -> Request:
    return Request(number, verb, scope, "because", "operator", START_US, until_us)


def test_what_is_taken_is_due_at_once(subject):
    """An accepted message is counted and leaves as it came."""
    here = subject()
    recipient = here.taken()

    (out,) = here.due()
    content = here.store.content(name(1))
    assert (out.recipient, out.attempt, out.address) == (recipient, 1, "ann@far.example")
    assert content.body.endswith(b"Hello.\r\n")
    assert content.added == b"Received: by us\r\n"
    assert here.line() == Ledger("acme", accepted=1, queued=1)
    assert list(here.store.earliest()) == [(FAR, LANE, START_US)]


def test_what_is_out_is_not_due(subject):
    """A recipient in somebody's hands is passed over."""
    here = subject()
    recipient = here.taken()

    assert here.due(out=frozenset({recipient})) == []


def test_a_name_is_taken_once(subject):
    """A second message of the same name is turned away, and counts nowhere."""
    here = subject()
    here.taken()

    assert here.one(accept()).reason == "failed"
    assert [d.reason for d in here.commit(accept(2), accept(2))] == ["", "failed"]
    assert here.line().accepted == 2


@pytest.mark.parametrize("verdict", [REFUSE, Verdict("defer"), Verdict("throttle")])
def test_a_verdict_that_takes_no_mail_takes_none(subject, verdict):
    """What was refused cannot become ours by mistake."""
    here = subject()

    assert here.one(accept(verdict=verdict)).reason == "failed"
    assert here.ledger() == []


def test_a_body_of_another_length_is_not_taken(subject):
    """What says one length and has another is corrupt."""
    here = subject()

    assert here.one(accept(length=3)).reason == "corrupt"


@pytest.mark.parametrize(("outcome", "column"), [("delivered", "delivered"), ("failed", "bounced")])
def test_an_outcome_ends_a_recipient_once(subject, outcome, column):
    """An outcome is counted once, however often it is told, and the body goes."""
    here = subject()
    recipient = here.taken(mail_from="")

    first, again = here.commit(settle(recipient, outcome), settle(recipient, outcome))

    assert (first.ended, again) == ((recipient,), Done())
    assert here.one(settle(recipient, outcome)) == Done()
    assert here.one(settle(recipient, "delivered", attempt=2)) == Done()
    assert here.line() == Ledger("acme", accepted=1, **{column: 1})
    assert here.due() == []
    assert here.store.content(name(1)) is None
    assert here.store.queued() == 0


def test_a_deferred_recipient_is_due_later(subject):
    """It waits as long as was asked, and the next attempt has the next number."""
    here = subject()
    recipient = here.taken()
    done = here.one(settle(recipient, "deferred", retry_in_s=60.0))

    assert done.due == ((FAR, LANE, START_US + 60_000_000),)
    assert here.due() == []
    assert here.store.next_due(FAR, LANE, here.clock.us) == START_US + 60_000_000
    here.clock.move(60)
    (out,) = here.due()
    assert (out.attempt, out.tries, out.age_s) == (2, 1, 60.0)


def test_the_body_stays_until_the_last_recipient_ends(subject):
    """Three recipients: one ends, then another, then all."""
    here = subject()
    first = here.taken(1, "a@far.example", "b@far.example", "c@other.example")
    here.commit(settle(first), settle(first + 1, "deferred"))

    assert here.store.content(name(1)) is not None
    here.commit(settle(first + 1, attempt=2), settle(first + 2))
    assert here.store.content(name(1)) is None
    assert here.line() == Ledger("acme", accepted=3, delivered=3)


def test_a_bounce_is_in_the_same_commit(subject):
    """One commit ends two recipients and holds one bounce, on our own line, due at once."""
    here = subject(hostname="relay.example.net")
    first = here.taken(1, "a@far.example", "b@far.example", return_path="back@customer.example")
    answers = here.commit(settle(first, "failed"), settle(first + 1, "failed"))

    (at,) = [due for answer in answers for due in answer.due]
    bucket, lane, due_us = at
    (out,) = here.due(bucket, lane)
    content = here.store.content(out.message)
    assert due_us == START_US
    assert (out.address, content.mail_from, content.origin) == ("back@customer.example", "", "dsn")
    assert b"a@far.example" in content.body
    assert b"b@far.example" in content.body
    assert b"Subject: greetings" in content.body
    assert b"Hello." not in content.body
    assert here.line("-") == Ledger("-", accepted=1, queued=1)
    assert here.line() == Ledger("acme", accepted=2, bounced=2)


def test_a_bounce_of_ours_makes_no_bounce(subject):
    """Nor does a null sender."""
    here = subject()
    here.commit(settle(here.taken(1, mail_from=""), "failed"))
    answer = here.one(settle(here.taken(2), "failed"))
    ((bucket, lane, _),) = answer.due
    (out,) = here.due(bucket, lane)

    here.commit(settle(out.recipient, "failed"))

    assert here.line("-") == Ledger("-", accepted=1, bounced=1)
    assert here.store.queued() == 0


def test_bounces_are_capped_by_the_hour(subject):
    """Past the account's cap a failure is counted and nobody is told; an hour later they are."""
    here = subject()
    for n in range(1, 5):
        here.commit(settle(here.taken(n, bounces_1h_max=2), "failed"))

    assert here.line("-").accepted == 2
    here.clock.move(3600)
    here.commit(settle(here.taken(9, bounces_1h_max=2), "failed"))
    assert here.line("-").accepted == 3
    assert here.line().bounced == 5


@pytest.mark.parametrize(("verdict", "column"), [(None, "pending"), (HOLD, "held")])
def test_pending_and_held_mail_is_not_due(subject, verdict, column):
    """It is counted by its message's state, and stays where it is."""
    here = subject()
    done = here.one(accept(1, "a@far.example", "b@far.example", verdict=verdict))

    assert done.ready == ()
    assert here.due() == []
    assert list(here.store.earliest()) == []
    assert here.line() == Ledger("acme", accepted=2, **{column: 2})


def test_pending_mail_is_read_oldest_first(subject):
    """What is not judged yet can be gone through, from a row on."""
    here = subject()
    here.commit(accept(1, verdict=None), accept(2), accept(3, verdict=None))

    found = here.store.pending(0, 10)
    assert [a.message for a in found] == [name(1), name(3)]
    assert found[0].envelope == accept(1).envelope
    assert found[0].sender.key == "acme|sasl|joe"
    assert [a.message for a in here.store.pending(found[0].ask, 10)] == [name(3)]
    assert len(here.store.pending(0, 1)) == 1


@pytest.mark.parametrize(
    ("verdict", "late_refusal", "expected"),
    [
        (ACCEPT, "hold", Ledger("acme", accepted=1, queued=1)),
        (Verdict("tag"), "hold", Ledger("acme", accepted=1, queued=1)),
        (HOLD, "hold", Ledger("acme", accepted=1, held=1)),
        (REFUSE, "hold", Ledger("acme", accepted=1, held=1)),
        (REFUSE, "bounce", Ledger("acme", accepted=1, refused=1)),
        (Verdict("defer"), "hold", Ledger("acme", accepted=1, pending=1)),
        (Verdict("throttle"), "hold", Ledger("acme", accepted=1, pending=1)),
    ],
)
def test_a_late_verdict(subject, verdict, late_refusal, expected):
    """Accept is due now; hold and refuse are held, or refused where the setting bounces them."""
    here = subject(settings=Spool(late_refusal=late_refusal))
    here.commit(accept(verdict=None))
    done = here.one(Judged(name(1), verdict, b"facts"))

    assert here.line() == expected
    assert len(here.due()) == expected.queued
    assert bool(done.due) == bool(expected.queued or expected.refused)
    assert sum(line.accepted for line in here.ledger()) == 1 + expected.refused  # the bounce
    assert here.one(Judged(name(1), ACCEPT, b"")) == Done() or expected.pending


def test_a_held_message_is_released(subject):
    """And its request is done once, also when it is told again."""
    here = subject()
    here.commit(accept(verdict=HOLD))

    done = here.one(request(1, "release", name(1)))
    again = here.one(request(1, "drop", name(1)))

    assert [due[:2] for due in done.due] == [(FAR, LANE)]
    assert again == Done()
    assert here.store.request_done() == 1
    assert here.line() == Ledger("acme", accepted=1, queued=1)
    assert len(here.due()) == 1


def test_pending_mail_is_not_released_but_judged(subject):
    """Release is for what is held: unfiltered mail does not leave by it."""
    here = subject()
    here.commit(accept(verdict=None), request(1, "release", name(1)))

    assert here.line().pending == 1


@pytest.mark.parametrize("verdict", [ACCEPT, HOLD, None])
def test_dropped_mail_ends_without_a_word(subject, verdict):
    """Whatever state it was in; what comes later finds its end."""
    here = subject()
    recipient = here.taken(verdict=verdict)
    done = here.one(request(1, "drop", "account=acme"))

    assert done.ended == (recipient,)
    assert here.line() == Ledger("acme", accepted=1, dropped=1)
    assert here.one(settle(recipient)).ended == ()
    assert here.one(Judged(name(1), ACCEPT, b"")) == Done()
    assert here.line() == Ledger("acme", accepted=1, dropped=1)
    assert len(here.ledger()) == 1  # no bounce


def test_a_scope_hits_only_its_own(subject):
    """A domain, a sender and an account that is not there."""
    here = subject()
    here.commit(accept(1, "a@far.example", "b@other.example"), accept(2, identity="eve"))

    here.commit(request(1, "drop", "domain=other.example"))
    here.commit(request(2, "drop", "sender=acme|sasl|eve"))
    here.commit(request(3, "drop", "account=nobody"))

    assert here.line() == Ledger("acme", accepted=3, dropped=2, queued=1)
    assert here.store.request_done() == 3


def test_retry_makes_it_due_now(subject):
    """What was deferred for an hour goes at once."""
    here = subject()
    here.commit(settle(here.taken(), "deferred", retry_in_s=3600.0))
    here.clock.move(1)
    done = here.one(request(1, "retry", name(1)))

    assert done.due == ((FAR, LANE, here.clock.us),)
    assert len(here.due()) == 1


@pytest.mark.parametrize("scope", ["account=acme", "sender=acme|sasl|joe", "domain=far.example"])
def test_suspended_mail_waits(subject, scope):
    """What was there and what comes is kept, not handed out, until it is resumed."""
    here = subject()
    here.taken(1)
    here.commit(request(1, "suspend", scope))
    done = here.one(accept(2))

    assert done.ready == ()
    assert here.due() == []
    assert here.line() == Ledger("acme", accepted=2, queued=2)
    here.commit(request(2, "resume", scope))
    while here.store.upkeep():
        pass
    assert len(here.due()) == 2


def test_a_suspension_ends_by_itself(subject):
    """At its time."""
    here = subject()
    here.commit(request(1, "suspend", "account=acme", START_US + 10_000_000))
    here.commit(accept(1))

    assert here.due() == []
    here.clock.move(11)
    while here.store.upkeep():
        pass
    assert len(here.due()) == 1


def test_a_hold_expires_to_refused(subject):
    """Nobody decided within hold_days."""
    here = subject(settings=Spool(hold_days=1))
    here.commit(accept(verdict=HOLD))
    here.clock.move(86400 + 1)
    here.store.upkeep()

    assert here.line() == Ledger("acme", accepted=1, refused=1)


def test_a_verdict_says_when_its_hold_expires(subject):
    """Before and after the setting's own days; the message beside it keeps to these."""
    here = subject(settings=Spool(hold_days=1))
    here.commit(accept(1, verdict=Verdict("hold", hold_s=60)), accept(2, verdict=HOLD))
    here.commit(accept(3, verdict=None), Judged(name(3), Verdict("hold", hold_s=172_800), b""))
    held = []
    for seconds in (60, 1, 86_400, 86_400):
        here.clock.move(seconds)
        while here.store.upkeep():
            pass
        held.append((here.line().held, here.line().refused))

    assert held == [(3, 0), (2, 1), (1, 2), (0, 3)]
    assert len(here.ledger()) == 1  # nobody is written to


def test_a_hold_that_was_released_expires_no_more(subject):
    """Not even when the message is held again, for another reason."""
    here = subject(settings=Spool(hold_days=1))
    here.commit(accept(verdict=Verdict("hold", hold_s=60)), request(1, "release", name(1)))
    here.commit(Quarantine(name(1), "check"))
    here.clock.move(100)
    while here.store.upkeep():
        pass

    assert here.line() == Ledger("acme", accepted=1, held=1)


CHOSEN = {"header": "X-Class: bulk", "pool": "bulk", "lifetime_s": 3600}


@pytest.mark.parametrize("verb", ["tag", "route", "accept"])
def test_a_verdict_chooses_the_way_out(subject, verb):
    """The pool and the lifetime, at once and late; the header is the edge's at once, ours late."""
    here = subject()
    verdict = Verdict(verb, **CHOSEN)
    here.commit(accept(1, verdict=verdict), accept(2, verdict=None))
    here.commit(Judged(name(2), verdict, b""), Judged(name(2), verdict, b""))
    contents = [here.store.content(name(n)) for n in (1, 2)]

    assert [c.pool for c in contents] == ["bulk", "bulk"]
    assert [out.lifetime_s for out in here.due()] == [3600, 3600]
    assert [c.added for c in contents] == [
        b"Received: by us\r\n", b"Received: by us\r\nX-Class: bulk\r\n",
    ]  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
def test_a_held_message_is_tried_as_long_as_its_verdict_says(subject, late):
    """The lifetime and the pool stay with it until it is released."""
    here = subject()
    verdict = Verdict("hold", lifetime_s=3600, pool="slow")
    here.commit(accept(verdict=None if late else verdict))
    if late:
        here.commit(Judged(name(1), verdict, b""))
    here.commit(request(1, "release", name(1)))

    (out,) = here.due()
    assert out.lifetime_s == 3600
    assert here.store.content(name(1)).pool == "slow"


@pytest.mark.parametrize(("wanted", "had"), [(0, 172_800), (-5, 172_800), (1, 60),
                                             (10**15, 30 * 86_400)])  # fmt: skip
def test_a_lifetime_has_the_bounds_of_an_accounts(subject, wanted, had):
    """Whatever a worker says."""
    here = subject()
    here.commit(accept(1, verdict=Verdict("accept", lifetime_s=wanted)), accept(2, verdict=None))
    here.commit(Judged(name(2), Verdict("accept", lifetime_s=wanted), b""))

    assert [out.lifetime_s for out in here.due()] == [had, had]


@pytest.mark.parametrize("header", ["X-A: b\r\nBcc: c", "no field", "X-A:", "X-\u00c4: b", "X A: b",
                                    "X-A: " + "b" * 998, "X-A: b\r\n\r\nHi"])  # fmt: skip
def test_a_late_header_that_is_no_field_is_left_out(subject, header):
    """The message leaves without it."""
    here = subject()
    here.commit(accept(verdict=None), Judged(name(1), Verdict("tag", header=header), b""))

    assert here.store.content(name(1)).added == b"Received: by us\r\n"
    assert len(here.due()) == 1


def test_a_bounce_shows_the_header_as_it_left(subject):
    """With what a late verdict put before it; the bounce itself has no pool."""
    here = subject()
    first = here.taken(verdict=None)
    here.commit(Judged(name(1), Verdict("tag", **CHOSEN), b""))
    ((bucket, lane, _),) = here.one(settle(first, "failed")).due
    content = here.store.content(here.due(bucket, lane)[0].message)

    assert b"X-Class: bulk" in content.body
    assert content.pool == ""


def test_a_site_moves_a_recipient(subject):
    """It is due in the bucket of its site, with the attempt it had."""
    here = subject()
    recipient = here.taken()
    site = next(s for s in ("mx1.big.example", "mx2.big.example") if bucket_of(s) != FAR)
    done = here.one(Sited(recipient, 1, site))

    assert done.due == ((bucket_of(site), LANE, START_US),)
    assert here.due() == []
    (out,) = here.due(bucket_of(site))
    assert out.attempt == 1


def test_quarantined_mail_is_held(subject):
    """And what was in hand at that moment may still end."""
    here = subject()
    first = here.taken(1, "a@far.example", "b@far.example")
    done = here.one(Quarantine(name(1), "check"))

    assert done.noted == ("corrupt",)
    assert here.due() == []
    assert here.line() == Ledger("acme", accepted=2, held=2)
    here.commit(settle(first))
    assert here.line() == Ledger("acme", accepted=2, delivered=1, held=1)


def test_a_refusal_is_nobodys_mail(subject):
    """It is recorded and changes no count."""
    here = subject()
    a = accept()
    here.commit(Refusal(name(9), START_US, "data", a.sender, a.envelope, "", settle(1).reply,
                        REFUSE, b""))  # fmt: skip

    assert here.ledger() == []


def test_one_sender_does_not_hide_another(subject):
    """A backlog is read by lane, so the second lane's mail is found at once."""
    here = subject()
    here.commit(*(accept(n) for n in range(1, 200)), accept(300, identity="eve"))

    (out,) = here.due(lane=lane_of("acme|sasl|eve"))
    assert out.sender == "acme|sasl|eve"


SHORT_HOLD = Verdict("hold", hold_s=300, lifetime_s=3600)


class Life(RuleBasedStateMachine):
    """Whatever is done to a store in whatever order, its ledger closes."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.tmp = __import__("tempfile").TemporaryDirectory()
        self.subject = Subject(
            self.kind, Path(self.tmp.name), settings=Spool(late_refusal="bounce", hold_days=1)
        )
        self.model = Subject("memory", Path(self.tmp.name),
                             settings=Spool(late_refusal="bounce", hold_days=1))  # fmt: skip
        self.model.clock = self.subject.clock
        self.model.store._now_us = self.subject.clock
        self.messages = self.requests = 0
        self.recipients: list[int] = []
        self.attempts: dict[int, int] = {}

    def both(self, *changes: object) -> list[Done]:
        mine = self.subject.commit(*changes)
        theirs = self.model.commit(*changes)
        for a, b in zip(mine, theirs, strict=True):
            assert (a.reason, a.number, a.ready) == (b.reason, b.number, b.ready)
            assert sorted(a.ended) == sorted(b.ended)
        return mine

    @rule(
        verdict=st.sampled_from([ACCEPT, Verdict("tag", **CHOSEN), HOLD, SHORT_HOLD, None]),
        count=st.integers(1, 3),
        mail_from=st.sampled_from(["", "joe@customer.example"]),
        account=st.sampled_from(["acme", "beta"]),
        cap=st.sampled_from([0, 2, 1000]),
    )
    def take(self, verdict, count, mail_from, account, cap):
        self.messages += 1
        to = [f"u{n}@d{n}.example" for n in range(count)]
        (done,) = self.both(
            accept(self.messages, *to, verdict=verdict, mail_from=mail_from, account=account,
                   bounces_1h_max=cap)
        )  # fmt: skip
        self.recipients += [(done.number << 10) + n for n in range(count)]

    @precondition(lambda self: self.recipients)
    @rule(data=st.data(), outcome=st.sampled_from(["delivered", "deferred", "failed"]))
    def settle(self, data, outcome):
        recipient = data.draw(st.sampled_from(self.recipients))
        attempt = self.attempts.get(recipient, 0) + data.draw(st.integers(0, 2))
        (done,) = self.both(settle(recipient, outcome, attempt))
        if done.due or done.ended:
            self.attempts[recipient] = attempt

    @precondition(lambda self: self.messages)
    @rule(
        data=st.data(),
        verdict=st.sampled_from([ACCEPT, HOLD, SHORT_HOLD, REFUSE, Verdict("defer"),
                                 Verdict("tag", **CHOSEN)]),
    )  # fmt: skip
    def judge(self, data, verdict):
        self.both(Judged(name(data.draw(st.integers(1, self.messages))), verdict, b""))

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def spoil(self, data):
        self.both(Quarantine(name(data.draw(st.integers(1, self.messages))), "check"))

    @rule(
        data=st.data(),
        verb=st.sampled_from(["release", "retry", "drop", "suspend", "resume"]),
        wide=st.sampled_from(["account=beta", "domain=d1.example", "sender=acme|sasl|joe", ""]),
    )
    def wish(self, data, verb, wide):
        self.requests += 1
        scope = wide or name(data.draw(st.integers(1, max(1, self.messages))))
        self.both(request(self.requests, verb, scope))
        if verb == "resume":  # what was suspended may come back a little later
            self.wait(0)

    @rule(seconds=st.sampled_from([1, 400, 90_000]))
    def wait(self, seconds):
        self.subject.clock.move(seconds)
        for store in (self.subject.store, self.model.store):
            while store.upkeep():
                pass

    @invariant()
    def the_ledger_closes(self):
        lines = self.subject.ledger()
        assert [line.residual for line in lines] == [0] * len(lines)
        assert lines == self.model.ledger()
        still = sum(line.queued + line.pending + line.held for line in lines)
        assert self.subject.store.queued() == still

    @invariant()
    def the_same_is_due(self):
        assert self._due(self.subject) == self._due(self.model)

    def _due(self, one: Subject) -> set[tuple[object, ...]]:
        return {
            (out.recipient, out.lifetime_s, *self._leaving(one, out.message))
            for bucket, lane, _ in one.store.earliest()
            for out in one.due(bucket, lane)
        }

    def _leaving(self, one: Subject, message: str) -> tuple[str, bytes]:
        if message not in {name(n) for n in range(1, self.messages + 1)}:
            return "", b""  # a bounce: each store names its own
        content = one.store.content(message)
        return content.pool, content.added

    def teardown(self) -> None:
        self.subject.close()
        self.tmp.cleanup()


class SqliteLife(Life):
    kind = "sqlite"


TestMemoryLife = Life.TestCase
TestMemoryLife.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSqliteLife = SqliteLife.TestCase
TestSqliteLife.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_rows_are_numbered_in_commit_order(subject):
    """A recipient's row says which message it belongs to, and later ones are higher."""
    here = subject()
    rows = [here.taken(n) for n in range(1, 4)]

    assert rows == sorted(rows)
    assert [message_of(r) for r in rows] == [1, 2, 3]
