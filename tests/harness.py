"""What tests of real processes share: an installation, the world, a customer's load, an oracle."""

import contextlib
import shutil
import smtplib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.installation import Installation, certificate, free_port, wait_for
from demo.sink import Sink, World

__all__ = [
    "Installation", "Load", "Scene", "certificate", "field_of", "free_port", "scene", "unsure",
    "wait_for",
]  # fmt: skip

CORPORA = Path(__file__).parent.parent.parent / "shared" / "corpora"
TOOLS = CORPORA.parent / "tools"


@dataclass
class Scene:
    """One installation with a customer, and the world it delivers to."""

    here: Installation
    sink: Sink
    sink_port: int
    username: str = ""
    secret: str = ""

    @property
    def world(self) -> World:
        return self.sink.world

    def connect(self, timeout: float = 30) -> smtplib.SMTP:
        """Return a logged-in connection (plain: these tests allow AUTH on loopback)."""
        smtp = smtplib.SMTP("127.0.0.1", self.here.port, "mail.customer.example", timeout=timeout)
        try:
            smtp.login(self.username, self.secret)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def arrived(self) -> Counter[str]:
        """Return how often each `X-Token` reached the world."""
        return Counter(token_of(one.content) for one in list(self.world.arrived))

    def audit(self) -> dict[str, Any]:
        """Return the ledger."""
        found: dict[str, Any] = self.here.json("audit", status=None)
        return found

    def settled(self, seconds: float = 60) -> dict[str, Any]:
        """Wait until nothing is queued or pending; returns the ledger, which must close."""
        ledger: dict[str, Any] = {}

        def done() -> bool:
            ledger.update(self.audit())
            return ledger["queued"] == ledger["pending"] == 0

        wait_for(done, seconds, f"everything settled; ledger {ledger}")
        assert ledger["residual"] == 0, ledger
        return ledger


@contextlib.contextmanager
def scene(
    *,
    start: bool = True,
    route: dict[str, str] | None = None,
    sink: Sink | None = None,
    environment: dict[str, str] | None = None,
    **changes: dict[str, Any],
) -> Iterator[Scene]:
    """Give a running installation in a short-named folder; shows its log when a test fails.

    All mail goes to the scene's sink, unless `route` says something else.
    """
    folder = Path(tempfile.mkdtemp(prefix="pw-"))
    sink, port = sink or Sink(World()), free_port()
    sink.open(port)
    changes = {
        **changes,
        "edge": {"auth_without_tls_on_loopback": True, **changes.get("edge", {})},
        "delivery": {"retry_s": [0.2], **changes.get("delivery", {})},
    }
    route = {"*": f"127.0.0.1:{port}"} if route is None else route
    here = Installation(folder, route=route, **changes)
    here.environment |= environment or {}
    try:
        with here:
            if start:
                here.start()
            username, secret = here.customer("acme", "sender_messages_1h=1000000")
            yield Scene(here, sink, port, username, secret)
    except (GeneratorExit, KeyboardInterrupt, SystemExit):  # somebody has seen enough
        raise
    except BaseException:
        print(here.tail(60))
        raise
    finally:
        sink.close()
        shutil.rmtree(folder, ignore_errors=True)


def field_of(line: str, name: str) -> str:
    """Return one bare field of a log line."""
    return line.partition(f"{name}=")[2].partition(" ")[0]


def unsure(log: str) -> int:
    """Return how many accepts a log says nobody knows about: each may come again, and double."""
    return sum(
        int(field_of(line, "open") or 0)
        for line in log.splitlines()
        if field_of(line, "event") in ("spool.unknown", "spool.silent")
    )


def token_of(content: bytes) -> str:
    """Return the `X-Token` of a message, whatever stands before it."""
    return content.partition(b"X-Token: ")[2].partition(b"\r\n")[0].decode()


def letter(token: str, text: str = "Hello.", **headers: str) -> bytes:
    """Return a small message that carries a token."""
    extra = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    return (
        f"From: <joe@customer.example>\r\nTo: <kim@fine.example>\r\nSubject: {token}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{token}@customer.example>\r\n"
        f"X-Token: {token}\r\n{extra}\r\n{text}\r\n"
    ).encode()


@dataclass
class Load:
    """Threads that send without a pause, and what they were told."""

    scene: Scene
    threads: int = 4
    size: int = 1500
    name: str = "t"  # what its tokens begin with
    promised: dict[str, str] = field(default_factory=dict)  # token → id: every 250
    unknown: set[str] = field(default_factory=set)  # connection lost after the data was sent
    turned_away: dict[str, int] = field(default_factory=dict)  # token → code, after the data
    refused: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._running = [
            threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(self.threads)
        ]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(60)

    def reach(self, count: int, seconds: float = 60) -> None:
        """Wait until so many messages were promised."""
        wait_for(lambda: len(self.promised) >= count, seconds, f"{count} promised")

    def _send(self, number: int) -> None:
        sent = 0
        while not self._stop.is_set():
            try:
                smtp = self.scene.connect()
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)
                continue
            with contextlib.suppress(OSError, smtplib.SMTPException):
                while not self._stop.is_set():
                    sent += 1
                    self.send_one(smtp, f"{self.name}{number}-{sent}")
            smtp.close()

    def send_one(self, smtp: smtplib.SMTP, token: str) -> None:
        """Send one message and write down what came of it."""
        smtp.mail("joe@customer.example")
        code, _ = smtp.rcpt("kim@fine.example")
        if code != 250:
            self.refused[code] += 1
            smtp.rset()
            return
        code, _ = smtp.docmd("DATA")
        if code != 354:
            self.refused[code] += 1
            smtp.rset()
            return
        began = time.monotonic()
        self.unknown.add(token)
        smtp.send(letter(token, "x" * self.size) + b".\r\n")
        code, said = smtp.getreply()
        self.unknown.discard(token)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if code == 250:
            self.promised[token] = said.decode().rpartition(" ")[2]
        else:
            self.turned_away[token] = code
            self.refused[code] += 1
