"""What a judge knows of a sender outlives it: nothing that the shards have is lost."""

import os
import signal

import pytest
from demo.installation import wait_for
from tests.harness import letter, scene

from postweir.runtime import frames
from postweir.runtime.metrics import asked

pytestmark = pytest.mark.real

LIMIT = 10


def health(on) -> dict:
    body = asked(on.here.folder / "var" / "run" / "judge-1.port", "/health", 1.0)
    return frames.from_json(body, dict) if body else {}


def known(on) -> bool:
    return bool(health(on).get("usage_known"))


def sent(smtp, first: int, count: int) -> list[int]:
    """Send messages; returns what was answered."""
    codes = []
    for n in range(first, first + count):
        smtp.mail("joe@customer.example")
        smtp.rcpt(f"u{n}@fine.example")
        smtp.docmd("DATA")
        smtp.send(letter(f"t{n}") + b".\r\n")
        codes.append(smtp.getreply()[0])
    return codes


def judged(on, probe) -> bool:
    """True when a message of another account is judged at once: the edge hears the judge."""
    probe.mail("probe@other.example")
    probe.rcpt("kim@fine.example")
    probe.docmd("DATA")
    probe.send(letter("probe") + b".\r\n")
    name = probe.getreply()[1].decode().split()[-1]
    return f"event=edge.accepted message={name}" in on.here.tail(20)


def again(on, probe, sign: int) -> None:
    """End the judge, and wait until another one knows all, and is asked."""
    before = on.here.process("judge")
    os.kill(before, sign)

    def back() -> bool:
        try:
            return on.here.process("judge") != before and known(on)
        except LookupError:
            return False

    wait_for(back, 20, "another judge that knows the levels")
    wait_for(lambda: judged(on, probe), 10, "the edge asks it")


def test_levels_after_kill_and_after_stop():
    """A sender that sent N has sent N, whether its judge left a snapshot or not; N + 1 is late."""
    with scene(judge={"wait_ms": 5000}) as on:
        on.here.run("account", "set", "acme", f"sender_messages_1h={LIMIT}")
        wait_for(lambda: known(on), 10, "levels are known")
        smtp = on.connect()
        on.username, on.secret = on.here.customer("other")
        probe = on.connect()
        wait_for(lambda: judged(on, probe), 10, "the edge asks the judge")
        assert sent(smtp, 0, 6) == [250] * 6

        again(on, probe, signal.SIGKILL)  # without a snapshot: from the shards alone
        assert sent(smtp, 6, 2) == [250] * 2
        again(on, probe, signal.SIGTERM)  # from the snapshot that it leaves
        assert (on.here.folder / "var" / "judge" / "1" / "levels").exists()
        assert sent(smtp, 8, 1) == [250]
        again(on, probe, signal.SIGKILL)  # from an older snapshot and the shards
        assert sent(smtp, 9, 3) == [250, 450, 450]
        assert on.settled()["accounts"]["acme"]["delivered"] == LIMIT
        smtp.close()
        probe.close()
