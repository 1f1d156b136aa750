"""Promoted policies outlive crashes, damage, and a new release."""

import os
import random

import pytest
from tests.effort import THOROUGH
from tests.storage.damage import harm

from postweir.judge.bundles import KEPT, OPERATOR, SHIPPED, Bundles, shipped
from postweir.policy.bundle import Bundle, Rule
from postweir.runtime.log import quiet


def policy(name: str) -> Bundle:
    return Bundle((Rule(name, "true", "hold"),))


@pytest.fixture
def bundles(tmp_path):
    return Bundles(tmp_path / "policy" / "1", quiet())


def test_the_shipped_policy_is_there_from_the_first_start(bundles, tmp_path):
    """It is installed, and a second start finds it."""
    assert bundles.begin(shipped()) == [shipped()]
    assert os.readlink(tmp_path / "policy" / "1" / "promoted") == shipped().hash
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
    path = tmp_path / "policy" / "1" / policy("b").hash
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
    path = tmp_path / "policy" / "1" / shipped().hash
    path.write_bytes(path.read_bytes()[:-1])

    assert bundles.begin(shipped())[0] == shipped()
    assert path.exists()


def test_any_damage_of_any_file_is_found(tmp_path):
    """A bit, a cut, zeros, in bundles and history: only what was promoted judges, with an alarm."""
    promoted = [policy("c"), policy("b"), policy("a")]
    found: list[list[Bundle]] = []
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
