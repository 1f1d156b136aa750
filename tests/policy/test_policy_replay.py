"""What a replay counts: verdicts before and after, by rule, account and sender."""

import pytest

from postweir.policy import replay
from postweir.policy.replay import Mail, Tally
from postweir.policy.verdict import Verdict

ACCEPT, REFUSE = Verdict("accept"), Verdict("refuse", "spam", code="SS")
OTHER = Verdict("refuse", "other", code="CS")


def tally(*pairs):
    made = Tally()
    for n, (sender, stands_for, before, after) in enumerate(pairs):
        made.add(Mail(f"m{n}", sender.partition("|")[0], sender, stands_for), before, after)
    return made.diff()


def test_shares_count_what_was_not_kept_too():
    """One message of a thinned sender stands for many; counts are of what was judged."""
    diff = tally(("a|x|1", 99, ACCEPT, ACCEPT), ("a|x|2", 1, ACCEPT, REFUSE))

    assert (diff.messages, diff.stand_for, diff.changed) == (2, 100, 1)
    assert diff.share == diff.refused_share == 0.01
    assert [(m.before, m.after, m.messages, m.share) for m in diff.verdicts] == [
        ("accept", "accept", 1, 0.99), ("accept", "refuse", 1, 0.01),
    ]  # fmt: skip


def test_the_same_verdict_by_another_rule_is_no_change():
    """Its sender sees no difference worth a budget; it is told apart."""
    diff = tally(("a|x|1", 1, REFUSE, OTHER))

    assert (diff.changed, diff.by_other_rule) == (0, 1)
    assert [(r.rule, r.before, r.after, r.came, r.went) for r in diff.rules] == [
        ("other", 0, 1, 1, 0), ("spam", 1, 0, 0, 1),
    ]  # fmt: skip


def test_who_is_refused_for_the_first_time_stands_out():
    """And not who was refused before, nor who was put off."""
    defer = Verdict("defer", "late")
    diff = tally(
        ("a|x|new", 1, ACCEPT, REFUSE), ("a|x|known", 1, REFUSE, REFUSE),
        ("a|x|known", 1, ACCEPT, REFUSE), ("b|x|late", 1, defer, REFUSE),
    )  # fmt: skip

    assert [line.name for line in diff.newly_refused] == ["a|x|new"]
    assert diff.newly_refused_count == 1
    assert diff.refused == 2
    assert [(line.name, line.changed, line.refused) for line in diff.accounts] == [
        ("a", 2, 2), ("b", 1, 0),
    ]  # fmt: skip


def test_examples_of_each_kind_of_change():
    """Some of every one, so that a rare one is not lost behind a frequent one."""
    pairs = [("a|x|1", 1, ACCEPT, REFUSE)] * 10 + [("a|x|1", 1, REFUSE, ACCEPT)]

    found = [(one.id, one.before_rule, one.after_rule) for one in tally(*pairs).examples]
    assert found == [("m0", "-", "spam"), ("m1", "-", "spam"), ("m2", "-", "spam"),
                     ("m10", "spam", "-")]  # fmt: skip


def test_senders_without_number_take_no_memory_without_end(monkeypatch):
    """Those above the bound are counted together."""
    monkeypatch.setattr(replay, "NAMES_MAX", 2)
    diff = tally(*[(f"a|x|{n}", 1, ACCEPT, REFUSE) for n in range(5)])

    assert {line.name: line.changed for line in diff.senders} == {
        "a|x|0": 1, "a|x|1": 1, replay.REST: 3,
    }  # fmt: skip


def test_errors_and_times():
    """Rules that fail, once a message; half and nearly all of the times."""
    made = Tally()
    made.failed(["r: division by zero", "r: again", "s: x"], before=False)
    for took_us in range(1, 101):
        made.times.add(took_us)
    diff = made.diff()

    assert diff.errors == {"r": 1, "s": 1}
    assert (diff.took.p50_us, diff.took.p99_us, diff.took.max_us) == (50, 99, 100)
    assert diff.share == pytest.approx(0)
