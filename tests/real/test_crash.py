"""A minute of all attacks on the promise behind a 250; `make crash` goes on for longer."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash import tally

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60


def test_nothing_is_lost_in_a_minute_of_attacks(tmp_path):
    """Hundreds of lives, thousands of messages; an attack that this machine cannot make is said."""
    path = tmp_path / "tally.jsonl"
    words = ["--seconds", str(SECONDS), "--tally", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 120, check=False,
    )  # fmt: skip
    totals = {one.attack: one for one in tally.totals(tally.read(path))}

    assert done.returncode == 0, done.stdout + done.stderr
    for attack in ("kill", "cut"):  # these two every machine can make
        assert totals[attack].lives >= 15, done.stdout
        assert totals[attack].acked >= 500, done.stdout
