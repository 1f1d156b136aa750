"""Who should run, what a reload keeps, and numbers that are never reused."""

import socket
import subprocess
import sys
import threading

import pytest

from postweir.processes import child
from postweir.processes.supervisor import back_off_s, kept, wanted
from postweir.runtime import frames, settings


def made(**sections):
    return frames.convert(sections, settings.Settings)


def test_every_process_that_the_settings_ask_for(tmp_path):
    """A shard file above `spool.shards` still has an owner, which drains it."""
    now = made(storage={"data": str(tmp_path)}, edge={"workers": 2}, spool={"shards": 1})
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "shard-3.db").touch()
    (tmp_path / "spool" / "shard-x.db").touch()

    assert child.shards_total(now) == 3
    assert wanted(now) == [
        ("spool", 1), ("spool", 2), ("spool", 3), ("judge", 1), ("edge", 1), ("edge", 2),
        ("delivery", 1), ("watch", 1),
    ]  # fmt: skip


def test_a_reload_keeps_what_needs_a_restart():
    """The rest is taken."""
    old, new = made(), made(edge={"workers": 4, "recipients_max": 7})
    found = kept(old, new, [k for k in settings.differing(old, new) if k in settings.RESTART])

    assert (found.edge.workers, found.edge.recipients_max) == (1, 7)
    assert settings.differing(old, found) == ["edge.recipients_max"]


def test_who_is_killed_a_few_times_is_back_at_once():
    """A shard's promises wait for it: only what ends again and again is held back, and bounded."""
    waits = [back_off_s(n) for n in range(1, 12)]

    assert waits[:5] == [0.0, 0.0, 0.0, 0.1, 0.2]
    assert waits == sorted(waits)
    assert waits[-1] == back_off_s(10**9) == 5.0


def test_a_process_loads_no_library_for_terminals():
    """What starts again has no tracebacks to draw: a tenth of its start would go to that."""
    code = (
        "import sys; sys.argv = ['postweir', 'spool', '--index', '1', '-c', '/nowhere/at.all']\n"
        "import postweir.__main__ as it; it.main()\n"
        "import postweir.processes.spool, postweir.processes.supervisor\n"
        "found = {n.partition('.')[0] for n in sys.modules if sys.modules[n]}\n"
        "print(sorted(found & {'rich', 'typer', 'click', 'pygments'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n", done


def test_incarnations_rise(tmp_path):
    """Each start gets a number that the last ones had not, over restarts of everything."""
    numbers = [child.next_incarnation(tmp_path) for _ in range(5)]

    assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(5)]
    (tmp_path / "incarnation").write_text("65535\n")
    assert child.next_incarnation(tmp_path) == 0


def test_settings_by_hash(tmp_path):
    """All take the same settings: the ones the link names."""
    (tmp_path / "run").mkdir()
    for workers in (1, 2):
        now = made(storage={"data": str(tmp_path)}, edge={"workers": workers})
        child.write_current(now)

    assert child.read_current(tmp_path / "run") == now
    (tmp_path / "run" / "settings.json").unlink()
    with pytest.raises(OSError, match="settings"):
        child.read_current(tmp_path / "run")


def test_damaged_settings_by_hash_are_made_anew(tmp_path):
    """A byte that changed, a cut, no file: whoever starts next gets those that were checked."""
    (tmp_path / "run").mkdir()
    now = made(storage={"data": str(tmp_path)}, edge={"workers": 3})
    child.write_current(now)
    path = tmp_path / "run" / f"settings-{now.hash}.json"
    whole = path.read_bytes()

    assert not child.keep_current(now)
    for spoilt in (whole.replace(b'"workers":3', b'"workers":4'), whole[:-9], b""):
        path.write_bytes(spoilt)
        with pytest.raises(frames.Torn):
            child.read_current(tmp_path / "run")
        assert child.keep_current(now)
        assert child.read_current(tmp_path / "run") == now
    path.unlink()
    assert child.keep_current(now)


def test_an_address_that_is_still_taken_is_waited_for():
    """Workers of a supervisor that was killed have it for a moment longer."""
    with socket.socket() as dying:
        dying.bind(("127.0.0.1", 0))
        dying.listen()
        host, port = dying.getsockname()
        threading.Timer(0.1, dying.close).start()
        with child._open_listener(host, port) as listener:
            assert listener.getsockname() == (host, port)


def test_an_address_that_stays_taken_is_said(monkeypatch):
    """With its name, for whoever reads the log."""
    monkeypatch.setattr(child, "TAKEN_S", 0.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        text = "{}:{}".format(*other.getsockname())

        with pytest.raises(OSError, match=text):
            child.open_listeners(made(edge={"listen": [text]}))
