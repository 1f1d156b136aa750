"""Promoted policies outlive crashes, damage, and a new release."""

import os
import random

import pytest
from tests.effort import THOROUGH
from tests.storage.damage import harm

from postweir.judge.bundles import KEPT, OPERATOR, SHIPPED, Bundles, seen
from postweir.judge.bundles import shipped_whole as shipped
from postweir.judge.ports import Loadable
from postweir.policy.bundle import Bundle, Rule, Set, name_of, set_bytes, set_name
from postweir.runtime import frames
from postweir.runtime.log import quiet


def policy(name: str) -> Loadable:
    return Loadable(Bundle((Rule(name, "true", "hold"),)))


def with_sets(name: str, *keys: str) -> Loadable:
    data = [set_bytes(frozenset({key})) for key in keys]
    sets = tuple(Set(f"s{n}", "url_hosts", set_name(one), 1) for n, one in enumerate(data))
    return Loadable(Bundle((Rule(name, "true", "hold"),), sets=sets),
                    {set_name(one): one for one in data})  # fmt: skip


@pytest.fixture
def bundles(tmp_path):
    return Bundles(tmp_path / "policy" / "1", quiet())


def test_the_shipped_policy_is_there_from_the_first_start(bundles, tmp_path):
    """It is installed, and a second start finds it."""
    assert bundles.begin(shipped()) == [shipped()]
    assert os.readlink(tmp_path / "policy" / "1" / "promoted") == shipped().policy
    assert bundles.begin(shipped()) == [shipped()]


def test_a_newer_release_brings_its_policy_but_not_over_an_operators(bundles):
    """Only a shipped policy is followed by a shipped one."""
    bundles.promote(policy("old-release"), SHIPPED)
    assert bundles.begin(shipped()) == [shipped(), policy("old-release")]

    bundles.promote(policy("ours"), OPERATOR)
    assert bundles.begin(policy("new-release"))[0] == policy("ours")


def test_three_are_kept(bundles, tmp_path):
    """The promoted one and two before it, and no file more."""
    for name in ("a", "b", "c", "d"):
        bundles.promote(policy(name), OPERATOR)

    assert bundles.begin(shipped()) == [policy("d"), policy("c"), policy("b")]
    assert len(list((tmp_path / "policy" / "1").glob("pol_*"))) == KEPT


def test_a_damaged_bundle_is_not_run(bundles, tmp_path):
    """One bit is enough: the one before it judges."""
    bundles.promote(policy("a"), OPERATOR)
    bundles.promote(policy("b"), OPERATOR)
    path = tmp_path / "policy" / "1" / policy("b").policy
    path.write_bytes(path.read_bytes().replace(b'"hold"', b'"told"'))

    assert bundles.begin(shipped()) == [policy("a")]
    assert path.with_name(f"damaged-{path.name}").exists()
    assert bundles.begin(shipped()) == [policy("a")]


def test_a_damaged_history_costs_nothing_that_is_whole(bundles, tmp_path):
    """Without it, what is whole on the disk still judges."""
    bundles.promote(policy("a"), OPERATOR)
    (tmp_path / "policy" / "1" / "history").write_bytes(b"[[")

    assert bundles.begin(shipped()) == [policy("a")]


def test_a_damaged_shipped_policy_is_made_anew(bundles, tmp_path):
    """We have it whole: nothing older judges in its place."""
    bundles.promote(policy("old-release"), SHIPPED)
    bundles.begin(shipped())
    path = tmp_path / "policy" / "1" / shipped().policy
    path.write_bytes(path.read_bytes()[:-1])

    assert bundles.begin(shipped())[0] == shipped()
    assert path.exists()


def test_any_damage_of_any_file_is_found(tmp_path):
    """A bit, a cut, zeros, in bundles and history: only what was promoted judges, with an alarm."""
    promoted = [with_sets("c", "x", "z"), with_sets("b", "x", "y"), policy("a")]
    found: list[list[Loadable]] = []
    for seed in range(150 if THOROUGH else 30):
        rng, log = random.Random(seed), Told()
        folder = tmp_path / str(seed)
        bundles = Bundles(folder, log)
        for one in reversed(promoted):
            bundles.promote(one, OPERATOR)
        path = rng.choice(sorted(p for p in folder.iterdir() if not p.is_symlink()))
        harm(path, rng)
        found.append(bundles.begin(shipped()))

        assert found[-1]
        assert all(one in [*promoted, shipped()] for one in found[-1])
        assert found[-1] == promoted or log.errors
    assert any(one[0] == promoted[1] for one in found), "no promoted one was ever damaged"


class Told:
    """A log that keeps its alarms."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, event: str, **_: object) -> None:
        self.errors.append(event)

    def info(self, *_: object, **__: object) -> None:
        pass


def test_a_crash_at_any_point_leaves_a_whole_policy(bundles, monkeypatch):
    """Stopped before any of its system calls, a promotion has happened or not."""
    bundles.promote(policy("a"), OPERATOR)
    real = os.fsync
    for stop in range(1, 10):
        calls = 0

        def counted(descriptor, stop=stop):
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            real(descriptor)

        monkeypatch.setattr(os, "fsync", counted)
        try:
            bundles.promote(policy(f"b{stop}"), OPERATOR)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(os, "fsync", real)
        found = bundles.begin(shipped())
        assert found[0] in (policy("a"), policy(f"b{stop}"), policy(f"b{stop - 1}"))
    assert stop > 3


def test_a_disk_that_cannot_be_written(tmp_path):
    """It judges from memory."""
    (tmp_path / "policy").write_text("in the way")
    bundles = Bundles(tmp_path / "policy" / "1", quiet())

    assert bundles.begin(shipped()) == [shipped()]


def test_a_policy_comes_back_with_its_sets(bundles, tmp_path):
    """What two policies share is kept once, and what none uses any more goes."""
    bundles.promote(with_sets("a", "x", "y"), OPERATOR)
    bundles.promote(with_sets("b", "x"), OPERATOR)
    assert bundles.whole() == [with_sets("b", "x"), with_sets("a", "x", "y")]
    for name in ("c", "d", "e"):
        bundles.promote(policy(name), OPERATOR)

    assert list((tmp_path / "policy" / "1").glob("set_*")) == []


@pytest.mark.parametrize("harmed", ["cut", "gone", "other"])
def test_without_one_of_its_sets_a_policy_is_not_run(bundles, tmp_path, harmed):
    """Rules on half a set would decide wrongly: the one before judges."""
    bundles.promote(policy("a"), OPERATOR)
    bundles.promote(with_sets("b", "x"), OPERATOR)
    path = next((tmp_path / "policy" / "1").glob("set_*"))
    if harmed == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if harmed == "cut" else b"w\n")

    assert bundles.begin(shipped()) == [policy("a")]


def test_one_that_was_gone_back_from_is_tried_last(bundles):
    """A damaged file must not bring back what an operator threw out."""
    for name in ("a", "b", "c"):
        bundles.promote(policy(name), OPERATOR)
    for _ in range(2):  # done twice, it is not undone
        bundles.promote(policy("b"), OPERATOR, back=True)

    assert bundles.whole() == [policy("b"), policy("a"), policy("c")]


def test_a_folder_of_the_version_before(bundles, tmp_path):
    """Bundles of its format, without sets: run under the names that they have."""
    old = {"dialect": "cel-1", "format": 1, "schema": "fs_x", "rules": [
        {"code": "", "help": "", "id": "a", "mode": "enforce", "on_error": "skip", "owner": "",
         "retry_after_s": 0, "severity": "", "text": "", "verb": "hold", "when": "true"},
    ]}  # fmt: skip
    data = frames.json(old)
    folder = tmp_path / "policy" / "1"
    folder.mkdir(parents=True)
    (folder / name_of(data)).write_bytes(data)
    (folder / "history").write_bytes(frames.json([[name_of(data), OPERATOR]]))
    (found,) = bundles.begin(shipped())

    assert (found.policy, found.canonical) == (name_of(data), data)
    assert found.bundle.rules[0].verb == "hold"


def test_the_shipped_policy_that_an_operator_deployed_is_the_operators(bundles):
    """A newer release leaves it alone: somebody chose it."""
    bundles.begin(shipped())
    bundles.promote(shipped(), OPERATOR)

    assert bundles.begin(policy("new-release"))[0] == shipped()


def test_a_full_disk_leaves_what_was_there(bundles, monkeypatch):
    """Wherever the room ends, what was promoted before is whole."""
    bundles.promote(with_sets("a", "x"), OPERATOR)
    real = os.fsync
    for room in range(1, 8):
        left = room

        def full(descriptor):
            nonlocal left
            left -= 1
            if not left:
                raise OSError(28, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        try:
            bundles.promote(with_sets("b", "y"), OPERATOR)
        except OSError:
            pass
        finally:
            monkeypatch.setattr(os, "fsync", real)
        assert bundles.whole()[0] in (with_sets("a", "x"), with_sets("b", "y"))
        assert with_sets("a", "x") in bundles.whole()


def test_commands_see_what_is_kept_and_change_nothing(bundles, tmp_path):
    """Another's folder: a damaged bundle is passed over and left where it is."""
    bundles.promote(policy("a"), OPERATOR)
    bundles.promote(policy("b"), OPERATOR)
    folder = tmp_path / "policy" / "1"
    (folder / policy("b").policy).write_bytes(b"{}")
    before = sorted(path.name for path in folder.iterdir())

    assert [name for name, _ in seen(folder)] == [policy("a").policy]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert seen(tmp_path / "none") == []
