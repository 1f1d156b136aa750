"""Other people's SMTP suites and every known smuggling sequence, over the wire."""

import base64
import json
import smtplib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.fuzz.corpora import conversations
from tests.harness import CORPORA, TOOLS, letter, scene, wait_for

ROOT = Path(__file__).parent.parent.parent

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
    """No fake end of data makes a second message: each lone CR or LF is refused, or made a line.

    An account that says `normalise` still has a message with a NUL refused.
    """
    with scene(start=False) as on:
        on.here.run("account", "set", "acme", f"bare_newline={habit}")
        on.here.start()  # now, so that its first message finds the account as it was set
        records = run(on, "smuggle", "--settle", "0.3", out=tmp_path / "out.jsonl")
        still_serves(on, "after")
        first = [record["codes"][0] for record in records]
        arrived = list(on.world.arrived)

        assert len(records) == 14
        assert all(len(record["codes"]) == 1 for record in records), "more was answered than asked"
        assert {code // 100 for code in first} == ({5} if habit == "refuse" else {2, 5})
        assert first.count(250) == (0 if habit == "refuse" else 12)
        assert len(arrived) == first.count(250) + 1
        assert {one.mail_from for one in arrived} == {"joe@customer.example"}
        for one in arrived[:-1]:
            assert has_no_strays(one.content)
            assert b"\r\n\r\nsecond\r\n" in one.content, "the inner one is text of the outer"


def has_no_strays(content):
    """True when each CR stands before an LF, and each LF behind a CR."""
    left = content.replace(b"\r\n", b"")
    return b"\r" not in left and b"\n" not in left


# What these scripts want of the server they were written for, and we do not do. All else agrees.
# docs/testing.md has them too.
OTHERWISE = {
    "auth_not_tls.cmy": "these tests allow AUTH without TLS on loopback",
    "auth_too_many_failures.cmy": "twenty errors end a talk here, not three",
    "authplain.test": "AUTH before EHLO, which RFC 4954 does not have",
    "bad_data.cmy": "a header line without a colon passes, byte for byte",
    "starttls_with_injection.test": "we close with 554 where it wants a 4xx",
}


def test_foreign_scripts(tmp_path):
    """Other servers' conversations: what they promise their clients, ours get too."""
    with scene(edge={"message_bytes_max": 1024 * 1024}) as on:
        on.here.run("account", "set", "acme", "networks=127.0.0.1/32")
        wait_for(lambda: relays_unasked(on), 2, "the network is known")
        before = pids(on)
        folder = unpacked(tmp_path, "protocol")
        words = [f"--sub={old}=>{new}" for old, new in ours_for_theirs(on)]
        words += ["--tls-port", str(on.here.port_tls)]
        records = run(on, "script", str(folder), *words, out=tmp_path / "out.jsonl")
        still_serves(on, "after")
        failed = {r["case"]: r["why"] for r in records if r["result"] == "FAIL"}
        stuffed = [one.content for one in on.world.arrived if b"This is stuffy." in one.content]
        verified = (folder / "chasquid" / "data_dot_stuffing.cmy.verify").read_bytes()

        assert len(records) == 25
        assert {r["result"] for r in records} == {"pass", "FAIL"}
        assert set(failed) == set(OTHERWISE), failed
        assert not [why for why in failed.values() if "timeout" in why]
        assert [one.endswith(of_lines(verified)) for one in stuffed] == [True]
        assert pids(on) == before


def ours_for_theirs(on):
    """Give what is ours for names and secrets of their own servers, to be put into the scripts."""
    # Addresses stand in brackets, RFC 5321 4.1.2; chasquid takes them without.
    yield "RCPT TO: user@testserver", "RCPT TO:<kim@fine.example>"
    theirs = b"user@testserver\0user@testserver\0secretpassword"
    yield coded(theirs), coded(f"\0{on.username}\0{on.secret}".encode())
    yield coded(b"bob@mydomain.tld"), coded(on.username.encode())
    yield coded(b"secret"), coded(on.secret.encode())


def coded(data):
    """Return base64."""
    return base64.b64encode(data).decode()


def of_lines(text):
    """Return a file of lines as a message has them."""
    return text.replace(b"\n", b"\r\n")


def test_the_page_says_which_differ():
    """docs/testing.md lists the scripts that differ, each with its reason, and no others."""
    page = (ROOT / "docs" / "testing.md").read_text()
    table = page.partition("| script | why |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]

    assert {name.strip("`"): why for name, why in rows} == OTHERWISE


def test_foreign_fuzz_seeds(tmp_path):
    """Fuzz seeds of other servers: every reply well formed, no hang, no process lost.

    As they are, most end at their first bare LF; so they come as conversations, too.
    """
    with scene() as on:
        before = pids(on)
        folder = unpacked(tmp_path, "protocol")
        as_is = run(on, "raw", str(folder), "--settle", "0.2", out=tmp_path / "1.jsonl")
        talks = spoken(tmp_path / "talks")
        spoken_to = run(on, "raw", str(talks), "--settle", "0.02", out=tmp_path / "2.jsonl")
        still_serves(on, "after")
        answered = sum(len(record["codes"]) for record in spoken_to)

        assert len(as_is) > 40
        assert len(spoken_to) > 30
        assert {record["result"] for record in as_is + spoken_to} == {"ok"}
        assert answered > 150
        assert pids(on) == before


def spoken(folder):
    """Write the conversations of the corpus so that the runner sends them a piece at a time."""
    folder.mkdir()
    for number, talk in enumerate(conversations()):
        pieces = [f'[]byte("{_escaped(piece)}")' for piece in talk.split(b"\xfe") if piece]
        (folder / f"{number:02}").write_text("\n".join(["go test fuzz v1", *pieces]) + "\n")
    return folder


def _escaped(data):
    return "".join(f"\\x{byte:02x}" for byte in data)


def relays_unasked(on):
    """True when mail from this address needs no AUTH."""
    with smtplib.SMTP("127.0.0.1", on.here.port, timeout=20) as smtp:
        smtp.ehlo()
        return smtp.mail("joe@customer.example")[0] == 250


def pids(on):
    """Return the process numbers: a crash would change one."""
    return [on.here.process(kind) for kind in ("edge", "judge", "spool", "delivery")]
