"""Other people's SMTP suites and every known smuggling sequence, over the wire."""

import json
import subprocess
import sys
import tarfile

import pytest
from tests.harness import CORPORA, TOOLS, letter, scene, wait_for

pytestmark = pytest.mark.real


def runner(on, *words, out):
    """Run the foreign-suite runner against us; returns its records."""
    if not (TOOLS / "mpt_runner.py").exists():
        pytest.skip("../shared/tools/mpt_runner.py is not here")
    done = subprocess.run(
        [sys.executable, str(TOOLS / "mpt_runner.py"), words[0], "--host", "127.0.0.1",
         "--port", str(on.here.port), "--auth", f"{on.username}:{on.secret}",
         "--mail-from", "joe@customer.example", "--rcpt", "kim@fine.example",
         "--timeout", "5", "--level", "class", "--out", str(out), *words[1:]],
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


def test_nothing_is_smuggled(tmp_path):
    """No fake end of data makes a second message."""
    with scene() as on:
        records = runner(on, "smuggle", out=tmp_path / "out.jsonl")
        still_serves(on, "after")

        assert len(records) > 10
        assert not [r for r in records if "smuggled" in json.dumps(r).lower() and r.get("smuggled")]
        assert not [m for m in on.world.arrived if b"smuggle" in m.mail_from.lower().encode()]


@pytest.mark.parametrize("kind", ["raw", "script"])
def test_foreign_suites(kind, tmp_path):
    """Scripts and fuzz seeds of other servers: no hang, no crash, no process lost."""
    with scene(edge={"command_s": 5, "data_s": 5}) as on:
        pids = [on.here.process(k) for k in ("edge", "judge", "spool", "delivery")]
        folder = unpacked(tmp_path, "protocol")
        records = runner(on, kind, str(folder), out=tmp_path / "out.jsonl")
        still_serves(on, "after")

        assert records
        assert not [r for r in records if "timeout" in json.dumps(r).lower()]
        assert pids == [on.here.process(k) for k in ("edge", "judge", "spool", "delivery")]
