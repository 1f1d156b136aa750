"""A policy is checked in a process of its own, with a bound on its time."""

import sys

import pytest

from postweir.judge import trial
from postweir.judge.bundles import shipped_text
from postweir.judge.checking import check

HANG = "import time; time.sleep(60)"


@pytest.mark.real
def test_the_shipped_policy_is_good():
    """What comes with the package passes its own check."""
    assert check(shipped_text(), "default.toml").faults == ()


@pytest.mark.real
def test_a_bad_condition_is_told_with_its_line():
    """The example of the settings' users: a misspelt fact."""
    text = shipped_text().replace("usage.messages_1h > limit.s", "usage.mesages_1h > limit.s")

    (fault,) = check(text, "p.toml").faults
    assert fault.rule == "sender-over-limit"
    assert fault.where.startswith("p.toml:")
    assert fault.do == "did you mean usage.messages_1h?"


@pytest.mark.real
def test_a_policy_that_hangs_or_ends_the_compiler_is_a_fault(monkeypatch):
    """The command comes back, whatever the policy does to the engine."""
    monkeypatch.setattr(trial, "LOAD_S", 0.3)

    for command in ((sys.executable, "-c", HANG), (sys.executable, "-c", "")):
        (fault,) = check(shipped_text(), "p.toml", command=command).faults
        assert "in time" in fault.what


def test_a_text_that_is_no_policy_starts_no_process():
    """Faults of form are told at once."""
    (fault,) = check("[[rule", "p.toml", command=("/nonexistent",)).faults

    assert "not TOML" in fault.what
