"""A real rspamd on the panel: what it says is facts, and its death or silence harms nothing."""

import signal
import smtplib
import time

import pytest
from tests.harness import letter, scene, wait_for
from tests.peers.rspamd import missing, rspamd

pytestmark = pytest.mark.real

ANSWER_S = 2.1 + 0.6  # judge.wait_ms, and what a busy machine adds


def sent(on, token, **headers):
    """Send one message; return its id and how long the answer took."""
    with on.connect() as smtp:
        smtp.mail("joe@acme.example")
        smtp.rcpt("x@sink.example")
        assert smtp.docmd("DATA")[0] == 354
        smtp.send(letter(token, **headers) + b"\r\n.\r\n")
        began = time.monotonic()
        code, said = smtp.getreply()
        took_s = time.monotonic() - began
    assert code == 250, said
    return said.decode().rpartition(" ")[2], took_s


def facts_of(on, message):
    """Return the facts that were recorded, once it is judged."""
    found = {}

    def judged():
        found.update(on.here.json("message", "show", message, "--json"))
        return found["state"] != "pending"

    wait_for(judged, 20, f"{message} is judged")
    return found["facts"], found["findings"]


def test_it_lives_stops_and_dies(tmp_path):
    """Alive: facts, and its rejects refused. Stopped or killed: 250 in time, and back later."""
    if reason := missing():
        pytest.skip(reason)
    with rspamd(tmp_path / "rspamd") as peer, scene(
        judge={"rspamd": peer.url, "wait_ms": 2100, "scan_ms": 2000}
    ) as on:  # fmt: skip
        message, _ = sent(on, "alive", Subject="hello")
        facts, findings = facts_of(on, message)
        assert facts["rspamd.known"] is True
        assert "MIME_GOOD" in facts["rspamd.symbols"]
        assert not [f for f in findings if f["kind"] == "unavailable"]
        with on.connect() as smtp, pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("joe@acme.example", ["x@sink.example"], letter("no", X_Reject="yes"))
        assert refused.value.smtp_error.startswith(b"5.7.1 [SS]")

        peer.signal(signal.SIGSTOP)
        message, took_s = sent(on, "stopped")
        assert took_s < ANSWER_S
        facts, findings = facts_of(on, message)
        assert facts.get("rspamd.known", False) is False
        assert [f["scanner"] for f in findings if f["kind"] == "unavailable"] == ["rspamd"]
        peer.signal(signal.SIGCONT)

        def back():
            message, _ = sent(on, "back")
            return facts_of(on, message)[0].get("rspamd.known", False)

        wait_for(back, 20, "rspamd is asked again")
        peer.stop()
        for number in range(8):
            _, took_s = sent(on, f"dead-{number}")
            assert took_s < ANSWER_S
        assert "event=scan.unavailable" in on.here.log.read_text()
        ledger = on.settled()
        assert ledger["accepted"] == ledger["delivered"]
