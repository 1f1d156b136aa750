"""A real installation on a small disk of its own that fills, is frozen, fails; and few descriptors.

The disk is an image on a loop device, which takes root; it is always thawed, unmounted and removed.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.harness import Load, Scene, letter, scene, wait_for

pytestmark = pytest.mark.real

MIB = 1024 * 1024
RESERVE = 48 * MIB
TOOLS = ("mkfs.ext4", "mount", "umount", "losetup", "fsfreeze", "e2fsck")
needs_disk = pytest.mark.skipif(
    os.geteuid() != 0
    or not Path("/dev/loop-control").exists()
    or not all(map(shutil.which, TOOLS)),
    reason="needs root, loop devices and e2fsprogs: mounts an image of its own",
)


class Disk:
    """A small file system."""

    def __init__(self, folder: Path, mib: int) -> None:
        self.image, self.at = folder / "image", folder / "disk"
        with self.image.open("wb") as file:
            file.truncate(mib * MIB)
        _do("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", str(self.image))
        self.at.mkdir()
        self.device = ""

    def mount(self) -> None:
        _do("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.at))
        found = _do("losetup", "-n", "-O", "NAME", "-j", str(self.image))
        self.device = Path(found.split()[0]).name

    def unmount(self) -> None:
        self.thaw()
        words = ["umount", str(self.at)]

        def gone() -> bool:  # it is busy until the last process has ended
            subprocess.run(words, capture_output=True, check=False)
            return not os.path.ismount(self.at)

        wait_for(gone, 10, "unmounted")

    def freeze(self) -> None:
        _do("fsfreeze", "-f", str(self.at))

    def thaw(self) -> None:
        subprocess.run(["fsfreeze", "-u", str(self.at)], capture_output=True, check=False)

    def break_down(self) -> None:
        """Let the kernel find an error in it: it aborts the journal, and writes nothing more."""
        Path(f"/sys/fs/ext4/{self.device}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        done = subprocess.run(["e2fsck", "-fy", str(self.image)], capture_output=True, check=False)
        assert done.returncode < 4, done.stdout

    @property
    def free(self) -> int:
        found = os.statvfs(self.at)
        return found.f_bavail * found.f_frsize

    def fill(self, free: int) -> None:
        """Leave so much; whoever writes meanwhile may make it less."""
        with (self.at / "filler").open("ab") as file:
            while (size := self.free - free) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), min(size, 8 * MIB))
                except OSError:
                    if size < MIB:
                        return
                file.seek(0, os.SEEK_END)

    def empty(self) -> None:
        (self.at / "filler").unlink()


def _do(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="pwd-"))
    one = Disk(folder, 192)
    one.mount()
    try:
        yield one
    finally:
        with contextlib.suppress(AssertionError):
            one.unmount()
        if os.path.ismount(one.at):
            subprocess.run(["umount", "-l", str(one.at)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def on(disk) -> Iterator[Scene]:
    """One installation for all that befalls the disk; each test leaves it well."""
    with scene(
        storage={"data": str(disk.at / "var")},
        spool={"free_bytes_min": RESERVE},
        judge={"wait_ms": 1000},
    ) as made:
        yield made


def send(smtp: smtplib.SMTP, token: str, to: str = "kim@fine.example", size: int = 100) -> int:
    """Send one message as far as it goes; returns the last code."""
    code, _ = smtp.mail("joe@customer.example")
    if code == 250:
        code, _ = smtp.rcpt(to)
    if code == 250:
        code, _ = smtp.docmd("DATA")
    if code != 354:
        smtp.docmd("RSET")
        return code
    smtp.send(letter(token, "\r\n".join(["x" * 70] * (size // 72 + 1))) + b".\r\n")
    return smtp.getreply()[0]


def offered(on) -> int:
    """Return what DATA is answered now, and how fast."""
    with contextlib.closing(on.connect()) as smtp:
        smtp.mail("joe@customer.example")
        smtp.rcpt("kim@fine.example")
        began = time.monotonic()
        code = smtp.docmd("DATA")[0]
        assert time.monotonic() - began < 0.5
    return code


def said(on, *words: str) -> str:
    """Return the lines of the log that have one of these words."""
    lines = on.here.log.read_text().splitlines()
    return "\n".join([one for one in lines if any(word in one for word in words)][:30])


def health(on) -> dict:
    page = f"http://127.0.0.1:{on.here.port_metrics}/health"
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            return json.load(answer)["processes"]
    except urllib.error.HTTPError as answer:
        return json.load(answer)["processes"]


@needs_disk
def test_a_full_disk_that_empties_again(on, disk):
    """452 before 354, for a size too; delivery makes room, and mail is taken again."""
    shard = on.here.process("spool")
    on.here.run("queue", "suspend", "--domain", "slow.example", "--reason", "test")
    with Load(on, threads=2, name="full") as load:
        smtp = on.connect()
        for n in range(8):
            assert send(smtp, f"large{n}", "kim@slow.example", 4 * MIB) == 250
        # A message that says how large it is: refused before its bytes come.
        disk.fill(RESERVE + 30 * MIB)
        wait_for(lambda: announced(on, 40 * MIB) == 452, 3, "452 for what has no room")
        assert announced(on, 1 * MIB) == 354
        disk.fill(RESERVE - 12 * MIB)
        wait_for(lambda: offered(on) == 452, 3, "452 before 354")
        before = len(load.promised)
        wait_for(lambda: set(load.promised) <= set(on.arrived()), 10, "what was taken leaves")
        assert send(smtp, "more") == 452
        # What delivery gets rid of is what makes the room.
        on.here.run("queue", "resume", "--domain", "slow.example", "--reason", "test")
        wait_for(lambda: len(load.promised) > before + 20, 15, "mail is taken again by itself")
        # 421: a connection that asks a hundred times
        assert set(load.refused) <= {452, 421}, said(on, "code=451", "latched")
    assert on.here.process("spool") == shard
    smtp.close()
    on.settled()

    arrived = on.arrived()
    promised = set(load.promised) | {f"large{n}" for n in range(8)}
    assert promised - set(arrived) == set()
    assert max(arrived.values()) == 1


def announced(on, size: int) -> int:
    """Return the first refusal of a message that says its size so, or 354."""
    with contextlib.closing(on.connect()) as smtp:
        code, _ = smtp.mail("joe@customer.example", [f"SIZE={size}"])
        if code == 250:
            smtp.rcpt("kim@fine.example")
            code, _ = smtp.docmd("DATA")
    return code


@needs_disk
def test_a_disk_with_no_byte_left(on, disk):
    """Outcomes wait, so nothing more is sent; nothing is lost or doubled; one write opens it."""
    text = on.here.config.read_text()
    on.here.config.write_text(text.replace(f"free_bytes_min = {RESERVE}", "free_bytes_min = 0"))
    on.here.run("reload")
    shards = [on.here.process("spool", k) for k in (1, 2)]
    with Load(on, threads=3, size=20_000, name="zero") as load:
        load.reach(30)
        disk.fill(0)
        wait_for(lambda: any(p.get("reason") == "full" for p in health(on).values()), 10, "full")
        wait_for(lambda: offered(on) == 452, 5, "452 before 354")
        turned = sum(load.refused.values())
        wait_for(lambda: sum(load.refused.values()) > turned + 5, 5, "they try on")
        disk.empty()
        before = len(load.promised)
        wait_for(lambda: len(load.promised) > before + 30, 10, "mail is taken again by itself")
        assert set(load.refused) <= {421, 451, 452}
    assert [on.here.process("spool", k) for k in (1, 2)] == shards, "a shard died of it"
    on.settled()

    assert "spool.latched" in on.here.log.read_text()
    arrived = on.arrived()
    assert set(load.promised) - set(arrived) == set()
    assert max(arrived.values()) == 1


@needs_disk
def test_a_disk_that_hangs(on, disk):
    """Its syncs do not return: 451 at once before 354, bounded after the dot; it comes back."""
    with Load(on, threads=3, name="hang") as load:
        load.reach(30)
        disk.freeze()
        try:
            wait_for(lambda: offered(on) == 451, 5, "451 before 354")
            why = {p.get("reason") for n, p in health(on).items() if n.startswith("spool")}
            assert why == {"held up"}
            arrived = len(on.world.arrived)
            time.sleep(1.0)  # a second of load on a frozen disk
            assert len(on.world.arrived) == arrived, "sent, and nobody could record it"
        finally:
            disk.thaw()
        before = len(load.promised)
        wait_for(lambda: len(load.promised) > before + 30, 10, "mail is taken again by itself")
    on.settled()

    assert load.slowest_s < 10
    found = on.arrived()
    assert set(load.promised) - set(found) == set()
    assert max(found.values()) == 1


@needs_disk
def test_a_disk_that_breaks_down(on, disk):
    """The kernel makes it read-only: 451 at once, an alarm; after a check all is there."""
    with Load(on, threads=3, name="broken") as load:
        load.reach(50)
        disk.break_down()
        wait_for(lambda: offered(on) == 451, 5, "451 before 354")
        sent = len(on.world.arrived)
        wait_for(lambda: load.refused[451] > 20, 5, "they try on, and are answered")
        assert set(load.refused) <= {421, 451}
        time.sleep(2.5)  # past the time in which a killed shard comes back
        last = len(on.world.arrived)
        time.sleep(0.5)
        assert len(on.world.arrived) == last, "sent, and nobody could record it"
        assert last - sent <= 2000
    log = on.here.log.read_text()
    assert "spool.fault" in log or "spool.place" in log
    on.here.stop()
    disk.unmount()
    disk.repair()
    disk.mount()
    on.here.start()
    with on.connect() as smtp:
        wait_for(lambda: send(smtp, "after") == 250, 10, "mail is taken again")
    on.settled()

    found = on.arrived()
    assert set(load.promised) - set(found) == set()


def test_few_descriptors():
    """At its bound 421 at once; out of them nothing spins or is lost; given some, all goes on."""
    with scene(
        judge={"wait_ms": 1000}, edge={"workers": 1, "connections_per_client_max": 1000}
    ) as on:
        _limit(on.here._process.pid, 400, hard=400)
        old = on.here.process("edge")
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: _edge_of(on) not in (None, old), 5, "a new edge")
        smtp = None
        while smtp is None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                smtp = on.connect()
        idle = [_greeting(on.here.port) for _ in range(90)]
        codes = [code for _, code in idle]
        assert 421 in codes, codes
        assert codes.count(220) < 72, "more than its descriptors are enough for"
        for one, _ in idle:
            one.close()
        edge, delivery = on.here.process("edge"), on.here.process("delivery")
        spools = [on.here.process("spool", k) for k in (1, 2)]
        wait_for(lambda: _descriptors(edge) < 60, 5, "they are gone")
        was = {pid: _limit(pid, _descriptors(pid)) for pid in (edge, delivery, *spools)}
        assert send(smtp, "small") == 250
        assert send(smtp, "large", size=300_000) == 451
        idle = [_greeting(on.here.port, 0.5) for _ in range(2)]
        assert 220 not in [code for _, code in idle]
        for one, _ in idle:
            one.close()
        spent = _ticks(edge) + _ticks(delivery)
        time.sleep(1.0)  # a second in which an accept that fails could be tried for ever
        assert _ticks(edge) + _ticks(delivery) - spent < 50, "half of a processor, for nothing"
        for pid, limits in was.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert send(smtp, "again", size=300_000) == 250
        assert offered(on) == 354
        smtp.close()
        on.settled()

        assert set(on.arrived()) == {"small", "again"}
        assert max(on.arrived().values()) == 1


def _edge_of(on) -> int | None:
    with contextlib.suppress(LookupError):
        return on.here.process("edge")
    return None


def _limit(pid: int, soft: int, *, hard: int | None = None) -> tuple[int, int]:
    """Let a process have only so many descriptors; returns what it might have before."""
    was = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    return resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard or was[1]))


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _ticks(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def _greeting(port: int, wait_s: float = 5.0) -> tuple[socket.socket, int]:
    one = socket.create_connection(("127.0.0.1", port), timeout=wait_s)
    try:
        said = one.recv(3)
    except OSError:
        said = b""
    return one, int(said) if said.isdigit() else 0
