"""Other people's SMTP suites and every known smuggling sequence, over the wire."""

import json
import smtplib
import subprocess
import sys
import tarfile

import pytest
from tests.harness import CORPORA, TOOLS, letter, scene, wait_for

pytestmark = pytest.mark.real


def run(on, *words, out):
    """Run the foreign-suite runner against us; returns its records."""
    if not (TOOLS / "mpt_runner.py").exists():
        pytest.skip("../shared/tools/mpt_runner.py is not here")
    done = subprocess.run(
        [sys.executable, str(TOOLS / "mpt_runner.py"), words[0], "--host", "127.0.0.1",
         "--port", str(on.here.port), "--auth", f"{on.username}:{on.secret}",
         "--mail-from", "joe@customer.example", "--rcpt", "kim@fine.example",
         "--timeout", "10", "--level", "class", "--out", str(out), *words[1:]],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    print(done.stdout[-3000:], done.stderr[-2000:])
    return [json.loads(line) for line in out.read_text().splitlines()]


def unpacked(tmp_path, name):
    """Unpack one corpus into a scratch folder."""
    archive = CORPORA / f"{name}.tar.xz"
    if not archive.exists():
        pytest.skip(f"../shared/corpora/{name}.tar.xz is not here")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / name


def still_serves(on, token):
    """After all of that, an ordinary message goes through."""
    smtp = on.connect()
    smtp.mail("joe@customer.example")
    smtp.rcpt("kim@fine.example")
    assert smtp.data(letter(token))[0] == 250
    smtp.quit()
    wait_for(lambda: token in on.arrived(), 20, "the ordinary message")


@pytest.mark.parametrize("habit", ["refuse", "normalise"])
def test_nothing_is_smuggled(habit, tmp_path):
    """No fake end of data makes a second message, whatever becomes of a bare CR or LF."""
    with scene() as on:
        on.here.run("account", "set", "acme", f"bare_newline={habit}")
        records = run(on, "smuggle", out=tmp_path / "out.jsonl")
        still_serves(on, "after")
        kinds = {r["result"].split()[0] for r in records}

        assert len(records) > 10
        assert kinds <= ({"rejected"} if habit == "refuse" else {"rejected", "one"})
        assert not [m for m in on.world.arrived if m.mail_from.startswith("smuggled")]


# What these scripts want of the server they were written for, and we do not do. All else agrees.
OTHERWISE = {
    "auth_not_tls.cmy": "these tests allow AUTH without TLS on loopback",
    "starttls_session_fixation.test": "logs in as a user of its own server",
    "bad_data.cmy": "a header line without a colon passes, byte for byte",
    "authplain.test": "AUTH before EHLO, which RFC 4954 does not have",
    "starttls_with_injection.test": "we close with 554 where it wants a 4xx",
}


def test_foreign_scripts(tmp_path):
    """Other servers' conversations: what they promise their clients, ours get too."""
    with scene(edge={"message_bytes_max": 1024 * 1024}) as on:
        on.here.run("account", "set", "acme", "networks=127.0.0.1/32")
        wait_for(lambda: relays_unasked(on), 2, "the network is known")
        before = pids(on)
        folder = unpacked(tmp_path, "protocol")
        # Addresses stand in brackets, RFC 5321 4.1.2; chasquid takes them without.
        bracketed = "RCPT TO: user@testserver=>RCPT TO:<kim@fine.example>"
        out = tmp_path / "out.jsonl"
        records = run(on, "script", str(folder), "--sub", bracketed, out=out)
        still_serves(on, "after")
        failed = {r["file"].rpartition("/")[2]: r for r in records if r["result"] == "FAIL"}
        hung = [r for r in records if "timeout" in json.dumps(r).lower()]

        assert len(records) > 20
        assert set(failed) <= set(OTHERWISE), failed
        assert not hung
        assert pids(on) == before


def test_foreign_fuzz_seeds(tmp_path):
    """Fuzz seeds of other servers: every reply well formed, no hang, no process lost."""
    with scene() as on:
        before = pids(on)
        records = run(on, "raw", str(unpacked(tmp_path, "protocol")), out=tmp_path / "out.jsonl")
        still_serves(on, "after")

        assert len(records) > 10
        assert {r["result"] for r in records} == {"ok"}
        assert pids(on) == before


def relays_unasked(on):
    """True when mail from this address needs no AUTH."""
    with smtplib.SMTP("127.0.0.1", on.here.port, timeout=20) as smtp:
        smtp.ehlo()
        return smtp.mail("joe@customer.example")[0] == 250


def pids(on):
    """Return the process numbers: a crash would change one."""
    return [on.here.process(kind) for kind in ("edge", "judge", "spool", "delivery")]
