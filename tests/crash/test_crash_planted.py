"""The attacks on a shard find bugs: each that is planted, within seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60


@pytest.mark.parametrize(
    ("attack", "bug"),
    [
        ("kill", "answer-early"),
        ("kill", "outcome-forgotten"),
        ("kill", "bounce-forgotten"),
        ("kill", "wrong-bytes"),
        ("cut", "sync-normal"),
        ("cut", "no-directory-sync"),
        ("cut", "no-folder-sync"),
        ("power", "sync-normal"),
    ],
)
def test_a_planted_bug_is_found(attack, bug):
    """With its seed, what was lost, and the folder that shows it."""
    words = ["--only", attack, "--plant", bug, "--seconds", str(SECONDS), "--seed", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 30, check=False,
    )  # fmt: skip
    if "skipped" in done.stdout:
        pytest.skip(done.stdout.splitlines()[0])

    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{attack}: life" in done.stdout
    assert f"replay: python -m tests.crash --only {attack} --seed" in done.stdout
