"""Promoted policies outlive crashes, damage, and a new release."""

import os

import pytest

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
    path.unlink()
    assert bundles.begin(shipped()) == [policy("a")]


def test_a_damaged_history_costs_nothing_that_is_whole(bundles, tmp_path):
    """Without it, what is whole on the disk still judges."""
    bundles.promote(policy("a"), OPERATOR)
    (tmp_path / "policy" / "1" / "history").write_bytes(b"[[")

    assert bundles.begin(shipped()) == [policy("a")]


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
