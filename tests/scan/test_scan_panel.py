"""All scanners are asked; one that fails or is silent costs a finding, not the answer."""

import asyncio
import gc
import threading
import time

import pytest

from postweir.mail.domains import Domains
from postweir.runtime.log import quiet
from postweir.scan import panel as panels
from postweir.scan.attachments import Attachments
from postweir.scan.content import GTUBE, Content
from postweir.scan.finding import Finding, Seen
from postweir.scan.header import Header
from postweir.scan.links import Links
from postweir.scan.panel import Panel
from postweir.scan.text import Text

SPAM = b"Subject: x\r\n\r\n" + GTUBE
NEWSLETTER = (
    b"From: Shop <news@shop.example>\r\nSubject: x\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nhttps://shop.example/\r\n"
    b'--b\r\nContent-Type: text/html\r\n\r\n<a href="https://shop.example/">shop.example</a>\r\n'
    b"--b\r\nContent-Type: application/zip; name=a.zip\r\n\r\nPK\x03\x04\r\n--b--\r\n"
)


class Broken:
    name, version, instant, facts = "broken", "1", True, {}

    def scan(self, message):
        raise RuntimeError("no")


class Silent:
    name, version, instant, facts = "silent", "7", False, {}

    def __init__(self):
        self.let_go = threading.Event()

    def scan(self, message):
        self.let_go.wait(10)
        return Seen([Finding(self.name, "spam", "late", 1.0, self.version)])


@pytest.fixture
def panel():
    made = []

    def make(*scanners):
        made.append(Panel(scanners, quiet()))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_message_leaves_no_circle_behind(panel):
    """What was looked at is gone when it is let go: the judge looks for garbage seldom."""
    domains = Domains()
    every = panel(
        Header(domains), Content(), Text(), Links("", quiet(), domains), Attachments()
    )  # fmt: skip
    every.look_now(NEWSLETTER)
    gc.collect()

    gc.disable()
    try:
        found = every.look_now(NEWSLETTER)
        assert found.message is not None
        assert [part.content_type for part in found.message.parts][3:] == ["application/zip"]
        del found
        assert gc.collect() == 0
    finally:
        gc.enable()


async def test_a_small_message_is_looked_at_here(panel):
    """No thread for what takes microseconds; a scanner that fails is `unavailable`."""
    both = panel(Broken(), Content())

    assert both.may_look_now(SPAM)
    found = both.look_now(SPAM)
    assert {(f.scanner, f.kind) for f in found.findings} == {
        ("content", "spam"), ("broken", "unavailable"),
    }  # fmt: skip
    assert found.message is not None


class Quoting:
    name, version, instant, facts = "quoting", "1", True, {}

    def scan(self, message):
        b"a secret \xff".decode()


def test_what_a_scanner_stumbled_over_is_not_logged():
    """An exception may quote the message: the log has its kind, and where it came from."""
    said = []
    log = type("Log", (), {"warning": lambda _, event, **fields: said.append((event, fields))})()
    panel = Panel([Quoting()], log)
    panel.look_now(SPAM)
    panel.close()

    ((event, fields),) = said
    assert event == "scan.unavailable"
    assert "secret" not in str(fields)
    assert fields["fault"].startswith("UnicodeDecodeError at test_scan_panel.py:")


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


class Stuck(Silent):
    """A reader that is stuck on some messages, and notes whom it saw."""

    def scan(self, message):
        if b"slow" in message.data:
            self.let_go.wait(10)
        return Seen()


async def test_slow_messages_of_one_account_leave_threads_for_the_others(panel):
    """Eight at once hold two threads of four: the next account's is read, the ninth is not."""
    stuck = Stuck()
    one = panel(stuck)
    slow = [asyncio.create_task(one.examine(b"\r\nslow", 5.0, "bad")) for _ in range(8)]
    await asyncio.sleep(0)

    good = [await one.examine(b"\r\nx", 5.0, "good") for _ in range(20)]
    ninth = await one.examine(b"\r\nx", 0.01, "bad")

    assert not any(found.cut for found in good)
    assert (ninth.cut, ninth.begun, ninth.message) == (True, False, None)
    stuck.let_go.set()
    assert not any(found.cut for found in await asyncio.gather(*slow))


async def test_a_thread_that_is_late_keeps_its_turn_until_it_ends(panel):
    """Who asked has its answer; the thread is not thought free, or others would queue behind it."""
    stuck = Stuck()
    one = panel(stuck)
    late = await asyncio.gather(*(one.examine(b"\r\nslow", 0.1, "bad") for _ in range(2)))
    refused = await one.examine(b"\r\nx", 0.01, "bad")
    stuck.let_go.set()
    after = await one.examine(b"\r\nx", 5.0, "bad")

    assert all(found.cut for found in late)
    assert not refused.begun
    assert (after.cut, after.begun) == (False, True)


async def test_huge_bodies_are_read_one_at_a_time(panel, monkeypatch):
    """Four of them at once would take gigabytes."""
    monkeypatch.setattr(panels, "HUGE_BYTES", 3)
    stuck = Stuck()
    one = panel(stuck)
    first = asyncio.create_task(one.examine(b"\r\nslow", 5.0, "a"))
    async with asyncio.timeout(5):
        while not one._huge.locked():  # noqa: ASYNC110 - a thread begins
            await asyncio.sleep(0.001)

    second = await one.examine(b"\r\nhuge", 0.02, "b")
    small = await one.examine(b"\r\n", 5.0, "b")
    stuck.let_go.set()

    assert (second.cut, second.message) == (True, None)
    assert not small.cut
    assert not (await first).cut
