"""All scanners are asked; one that fails or is silent costs a finding, not the answer."""

import threading
import time

import pytest

from postweir.runtime.log import quiet
from postweir.scan.content import GTUBE, Content
from postweir.scan.finding import Finding
from postweir.scan.panel import Panel

SPAM = b"Subject: x\r\n\r\n" + GTUBE


class Broken:
    name, version, instant = "broken", "1", True

    def scan(self, message):
        raise RuntimeError("no")


class Silent:
    name, version, instant = "silent", "7", False

    def __init__(self):
        self.let_go = threading.Event()

    def scan(self, message):
        self.let_go.wait(10)
        return [Finding(self.name, "spam", "late", 1.0, self.version)]


@pytest.fixture
def panel():
    made = []

    def make(*scanners):
        made.append(Panel(scanners, quiet()))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def test_a_small_message_is_looked_at_here(panel):
    """No thread for what takes microseconds; a scanner that fails is `unavailable`."""
    both = panel(Broken(), Content())

    assert both.may_look_now(SPAM)
    found = both.look_now(SPAM, 1.0)
    assert {(f.scanner, f.kind) for f in found.findings} == {
        ("content", "spam"), ("broken", "unavailable"),
    }  # fmt: skip
    assert found.message is not None


async def test_a_silent_scanner_costs_its_finding_only(panel):
    """At the deadline what others found is there, and the silent one is `unavailable`."""
    silent = Silent()
    both = panel(Content(), silent)
    assert not both.may_look_now(SPAM)
    began = time.monotonic()

    found = await both.examine(SPAM, 0.05)

    assert time.monotonic() - began < 1.0
    assert [(f.scanner, f.kind) for f in found.findings] == [
        ("content", "spam"), ("silent", "unavailable"),
    ]  # fmt: skip
    silent.let_go.set()


async def test_a_large_body_in_a_file(panel, tmp_path):
    """A body in a file is read, and a link or a missing file is an error that can be told."""
    path = tmp_path / "body"
    path.write_bytes(SPAM + b"\r\n" + b"x" * 100_000)
    link = tmp_path / "link"
    link.symlink_to(path)
    one = panel(Content())

    found = await one.examine(path, 2.0)
    assert found.message is not None
    assert [f.kind for f in found.findings] == ["spam"]
    with pytest.raises(OSError, match="symbolic"):
        await one.examine(link, 2.0)
    with pytest.raises(FileNotFoundError):
        await one.examine(tmp_path / "gone", 2.0)
