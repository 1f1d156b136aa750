"""Levels are what was sent and what came of it, each message once, and can be taken off again."""

import sys
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from postweir.judge.counters import LOOKED_AT_MAX, WATCHED_S, Counters, Entry
from postweir.judge.history import Usual
from postweir.judge.keys import Level
from postweir.judge.met import Hashes, Met
from postweir.judge.windows import DAY_S, HOUR_S, MINUTE_S

T = 20_000 * DAY_S + 12 * HOUR_S  # noon
JOE = "a|sasl|joe"


def counting(**bounds) -> Counters:
    return Counters(Hashes(b"s" * 16), Met(words=4096), **bounds)


def entry(at_s: float = T, sender: str = JOE, recipients: int = 1, size: int = 0, to=()) -> Entry:
    return Entry(at_s, sender.split("|", maxsplit=1)[0], sender, recipients, size, to)


def to(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}@example.org" for name in names)


def test_messages_and_recipients_count_for_sender_and_account():
    """Two senders of an account share its level, not each other's."""
    counters = counting()
    counters.count("m1", entry(recipients=3, size=100), T)
    counters.count("m2", entry(sender="a|sasl|kim", size=10), T)

    assert counters.sender(JOE, T)[:8] == (1, 1, 3, 3, 1, 3, 100, 100)
    assert counters.sender("a|sasl|kim", T)[:8] == (1, 1, 1, 1, 1, 1, 10, 10)
    assert counters.account("a", T)[:8] == (2, 2, 4, 4, 2, 4, 110, 110)
    assert counters.sender("b|sasl|joe", T) == Level()


def test_once_for_an_id():
    """A repeated question changes no level; what was taken off may come again."""
    counters = counting()

    assert counters.count("m1", entry(size=7, to=to("x")), T)
    assert not counters.count("m1", entry(), T + 1)
    assert counters.uncount("m1")
    assert not counters.uncount("m1")
    assert counters.sender(JOE, T + 2) == Level()
    assert counters.count("m1", entry(), T + 3)


def test_windows_slide():
    """After a minute, an hour, a day a message counts no more."""
    counters = counting()
    counters.count("m1", entry(), T)

    assert counters.sender(JOE, T + 59).messages_1m == 1
    assert counters.sender(JOE, T + 66)[:6] == (0, 1, 0, 1, 1, 1)
    assert counters.sender(JOE, T + HOUR_S + 61)[:6] == (0, 0, 0, 0, 1, 1)
    assert counters.sender(JOE, T + DAY_S + 1801) == Level()


def test_a_late_message_counts_from_when_it_came():
    """One that waited half an hour is in the hour, not in the minute; a day old it is in none."""
    counters = counting()

    assert counters.count("m1", entry(T - 1800), T)
    assert counters.count("m2", entry(T - 2 * HOUR_S), T)
    assert not counters.count("m2", entry(T - 2 * HOUR_S), T + 1)
    assert not counters.count("m3", entry(T - DAY_S), T)
    assert counters.sender(JOE, T)[:6] == (0, 1, 0, 1, 2, 2)


def test_new_recipients_are_those_nobody_wrote_to():
    """Once in their hour, and not again for weeks; the account may know who is new to a sender."""
    counters = counting()
    counters.count("m1", entry(to=to("x", "y")), T)
    counters.count("m2", entry(to=to("x")), T + 1)
    counters.count("m3", entry(sender="a|sasl|kim", to=to("x", "z")), T + 2)

    joe, kim, account = (*(counters.sender(k, T + 2) for k in (JOE, "a|sasl|kim")),
                         counters.account("a", T + 2))  # fmt: skip
    assert (joe.unique_recipients_1h, joe.new_recipients_1h, joe.new_recipients_1d) == (2, 2, 2)
    assert (kim.unique_recipients_1h, kim.new_recipients_1h) == (2, 2)
    assert (account.unique_recipients_1h, account.new_recipients_1h) == (3, 3)

    later = T + 5 * DAY_S
    while counters.tidy(later):
        pass
    counters.count("m4", entry(later, to=to("x", "new")), later)
    assert counters.sender(JOE, later).new_recipients_1h == 1
    much_later = T + 60 * DAY_S
    counters.tidy(much_later)
    counters.count("m5", entry(much_later, to=to("y")), much_later)
    assert counters.sender(JOE, much_later).new_recipients_1h == 1


def test_what_was_put_off_finds_its_recipients_as_new_as_before():
    """To try again and again makes nobody known."""
    counters = counting()
    for n in range(5):
        counters.count(f"m{n}", entry(T + n, to=to("x", "y", "z")), T + n)
        assert counters.sender(JOE, T + n).new_recipients_1h == 3
        counters.uncount(f"m{n}")

    assert counters.sender(JOE, T + 9) == Level()


def test_whose_first_message_was_taken_off_is_new_with_the_next():
    """Two at once to a new recipient: when the one that made it new goes, another may."""
    counters = counting()
    for message in ("m1", "m2"):
        counters.count(message, entry(to=to("x")), T)
    counters.uncount("m1")
    counters.count("m3", entry(to=to("x")), T)

    level = counters.sender(JOE, T)
    assert (level.new_recipients_1h, level.unique_recipients_1h) == (1, 1)


def test_a_large_message_is_looked_at_in_part():
    """Of a thousand recipients a hundred are looked at, and all are counted."""
    counters = counting()
    names = to(*(f"u{n}" for n in range(1000)))
    counters.count("m1", entry(recipients=1000, to=names), T)

    level = counters.sender(JOE, T)
    assert (level.recipients_1h, level.new_recipients_1h) == (1000, LOOKED_AT_MAX)


def test_what_became_of_mail():
    """Delivered, bounced, and of these no such recipient, for a day."""
    counters = counting()
    for kind in ("delivered", "delivered", "bounced", "unknown"):
        counters.came_of(kind, "a", JOE, T, T)

    level = counters.sender(JOE, T)
    assert (level.delivered_1d, level.bounced_1d, level.unknown_1d) == (2, 2, 1)
    assert counters.account("a", T)[-3:] == level[-3:]
    assert counters.sender(JOE, T + DAY_S + 1801) == Level()


def test_the_busiest_hour_of_the_days_before():
    """Today is not in it, nor what was taken off; a fortnight later it is forgotten."""
    counters = counting()
    for n in range(10):
        counters.count(f"m{n}", entry(T + n, recipients=2, size=5), T + n)
    counters.uncount("m0")
    counters.count("n", entry(T + 3 * HOUR_S), T + 3 * HOUR_S)

    assert counters.standing("a", JOE, T + 4 * HOUR_S)[0].usual == Usual()
    tomorrow = T + 13 * HOUR_S
    assert counters.standing("a", JOE, tomorrow)[0].usual == Usual(1, 9, 18, 45, 0)
    assert counters.standing("a", JOE, tomorrow)[1].usual == Usual(1, 9, 18, 45, 0)
    assert counters.standing("a", JOE, T + 14 * DAY_S)[0].usual.days == 1
    assert counters.standing("a", JOE, T + 15 * DAY_S)[0].usual == Usual()


def test_an_hour_across_two_half_hours_is_one():
    """What began at a quarter to and ended at a quarter past is in one busiest hour."""
    counters = counting()
    for n, at_s in enumerate((T - 900, T + 900)):
        counters.count(f"m{n}", entry(at_s), at_s)

    assert counters.standing("a", JOE, T + DAY_S)[0].usual.peak_messages_1h == 2


def test_what_is_read_back_of_yesterday_counts_for_yesterday():
    """Though the day was closed already, and though its window is over."""
    counters = counting()
    now = T + DAY_S
    counters.count("m0", entry(now), now)
    counters.count("m1", entry(now - 13 * HOUR_S), now, again=False)
    counters.count("m2", entry(now - 3 * DAY_S, recipients=4), now, again=False)

    assert counters.standing("a", JOE, now + 60)[0].usual == Usual(2, 1, 4, 0, 0)
    assert counters.standing("a", JOE, now)[0].first_s == now - 3 * DAY_S


def test_domains_are_known_from_the_next_day():
    """Only of mail that was taken."""
    counters = counting()
    counters.count("m1", entry(), T)
    counters.took("a", "example.com", "bounce.example.com", T)
    account, today = counters.accounts["a"], int(T // DAY_S)

    assert not account.from_domains.known("example.com", today)
    assert account.from_domains.known("example.com", today + 1)
    assert account.envelope_domains.known("bounce.example.com", today + 1)
    assert not account.from_domains.known("other.example", today + 1)


def test_ages_are_known_after_a_week_of_watching():
    """Who came first in that week may be old; a week after it that matters no more."""
    counters = counting(since_s=T)

    assert not counters.watched(T + WATCHED_S - 1)
    assert counters.watched(T + WATCHED_S)
    assert counters.age_known(T + WATCHED_S, T + WATCHED_S)
    assert not counters.age_known(T + 100, T + WATCHED_S)
    assert counters.age_known(T + 100, T + 100 + WATCHED_S)


def test_memory_is_bounded():
    """The sender silent for longest is forgotten first, and so is the oldest id."""
    counters = counting(senders_max=10, accounts_max=3, ids_max=20, recipients_max=15)
    for i in range(100):
        one = Entry(T + i, f"a{i}", f"a{i}|sasl|x", 1, 1, to(f"u{i}"))
        counters.count(f"m{i}", one, T + i)

    assert len(counters) <= 20
    assert counters.sender("a99|sasl|x", T + 99).messages_1h == 1
    assert counters.sender("a1|sasl|x", T + 99) == Level()
    assert not counters.counted("m0")
    counters.uncount("m99")
    assert counters.senders_total == sum(len(a.senders) for a in counters.accounts.values()) <= 10


def test_who_makes_up_senders_loses_its_own():
    """An account with a tenth of all senders pushes nobody else's out."""
    counters = counting(senders_max=100)
    for i in range(20):
        counters.count(f"q{i}", Entry(T, f"b{i}", f"b{i}|sasl|x", 1), T)
    for i in range(1000):
        counters.count(f"m{i}", Entry(T + 1, "flood", f"flood|x-authuser|{i}", 1), T + 1)

    assert all(counters.sender(f"b{i}|sasl|x", T + 1).messages_1h for i in range(20))


def test_memory_for_each_sender():
    """A quiet sender costs about a kilobyte, whatever windows there are."""

    def size(counters: Counters) -> int:
        seen: set[int] = set()

        def of(value) -> int:
            if id(value) in seen or value is None or isinstance(value, type):
                return 0
            seen.add(id(value))
            inner = sys.getsizeof(value)
            if isinstance(value, dict):
                return inner + sum(of(k) + of(v) for k, v in value.items())
            if isinstance(value, tuple | list):
                return inner + sum(map(of, value))
            names = [n for c in type(value).__mro__ for n in getattr(c, "__slots__", ())]
            return inner + sum(of(getattr(value, n, None)) for n in names)

        return of(counters.accounts)

    def cost(each: int, *, wait_s: float, days: int = 1) -> float:
        counters, number = counting(), 0
        for day in range(days):
            for n in range(each):
                for who in range(60):
                    at_s = T + day * DAY_S + n * wait_s
                    number += 1
                    key = f"acme{who % 3}|x-authuser|someone{who}@customer.example"
                    counters.count(f"m{number}", Entry(at_s, f"acme{who % 3}", key, 1, 5000), at_s)
        for account in counters.accounts.values():  # as each snapshot does
            for one in (account, *account.senders.values()):
                one.slide(at_s + (2 * HOUR_S if each == 1 else 0))
        return size(counters) / 60

    quiet, ten, always = (
        cost(1, wait_s=0), cost(10, wait_s=3600.0), cost(300, wait_s=60.0, days=1)
    )  # fmt: skip
    print(f"bytes a sender: {quiet:.0f} with a message, {ten:.0f} with ten, {always:.0f} always")
    assert quiet < 1100
    assert ten < 2500
    assert always < 9000


class Plainly:
    """The levels at their plainest: every message, added up at each question."""

    def __init__(self) -> None:
        self.sent: dict[str, Entry] = {}
        self.of_new: dict[str, dict[str, set[str]]] = {}

    def count(self, message: str, one: Entry, now: float) -> None:
        new = {}
        for whose in (one.account, one.sender):
            before = {
                a
                for m, e in self.sent.items()
                if whose in (e.account, e.sender)
                for a in (e.addresses if now - e.at_s >= HOUR_S else self.of_new[m][whose])
            }
            new[whose] = set(one.addresses) - before
        self.sent[message], self.of_new[message] = one, new

    def level(self, whose: str, now: float) -> Level:
        found: dict[str, int] = defaultdict(int)
        unique: set[str] = set()
        for message, e in self.sent.items():
            if whose not in (e.account, e.sender):
                continue
            for span_s, slot_s, name in ((MINUTE_S, 5, "1m"), (HOUR_S, 60, "1h"),
                                         (DAY_S, 1800, "1d")):  # fmt: skip
                if e.at_s // slot_s >= (now - span_s) // slot_s:
                    found[f"messages_{name}"] += 1
                    found[f"recipients_{name}"] += e.recipients
                    if name != "1m":
                        found[f"bytes_{name}"] += e.bytes
                        found[f"new_recipients_{name}"] += len(self.of_new[message][whose])
            if now - e.at_s < HOUR_S:
                unique |= set(e.addresses)
        return Level(**found, unique_recipients_1h=len(unique))


EVENTS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 100), st.integers(0, 50_000), st.integers(0, 600_000)),
        st.sampled_from(["a|s|x", "a|s|y", "b|s|x"]),
        st.sets(st.sampled_from("uvwxyz"), min_size=1, max_size=4),
        st.integers(0, 5),  # of 0: one of those before is taken off
    ),
    max_size=50,
)


@given(EVENTS)
def test_levels_are_sums(events):
    """However messages come and are taken off, a level is what plain adding up says."""
    counters, plainly, now = counting(), Plainly(), T
    for i, (wait, who, names, off) in enumerate(events):
        now += wait / 10
        while counters.tidy(now):
            pass
        one = Entry(now, who[0], who, len(names), 10 * i, to(*sorted(names)))
        assert counters.count(f"m{i}", one, now)
        plainly.count(f"m{i}", one, now)
        gone = f"m{max(0, i - off * 3)}"
        if off < 2 and counters.uncount(gone):
            del plainly.sent[gone]
    while counters.tidy(now):
        pass

    for whose in ("a|s|x", "a|s|y", "b|s|x"):
        assert counters.sender(whose, now) == plainly.level(whose, now)
    for whose in "ab":
        assert counters.account(whose, now) == plainly.level(whose, now)
