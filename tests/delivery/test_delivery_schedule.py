"""Who goes next at each site, and how many connections it is worth."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from postweir.delivery.schedule import GROW_S, QUIET_S, QUIET_WAITING_MAX, Schedule
from postweir.mail.reply import Reply

REFUSED = Reply(451, "4.4.1", "refused")


@dataclass(frozen=True)
class Waiting:
    sender: str
    message: tuple[int, str]
    accepted_at_us: int = 0
    number: int = 0


def schedule(**changes):
    made = Schedule(**({"connections_per_site_max": 20, "shut_s": 30.0} | changes))
    return made, made.site("mx.example")


def drained(made, site):
    out = []
    while batch := made.next(site):
        out.append(batch)
    return out


def test_senders_take_turns():
    """A sender with a thousand messages delays one with a single message by one."""
    made, site = schedule()
    for n in range(1000):
        made.add(site, Waiting("bulk", (1, f"b{n}"), n))
    made.add(site, Waiting("other", (1, "o"), 5000))

    order = [batch[0].sender for batch in drained(made, site)]
    assert order.index("other") == 1


def test_the_oldest_of_a_sender_goes_first():
    """Whatever order they came in."""
    made, site = schedule()
    for at in (5, 1, 3):
        made.add(site, Waiting("s", (1, f"m{at}"), at))

    assert [batch[0].accepted_at_us for batch in drained(made, site)] == [1, 3, 5]


def test_one_messages_recipients_go_together():
    """Up to a hundred; the same name at another shard is another message."""
    made, site = schedule()
    for n in range(150):
        made.add(site, Waiting("s", (1, "m"), 0, n))
    made.add(site, Waiting("s", (2, "m"), 0, 999))

    batches = drained(made, site)
    assert [len(batch) for batch in batches] == [100, 50, 1]
    assert all(len({w.message for w in batch}) == 1 for batch in batches)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 9))))
def test_nothing_is_lost_or_doubled(entries):
    """Whatever is added comes out once."""
    made, site = schedule()
    added = [
        Waiting(f"s{s}", (s, f"m{m}"), at, n) for n, (s, m, at) in enumerate(entries)
    ]  # fmt: skip
    for entry in added:
        made.add(site, entry)

    out = [entry for batch in drained(made, site) for entry in batch]
    assert sorted(e.number for e in out) == sorted(e.number for e in added)
    assert made.next(site) == []
    assert site.unused


def fill(made, site, count):
    for n in range(count):
        made.add(site, Waiting("s", (1, f"m{n}")))


def test_connections_grow_with_the_queue():
    """One for a few, few for a site that never answered, then one more for each answer, bounded."""
    made, site = schedule()
    assert made.openings(site, 0.0) == 0
    fill(made, site, 3)
    assert made.openings(site, 0.0) == 1
    fill(made, site, 500)
    assert made.openings(site, 0.0) == 4

    site.open = 4
    for _ in range(10):
        made.answered(site, 0.0)
    assert made.openings(site, 0.0) == 10
    for _ in range(10):
        made.answered(site, 0.0)
    assert made.openings(site, 0.0) == 16
    site.idle, site.open = 500, 500
    assert made.openings(site, 0.0) == 0


def test_a_site_that_cannot_be_reached_is_shut():
    """All that wait are deferred; then nobody asks until the back-off is over; then one does."""
    made, site = schedule()
    fill(made, site, 100)

    assert len(made.unreached(site, REFUSED, 1000.0)) == 100
    assert made.unreached(site, REFUSED, 1000.0) == []  # its fellow of the same round
    assert made.shut(site, 1029.0) == REFUSED
    fill(made, site, 100)
    assert made.openings(site, 1029.0) == 0
    assert made.shut(site, 1030.0) is None
    assert made.openings(site, 1030.0) == 1

    site.opening = 1
    assert made.openings(site, 1030.0) == 0
    site.opening = 0
    made.unreached(site, REFUSED, 1030.0)
    assert made.shut(site, 1089.0) == REFUSED
    assert made.shut(site, 1090.0) is None


def test_a_site_that_came_back_is_asked_gently():
    """A greeting does not open the floodgates, and each answer lets one more connection in."""
    made, site = schedule()
    fill(made, site, 500)
    made.unreached(site, REFUSED, 1000.0)
    fill(made, site, 500)
    site.open = 1
    made.greeted(site, 1030.0)
    assert made.shut(site, 1030.0) is None
    assert made.openings(site, 1030.0) == 0

    made.answered(site, 1031.0)
    assert made.openings(site, 1031.0) == 1
    made.answered(site, 1031.0)
    made.answered(site, 1031.0)
    assert made.openings(site, 1031.0) == 3


def test_a_site_that_keeps_hanging_up_is_left_alone():
    """Some ended connections only slow us down; five in a row with nothing answered shut it."""
    made, site = schedule()
    fill(made, site, 100)
    site.open = 8
    for _ in range(10):
        made.answered(site, 1000.0)
    for _ in range(4):
        assert made.ended(site, REFUSED, 1000.0) == []
    assert site.room == 1
    made.answered(site, 1001.0)
    for _ in range(4):
        assert made.ended(site, REFUSED, 1001.0) == []

    assert len(made.ended(site, REFUSED, 1001.0)) == 100
    assert made.shut(site, 1002.0) == REFUSED


def test_where_nothing_moves_only_a_few_wait():
    """After a time without any answer all but those longest here are deferred; not before."""
    made, site = schedule()
    fill(made, site, 100)
    made.asked(site, 1000.0)
    site.opening = 1
    assert made.shed(site, 1000.0 + QUIET_S - 1) == []
    made.greeted(site, 1010.0)
    site.opening, site.open = 0, 1
    assert made.shed(site, 1000.0 + QUIET_S) == []

    shed = made.shed(site, 1010.0 + QUIET_S)
    assert [e.message[1] for e in shed] == [f"m{n}" for n in range(QUIET_WAITING_MAX, 100)]
    assert len(drained(made, site)) == QUIET_WAITING_MAX


def test_a_site_that_was_asked_nothing_is_not_silent():
    """Silence is counted from when it got something to do."""
    made, site = schedule()
    site.open = site.idle = 1
    fill(made, site, 100)
    assert made.shed(site, 5000.0) == []

    made.asked(site, 5000.0)
    site.idle = 0
    assert made.shed(site, 5001.0) == []


def test_a_refused_further_connection_only_stops_growth():
    """A host that takes five connections and no sixth is not down."""
    made, site = schedule()
    fill(made, site, 100)
    site.open = 5

    assert made.unreached(site, REFUSED, 1000.0) == []
    assert made.shut(site, 1000.0) is None
    assert made.openings(site, 1000.0 + GROW_S / 2) == 0
    for _ in range(20):
        made.answered(site, 1000.0)
    assert made.openings(site, 1000.0 + GROW_S) == 15


def test_a_stalled_connection_among_answered_ones_is_its_own_trouble():
    """Only when nothing was answered since it began is the site shut."""
    made, site = schedule()
    fill(made, site, 10)
    site.open = 2
    made.answered(site, 1005.0)

    assert made.stalled(site, REFUSED, 1300.0, since_s=1000.0) == []
    assert len(made.stalled(site, REFUSED, 1300.0, since_s=1005.0)) == 10
    assert made.shut(site, 1301.0) == REFUSED


def test_sites_with_nothing_to_do_are_forgotten(monkeypatch):
    """What is remembered is bounded, and what is waiting is never forgotten."""
    monkeypatch.setattr("postweir.delivery.schedule.SITES_MAX", 10)
    made, site = schedule()
    fill(made, site, 1)
    for n in range(100):
        made.site(f"mx{n}.example")

    assert made.waiting() == [site]
    assert made.site("mx.example") is site
