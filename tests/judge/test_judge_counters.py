"""Levels are what was sent in the last minute and hour, each message once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from postweir.judge.counters import HOUR_S, Counters, Entry, Level

T = 1_000_000.0


def entry(at_s: float = T, sender: str = "a|sasl|joe", recipients: int = 1) -> Entry:
    return Entry(at_s, sender.split("|", maxsplit=1)[0], sender, recipients)


def test_messages_and_recipients_count_for_sender_and_account():
    """Two senders of an account share its level, not each other's."""
    counters = Counters()
    counters.count("m1", entry(recipients=3), T)
    counters.count("m2", entry(sender="a|sasl|kim"), T)

    assert counters.sender("a|sasl|joe", T) == Level(1, 1, 3, 3)
    assert counters.sender("a|sasl|kim", T) == Level(1, 1, 1, 1)
    assert counters.account("a", T) == Level(2, 2, 4, 4)
    assert counters.sender("b|sasl|joe", T) == Level()


def test_once_for_an_id():
    """A repeated question changes no level; what was taken off may come again."""
    counters = Counters()

    assert counters.count("m1", entry(), T)
    assert not counters.count("m1", entry(), T + 1)
    assert counters.uncount("m1", T + 2)
    assert not counters.uncount("m1", T + 2)
    assert counters.sender("a|sasl|joe", T + 2) == Level()
    assert counters.count("m1", entry(), T + 3)


def test_windows_slide():
    """After a minute, then after an hour, a message counts no more."""
    counters = Counters()
    counters.count("m1", entry(), T)

    assert counters.sender("a|sasl|joe", T + 59).messages_1m == 1
    assert counters.sender("a|sasl|joe", T + 66) == Level(0, 1, 0, 1)
    assert counters.sender("a|sasl|joe", T + HOUR_S + 61) == Level()


def test_a_late_message_counts_from_when_it_came():
    """One that waited half an hour is in the hour, not in the minute; an older one in neither."""
    counters = Counters()

    assert counters.count("m1", entry(T - 1800), T)
    assert not counters.count("m2", entry(T - HOUR_S), T)
    assert counters.sender("a|sasl|joe", T) == Level(0, 1, 0, 1)


def test_restored_levels_are_those_before():
    """Reading back what was counted gives the same levels, and nothing twice."""
    before, after = Counters(), Counters()
    sent = [(f"m{i}", entry(T - 100 * i, recipients=i + 1)) for i in range(20)]
    for message, one in reversed(sent):
        before.count(message, one, T)
    after.count("m3", entry(T - 300, recipients=4), T)

    assert after.restore(sent, T) == 19
    assert after.restore(sent, T) == 0
    assert after.sender("a|sasl|joe", T) == before.sender("a|sasl|joe", T)


def test_memory_is_bounded():
    """The sender silent for longest is forgotten first, and so is the oldest id."""
    counters = Counters(senders_max=10, accounts_max=3, ids_max=20)
    for i in range(100):
        counters.count(f"m{i}", Entry(T + i, f"a{i}", f"a{i}|sasl|x", 1), T + i)

    assert len(counters) <= 20
    assert counters.sender("a99|sasl|x", T + 99).messages_1h == 1
    assert counters.sender("a1|sasl|x", T + 99) == Level()
    assert not counters.counted("m0")
    counters.uncount("m1", T + 100)  # of a sender that is forgotten: no fault


@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.sampled_from("ab"), st.booleans(), st.integers(1, 3)),
        max_size=60,
    )
)
def test_levels_are_sums(events):
    """However messages come and are taken off, a level is the sum of what is left of its hour."""
    counters, kept, now = Counters(), {}, T
    for i, (wait, who, off, recipients) in enumerate(events):
        now += wait / 10
        one = Entry(now, who, f"{who}|s|x", recipients)
        counters.count(f"m{i}", one, now)
        kept[f"m{i}"] = one
        if off:
            counters.uncount(f"m{i}", now)
            del kept[f"m{i}"]

    want: Counter[str] = Counter()
    for one in kept.values():
        if now - one.at_s < HOUR_S:
            want[one.account] += one.recipients
    for who in "ab":
        assert counters.account(who, now).recipients_1h == want[who]
