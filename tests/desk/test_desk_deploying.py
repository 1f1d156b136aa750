"""Deploying and going back: what is kept, what judges are asked, and what they make of it."""

import dataclasses
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.desk import deploying, judges, promoted
from postweir.desk.ports import Missing, Misused
from postweir.judge import checking
from postweir.judge.bundles import shipped
from postweir.judge.checking import Report
from postweir.judge.ports import Deployment
from postweir.runtime import frames

RULE = """
[[rule]]
id = "{0}"
when = 'envelope.recipients > {1}'
then = {{ verb = "hold" }}
"""


class Judges:
    """What each judge says when it is asked; None: nothing."""

    def __init__(self, office):
        self.office = office
        self.says = {}  # by index: a function of the last deployment, or None

    def asked(self, port_file, path, wait_s):
        index = int(port_file.stem.rpartition("-")[2])
        says = self.says.get(index)
        if says is None:
            return None
        last = self.office.policies.last()
        said = says(last.number if last else 0, last.policy if last else shipped().hash)
        return frames.json({"process": f"judge {index}", **said})


def follows(number, policy):
    return {"policy": policy, "deployment": number, "refused": "", "killed": {}}


def refuses(number, _):
    return {"policy": "pol_old", "deployment": number, "refused": "there is no fact x"}


def asleep(*_):
    return {"policy": "pol_old", "deployment": 0}


@pytest.fixture
def unchecked(monkeypatch):
    """The check has tests of its own, and takes a third of a second."""

    def read(path, progress):
        return Report(checking.parse(path.read_text(), str(path)))

    monkeypatch.setattr(deploying.checking, "check_file", read)


@pytest.fixture
def told(office, monkeypatch):
    made = Judges(office)
    monkeypatch.setattr(judges, "asked", made.asked)
    monkeypatch.setattr(judges, "SILENT_S", 0.0)
    monkeypatch.setattr(judges, "WAIT_S", 0.0)
    return made


@pytest.fixture
def write(tmp_path, unchecked):
    def written(name, count=1):
        path = tmp_path / f"{name}.toml"
        path.write_text(RULE.format(name, count))
        return path

    return written


async def deploy(office, path, reason="", dry_run=False):
    return await deploying.deploy(office, path, reason, dry_run=dry_run)


async def back(office, name="", dry_run=False):
    return await deploying.rollback(office, name, "", dry_run=dry_run)


async def test_a_deployment_without_a_service_takes_effect_at_the_next_start(office, write):
    """Kept with its text, its author and the reason; and nobody is waited for."""
    done = await deploy(office, write("a"), "monday")

    assert [one.state for one in done.judges] == ["down"]
    assert done.before == shipped().hash
    kept = office.policies.kept(done.policy)
    assert (kept.source, kept.by) == (write("a").read_text(), "op")
    (line,) = promoted.history(office)
    assert (line.policy, line.reason, line.in_force) == (done.policy, "monday", True)


async def test_every_judge_that_follows_is_named(office, write, told):
    """And it is no error to deploy what is in force."""
    told.says = {1: follows}
    first = await deploy(office, write("a"))
    again = await deploy(office, write("a"))

    assert [(one.judge, one.state, one.policy) for one in first.judges] == [
        (1, "runs", first.policy)]  # fmt: skip
    assert again.in_force
    assert again.number == first.number
    assert len(promoted.history(office)) == 1


async def test_a_pool_that_the_settings_lack_is_told_and_keeps_nothing_back(office, write):
    """The rule, its line, the pool and the setting: also before it is done, and on the way back."""
    path = write("a")
    ways = 'then = { verb = "route", pool = "bulk" }'
    path.write_text(path.read_text().replace('then = { verb = "hold" }', ways))
    before = await deploy(office, path, dry_run=True)
    done = await deploy(office, path)
    again = await deploy(office, path)
    await deploy(office, write("b"))
    returned = await back(office)

    assert done.number == 1
    for one in (before, done, again):
        (notice,) = one.notices
        assert (notice.where, notice.rule) == (f"{path}:2", "a")
        assert "pool bulk" in notice.what
        assert "delivery.pools" in notice.what
    assert [one.where for one in returned.notices] == [done.policy[:16]]


async def test_a_pool_of_the_settings_is_no_notice(office, write):
    """Nor is one of a rule that is off."""
    path = write("a")
    has = msgspec.structs.replace(
        office.settings,
        delivery=msgspec.structs.replace(office.settings.delivery, pools={"bulk": ("192.0.2.1",)}),
    )
    ways = 'then = { verb = "route", pool = "bulk" }'
    path.write_text(path.read_text().replace('then = { verb = "hold" }', ways))
    found = await deploy(dataclasses.replace(office, settings=has), path, dry_run=True)
    path.write_text(path.read_text() + 'mode = "off"\n' + RULE.format("b", 1))
    off = await deploy(office, path, dry_run=True)

    assert found.notices == off.notices == []


@pytest.mark.parametrize(
    ("says", "state", "why"),
    [
        (refuses, "refuses", "no fact x"),
        (asleep, "waits", "not taken it"),
        (lambda n, _: {**follows(n, "pol_b"), "killed": {"to": "pol_b"}}, "refuses", "kill --to"),
        (lambda n, _: follows(n + 1, "pol_b"), "refuses", "came after it"),
    ],
)
async def test_a_judge_that_does_not_follow_says_why(office, write, told, says, state, why):
    """One sentence an operator can act on."""
    told.says = {1: says}
    done = await deploy(office, write("a"))

    assert done.judges[0].state == state
    assert why in done.judges[0].why


async def test_a_judge_that_is_silent_while_others_answer(office, write, told, monkeypatch):
    """It follows once it is back; it is not called down."""
    monkeypatch.setattr(judges, "healths", healths_of({1: follows, 2: None}, office))
    done = await deploy(office, write("a"))

    assert [one.state for one in done.judges] == ["runs", "silent"]


def healths_of(says, office):
    async def healths(_):
        last = office.policies.last()
        return {
            i: say(last.number, last.policy) if say and last else None for i, say in says.items()
        }

    return healths


async def test_faults_keep_a_policy_out(office, tmp_path):
    """As `policy check` tells them; nothing is kept."""
    path = tmp_path / "bad.toml"
    path.write_text(RULE.format("a", "no.such"))
    done = await deploy(office, path)

    assert "no fact no.such" in done.faults[0].what
    assert done.policy == ""
    assert office.policies.last() is None


async def test_a_dry_run_changes_nothing(office, write):
    """It checks, and says what it would take the place of."""
    done = await deploy(office, write("a"), dry_run=True)
    assert done.dry_run
    assert office.policies.last() is None
    await deploy(office, write("a"))
    dry = await back(office, dry_run=True)

    assert dry.policy == shipped().hash
    assert len(promoted.history(office)) == 1


async def test_going_back_twice_goes_back_twice(office, write):
    """And not to and fro: the one gone back from was bad. Before the first is the shipped one."""
    a = (await deploy(office, write("a"))).policy
    b = (await deploy(office, write("b"))).policy
    await deploy(office, write("c"))

    assert [(await back(office)).policy for _ in range(3)] == [b, a, shipped().hash]
    assert office.policies.loadable(shipped().hash).bundle == shipped()
    with pytest.raises(Missing, match="no way back"):
        await back(office)


async def test_going_back_before_anything_was_deployed(office):
    """There is nothing before the shipped policy."""
    with pytest.raises(Missing, match="no way back"):
        await back(office)
    assert (await back(office, shipped().hash)).in_force


async def test_back_to_a_named_one_by_the_beginning_of_its_name(office, write):
    """With or without pol_, as long as it is the only one."""
    a = (await deploy(office, write("a"))).policy
    await deploy(office, write("b"))
    assert (await back(office, a[:12])).policy == a
    assert (await back(office, a[4:].upper()[:8])).in_force

    with pytest.raises(Missing, match="ever promoted"):
        await back(office, "pol_" + "0" * 64)
    for words in ("pol_", "ab", "x" * 8, "pol_ ab!"):
        with pytest.raises(Misused, match="names no policy"):
            await back(office, words)


def test_an_ambiguous_name_is_told():
    """All that it may mean."""
    known = ["pol_" + "ab" * 32, "pol_" + "ab" * 31 + "cd"]

    with pytest.raises(Misused, match=r"beginning of 2: pol_abab.*, pol_abab"):
        promoted.chosen("abab", known)
    assert promoted.chosen("ab" * 32, known) == known[0]


async def test_sets_that_are_no_longer_kept_are_told(office, write, monkeypatch):
    """The way back from there is the file."""
    a = (await deploy(office, write("a"))).policy
    await deploy(office, write("b"))
    monkeypatch.setattr(office.policies, "loadable", lambda _: None)

    with pytest.raises(Missing, match="deploy it anew"):
        await back(office, a)


@given(st.lists(st.tuples(st.sampled_from("dr"), st.sampled_from("ABC")), max_size=12))
def test_the_way_back_ends_at_what_is_in_force(steps):
    """Whatever operators did, the trail ends there, and never has one twice in a row."""
    made = [
        Deployment(n, "deploy" if verb == "d" else "rollback", name, 0, "op")
        for n, (verb, name) in enumerate(steps, 1)
    ]
    way = deploying.trail(made)

    assert way[-1:] == [made[-1].policy] if made else way == []
    assert all(one != other for one, other in itertools.pairwise(way))


async def test_status_has_what_is_in_force_and_what_judges_make_of_it(office, write, told):
    """In the documented shape; a judge that does not follow is told with its reason."""
    done = await deploy(office, write("a"), "monday")
    told.says = {1: refuses}
    now = await promoted.status(office)

    assert (now.promoted, now.candidate, now.barred) == (done.policy, None, [])
    assert (now.deployment, now.by, now.reason, now.rules) == (1, "op", "monday", {"enforce": 1})
    assert now.judges == {"1": "pol_old"}
    assert (now.states[0].state, now.states[0].why) == ("refuses", "there is no fact x")


async def test_status_without_tables_is_what_judges_run(office, told, monkeypatch):
    """Tables that cannot be read are no reason to know nothing."""

    def dead():
        raise OSError("disk I/O error")

    told.says = {1: follows}
    monkeypatch.setattr(office.policies, "last", dead)
    told.office = type("Other", (), {"policies": type("None", (), {"last": lambda _: None})()})

    assert (await promoted.status(office)).promoted == shipped().hash


async def test_a_policy_is_shown_as_it_was_written(office, write):
    """That in force, a named one, and the shipped one."""
    assert "[[rule]]" in promoted.show(office, "").source
    a = (await deploy(office, write("a"))).policy
    await deploy(office, write("b"))

    assert promoted.show(office, "").source == write("b").read_text()
    assert promoted.show(office, a[:16]).source == write("a").read_text()
