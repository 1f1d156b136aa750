"""A policy tried on recorded mail: both policies really judge, in workers of their own."""

import sys

import pytest
from tests.desk.recorded import POLICY, Past

from postweir.desk import comparing, evaluating, replaying
from postweir.desk.evaluating import Evaluator
from postweir.desk.ports import Missing, Misused, Unreadable, Unusable
from postweir.desk.replaying import Wanted
from postweir.judge.ports import Loadable
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate


@pytest.fixture
def past(office):
    return Past(office)


def written(tmp_path, text, name="new.toml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


async def replay(office, candidate, **wanted):
    return await replaying.replay(office, Wanted(candidate, **wanted))


async def test_the_same_policy_changes_nothing(office, past, tmp_path):
    """All of its verdicts are what they were: facts, sets and patterns come back as recorded."""
    past.came({"urls.hosts": ["www.bad.example"]}, keys={"url_hosts": ["bad.example"]})
    past.came({"urls.count": 5}, shard=2)
    past.came({}, texts={"subject": "free gift cards"})
    past.came({"body.parts": 3, "connection.tls": True})
    found = await replay(office, written(tmp_path, POLICY))

    assert found.candidate == found.against == past.policy.policy
    assert {m.before: m.messages for m in found.diff.verdicts} == {
        "refuse": 1, "hold": 1, "defer": 1, "accept": 1,
    }  # fmt: skip
    assert (found.diff.changed, found.unlike, found.not_replayable) == (0, 0, 0)
    assert found.within


async def test_what_changes_is_told_by_rule_account_and_sender(office, past, tmp_path):
    """With an example that can be looked up, and who is refused for the first time."""
    ids = [past.came({"urls.count": 5, "connection.tls": True}, who="ann") for _ in range(2)]
    past.came({}, who="joe")
    text = POLICY.replace("&& !connection.tls", "").replace('verb = "hold"', 'verb = "refuse"')
    found = await replay(office, written(tmp_path, text), budget=0.5)
    diff = found.diff

    assert (diff.changed, diff.refused, found.within) == (2, 2, False)
    assert [(r.rule, r.came, r.went) for r in diff.rules] == [("-", 0, 2), ("links", 2, 0)]
    assert [(s.name, s.changed) for s in diff.senders] == [("acme|sasl|ann", 2)]
    assert [line.name for line in diff.newly_refused] == ["acme|sasl|ann"]
    assert [e.id for e in diff.examples] == ids
    assert {e.after_rule for e in diff.examples} == {"links"}


async def test_a_set_is_recomputed_and_a_new_pattern_is_not(office, past, tmp_path):
    """The hosts are kept; of the subject nobody knows any more, unless it makes no difference."""
    past.came({"urls.hosts": ["worse.example"]})
    past.came({"urls.hosts": ["bad.example"]}, keys={"url_hosts": ["bad.example"]})
    past.came({})
    text = POLICY.replace('["bad.example"]', '["bad.example", "worse.example"]')
    text = text.replace('"gift ?cards?"', '"lottery"')
    found = await replay(office, written(tmp_path, text))

    # The first two are refused whatever the subject was; the third hangs on it.
    assert (found.diff.messages, found.diff.changed) == (2, 1)
    assert (found.not_replayable, found.why_not) == (1, {"pattern.cards": 1})


async def test_throttles_are_simulated_from_empty(office, past, tmp_path):
    """Three of five within the hour: which ones hangs on the verdicts before, as in a judge."""
    ids = [past.came({}, minutes_ago=minutes_ago) for minutes_ago in (50, 49, 48, 47, 36)]
    text = """
[[throttle]]
id = "t"
key = "sender"
of = "messages"
rate = 1
per_s = 600
burst = 2

[[rule]]
id = "slow"
when = "throttle.t > 0"
then = { verb = "throttle", throttle = "t", code = "STF", text = "Slowly." }
"""
    found = await replay(office, written(tmp_path, text))

    assert found.simulated == ["t"]
    assert {m.after: m.messages for m in found.diff.verdicts} == {"accept": 3, "throttle": 2}
    assert [e.id for e in found.diff.examples] == ids[2:4]


async def test_one_account_a_time_and_a_number(office, past, tmp_path):
    """Oldest first, over all shards; what is older or another's is not looked at."""
    past.came({}, minutes_ago=2000)
    first = past.came({"urls.count": 9}, minutes_ago=50, shard=2)
    past.came({"urls.count": 9}, minutes_ago=40)
    candidate = written(tmp_path, POLICY.replace("links = 3", "links = 30"))
    found = await replay(office, candidate, limit=1)

    assert found.limited
    assert [e.id for e in found.diff.examples] == [first]
    assert (await replay(office, candidate)).diff.messages == 2
    assert (await replay(office, candidate, since_s=100 * 3600)).diff.messages == 3
    with pytest.raises(Missing, match="nothing to try it on"):
        await replay(office, candidate, account="other")


async def test_a_silent_shard_is_read_from_its_file(office, past, tmp_path):
    """And one that cannot be read at all is no reason to report on half of the mail."""
    past.came({}, shard=2)
    office.shards.down = {2}
    candidate = written(tmp_path, POLICY)
    assert (await replay(office, candidate)).diff.messages == 1
    office.shards.unreadable = {2}

    with pytest.raises(Unreadable, match="shard 2"):
        await replay(office, candidate)


async def test_facts_that_were_not_kept_count_in_shares(office, past, tmp_path):
    """Of ten messages two are left: they stand for those before them."""
    for n in range(10):
        past.came({"urls.count": 9 if n == 4 else 0, "connection.tls": True})
    store = office.shards.stores[1]
    store._db.execute("DELETE FROM facts WHERE id NOT IN (5, 10)")
    found = await replay(office, written(tmp_path, POLICY.replace("&& !connection.tls", "")))

    assert (found.diff.messages, found.diff.stand_for) == (2, 10)
    assert found.diff.share == 0.5
    store._db.execute("DELETE FROM facts WHERE id = 10")
    found = await replay(office, written(tmp_path, POLICY))
    assert (found.diff.stand_for, found.why_not) == (5, {"facts": 5})


@pytest.mark.parametrize(
    ("policy", "what"),
    [("none.toml", "is no file"), ("pol_123456", "no policy pol_123456"), ("pol_1", "is no file")],
)
async def test_a_policy_that_is_not_there(office, past, policy, what):
    """A slip of the pen is told as one."""
    with pytest.raises(Misused, match=what):
        await replay(office, policy)


async def test_a_policy_with_faults_is_told_where(office, past, tmp_path):
    """Its form with the line; a condition that does not compile as the worker says it."""
    with pytest.raises(Misused, match=r"new\.toml:\d+.*policy check"):
        await replay(office, written(tmp_path, "[[rule]]\nid = 'x'\n"))
    past.came({})
    with pytest.raises(Unusable, match="no_such"):
        await replay(office, written(tmp_path, POLICY.replace("body.parts >", "no.no_such >")))


@pytest.mark.parametrize(("text", "s"), [("24h", 86_400), ("90m", 5400), ("3d", 259_200)])
def test_times_and_shares(text, s):
    """As people write them."""
    assert replaying.seconds(text) == s
    assert replaying.share("0.5%") == 0.005
    for wrong in ("", "h", "24", "-1h", "1.5h", "9999999h"):
        with pytest.raises(Misused):
            replaying.seconds(wrong)
    for wrong in ("", "x%", "200%", "-1%", "nan"):
        with pytest.raises(Misused):
            replaying.share(wrong)


STUB = """
import os, sys, time
from postweir.policy import worker
from postweir.policy.evaluation import Evaluate
plain = worker._Server.hear
def hear(self, frame):
    if isinstance(frame, Evaluate) and frame.ask == 7:
        {}
    return plain(self, frame)
worker._Server.hear = hear
worker.main(sys.argv[1:])
"""


@pytest.mark.parametrize("harm", ["os._exit(1)", "time.sleep(60)"])
async def test_one_message_that_kills_the_worker_costs_its_own_answer(tmp_path, monkeypatch, harm):
    """All the others are answered, in order, by a worker that takes its place."""
    monkeypatch.setattr(evaluating, "SILENT_S", 0.3)
    stub = tmp_path / "stub.py"
    stub.write_text(STUB.format(harm))
    rules = (Rule("r", "urls.count > 3", "refuse", "CS", "No."),)
    async with Evaluator(Loadable(Bundle(rules)), command=(sys.executable, str(stub))) as one:
        asks = [Evaluate(n, {"urls.count": n % 5}) for n in range(12)]
        said = await one.evaluate(asks)

    assert [n for n, each in enumerate(said) if each is None] == [7]
    assert [each.ask for each in said if each] == [n for n in range(12) if n != 7]
    assert one.deaths >= 1


async def test_a_diff_of_two_policies(office, past, tmp_path):
    """By name, by the beginning of a hash, or from a file; with the verdicts when asked."""
    past.came({"urls.count": 9})
    text = POLICY.replace("links = 3", "links = 30")
    path = written(tmp_path, text)
    found = await comparing.compare(office, past.policy.policy[:12], path)
    same = await comparing.compare(office, "promoted", past.policy.policy)
    lines = list(comparing.told(found))

    assert [(c.kind, c.id, c.what) for c in found.changed] == [("limit", "links", "changed")]
    assert lines[-2:] == ["    - value = 3", "    + value = 30"]
    assert (same.same, same.changed) == (True, [])
    replayed = await replay(office, path)
    assert comparing.with_verdicts(found, replayed).verdicts.diff.changed == 1
