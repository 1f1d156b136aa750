"""The commands as they are typed: what they print, and the status they end with."""

import contextlib
import io
import json
import subprocess
import sys

import pytest
import rich.text
from tests.desk.office import HOLD, accept, name, refusal
from tests.desk.office import office as open_office

from postweir.cli import app, printing
from postweir.cli.words import Doors
from postweir.desk.ports import Unreadable


class Typed:
    """Types commands into an office of its own."""

    def __init__(self, office, config):
        self.office, self._config = office, config
        self.ups, self.processes = [], []
        self.opening = None  # what opening the office raises

    def __call__(self, *words, config=True):
        """Return (status, standard output, standard error)."""

        @contextlib.asynccontextmanager
        async def opened(_):
            if self.opening:
                raise self.opening
            yield self.office

        doors = Doors(opened, lambda p: self.ups.append(p) or 0,
                      lambda w: self.processes.append(w) or 0)  # fmt: skip
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            given = [*words, "-c", str(self._config)] if config else words
            status = app.main(given, doors)
        return status, out.getvalue(), err.getvalue()

    def json(self, *words):
        status, out, _ = self(*words, "--json")
        assert out.count("\n") == 1, "one line, and nothing else"
        return status, json.loads(out)


@pytest.fixture
def typed(tmp_path):
    office = open_office(tmp_path / "data")
    config = tmp_path / "postweir.toml"
    config.write_text('[edge]\nlisten = ["127.0.0.1:0"]\n[metrics]\nlisten = "127.0.0.1:0"\n')
    yield Typed(office, config)
    office.shards.close()


def fill(typed, shard, *changes):
    typed.office.shards.stores[shard].commit(list(changes))


def whole(text):
    """True when no command's sentence is cut."""
    return not any(line.endswith("...") for line in text.splitlines() if "ARGS" not in line)


def test_help_names_every_command_and_exit_status(typed):
    """`postweir --help` reads well and fits a terminal."""
    status, out, _ = typed("--help", config=False)

    assert status == 0
    for word in ("up", "reload", "check", "edge", "judge", "spool", "delivery", "watch", "account",
                 "credential", "sender", "policy", "message", "queue", "audit"):  # fmt: skip
        assert f"\n  {word} " in out
    assert whole(out)
    for part in app.PARTS:
        assert f"\n{part}:\n" in out
    assert "  2  wrong words, settings or policy" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("noun", ["account", "credential", "sender", "policy", "message", "queue"])
def test_every_noun_explains_itself(typed, noun):
    """Alone it is a wrong use that answers with its verbs; --help is no wrong use."""
    status, out, err = typed(noun, config=False)
    assert (status, out) == (2, "")
    assert "Commands:" in err
    status, out, _ = typed(noun, "--help", config=False)

    assert status == 0
    assert whole(out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["acount"], "Did you mean 'account'?"),
        (["queue", "lst"], "Did you mean 'ls'?"),
        (["queue", "ls", "--domian", "x"], "--domain"),
        (["queue", "ls", "--limit", "0"], "--limit"),
        (["message", "show"], "Missing argument 'ID'"),
        (["account", "show", "a", "b"], "unexpected"),
        (["message", "show", "nope"], "no message id"),
        (["account", "add", "Bad Name"], "cannot name an account"),
        (["sender", "stop", "x|y"], "names no sender"),
    ],
)
def test_wrong_words_are_one_line_and_status_2(typed, words, says):
    """What is wrong, and where to read how it goes; nothing on standard output."""
    status, out, err = typed(*words)

    assert (status, out) == (2, "")
    assert err.startswith("postweir: ")
    assert err.count("\n") == 1
    assert says in err


def test_account_and_credential(typed):
    """The first things an operator types."""
    status, out, _ = typed("account", "add", "acme", "lifetime_s=3600")
    assert status == 0
    assert "credential add acme" in out
    status, made = typed.json("credential", "add", "acme")
    assert set(made) == {"account", "username", "secret"}
    assert made["account"] == "acme"
    status, out, _ = typed("credential", "ls")
    assert made["username"] in out
    assert made["secret"] not in out
    status, out, err = typed("credential", "add", "acme")
    assert out.splitlines()[2].startswith("secret ")
    assert "only a hash" in err
    status, out, _ = typed("account", "show", "acme")
    assert "lifetime_s          3600\n" in out
    status, shown = typed.json("account", "show", "acme")
    assert shown["settings"]["lifetime_s"] == 3600
    assert typed("account", "show", "other")[0] == 1
    dry = typed("credential", "revoke", "acme", made["username"], "--dry-run")
    assert dry[:2] == (0, f"would revoke {made['username']}\n")
    assert typed("credential", "revoke", "acme", made["username"])[0] == 0
    assert typed("credential", "revoke", "acme", made["username"])[0] == 1
    assert typed("account", "suspend", "acme", "--reason", "unpaid")[0] == 0
    assert typed("account", "ls")[1].splitlines()[1].split()[:3] == ["acme", "suspended", "1"]
    assert typed("account", "resume", "acme")[0] == 0


def test_senders(typed):
    """Stop needs a reason; show and ls tell it."""
    typed("account", "add", "acme")
    key = "acme|sasl|joe"
    assert typed("sender", "stop", key)[0] == 2
    assert typed("sender", "stop", key, "--reason", "spam")[1] == f"{key} stopped\n"
    assert typed.json("sender", "show", key)[1]["state"] == "stopped"
    assert typed.json("sender", "ls", "--state", "stopped")[1][0]["sender"] == key
    assert typed("sender", "allow", key)[0] == 0


def test_message_show(typed):
    """A story for people, the documented shape for scripts, 1 for what is not there."""
    fill(typed, 1, accept(1), refusal(2))
    status, out, _ = typed("message", "show", name(1))
    assert status == 0
    assert "verdict accept of pol_aaaaaaaaaaaa" in out
    assert "kim@fine.example" in out
    assert "\x1b" not in out  # a finding of the fixture holds an escape: it is shown, not sent
    status, shown = typed.json("message", "show", name(1))
    assert shown["recipients"][0]["state"] == "queued"
    assert typed.json("message", "show", name(2))[1]["state"] == "refused"
    assert "refused at verdict" in typed("message", "show", name(2))[1]
    status, out, err = typed("message", "show", name(9), "--json")

    assert (status, out) == (1, "")
    assert "no message" in err


def test_message_and_queue_verbs(typed):
    """Count, do, and say what waits for whom."""
    typed("account", "add", "acme")
    fill(typed, 1, accept(1, ["a@x.example", "b@x.example"]), accept(2, verdict=HOLD))
    assert typed("message", "drop", name(1))[0] == 2
    assert typed("message", "drop", name(1), "--dry-run")[1] == (
        f"would drop {name(1)} for 2 recipients\n"
    )
    assert "done (request 1)" in typed("message", "drop", name(1), "--reason", "x")[1]
    assert typed("message", "drop", name(1), "--reason", "x")[0] == 1
    assert typed("message", "release", name(2), "--reason", "x")[0] == 0
    assert typed("message", "retry", name(2))[0] == 0
    rows = typed.json("queue", "ls")[1]
    assert [row["id"] for row in rows] == [name(2)]
    assert typed("queue", "show")[1].splitlines()[1].split()[:2] == ["fine.example", "1"]
    typed("queue", "suspend", "--account", "acme")
    assert " suspended " in typed("queue", "ls")[1]
    typed("queue", "resume", "--account", "acme")
    typed.office.shards.down = {2}
    status, out, _ = typed("queue", "suspend", "--domain", "x.example", "--reason", "y")

    assert status == 0
    assert "not yet done by shard 2" in out
    assert typed("queue", "resume", "--domain", "x.example")[0] == 0
    assert typed("queue", "retry", "--account", "acme", "--dry-run")[1] == (
        "would retry 1 recipient of account=acme\n"
    )
    assert typed("queue", "drop", "--account", "acme")[0] == 2
    assert typed.json("queue", "drop", "--account", "acme", "--reason", "z")[1]["number"] == 8


def test_audit(typed):
    """0 when it closes, 1 when not, 2 when a shard is unreadable; a last line `residual`."""
    fill(typed, 1, accept(1))
    status, out, _ = typed("audit")
    assert status == 0
    assert out.splitlines()[-1] == "residual 0"
    status, shown = typed.json("audit")
    keys = ["accepted", "delivered", "bounced", "refused", "dropped", "held", "queued", "pending",
            "residual"]  # fmt: skip
    assert [shown[key] for key in keys] == [1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert shown["accounts"]["acme"]["queued"] == 1
    typed.office.shards.down = typed.office.shards.unreadable = {2}
    status, out, err = typed("audit")

    assert status == 2
    assert "acme" in out
    assert "shard 2" in err


def test_check_and_settings_faults(typed, tmp_path):
    """File, line, what to do; exit 2; for people and for scripts."""
    assert typed("check")[0] == 0
    config = tmp_path / "postweir.toml"
    config.write_text("[edge]\nhostnam = 'x'\n")
    status, out, _ = typed("check")
    assert status == 2
    assert out.splitlines()[0] == f"{config}:2: edge.hostnam is not known"
    assert out.splitlines()[1] == "    did you mean hostname?"
    status, shown = typed.json("check")
    assert (status, shown["ok"]) == (2, False)
    assert shown["faults"][0]["where"] == f"{config}:2"


def test_policy(typed, tmp_path):
    """new does not overwrite, check names line and remedy, status has the documented shape."""
    made = tmp_path / "p.toml"
    assert typed("policy", "new", str(made), config=False)[0] == 0
    assert typed("policy", "new", str(made), config=False)[0] == 2
    status, out, _ = typed("policy", "check", str(made), config=False)
    assert status == 0
    assert ": good, pol_" in out
    made.write_text('[[rule]]\nid = "x"\nwhen = "true"\nthen = { verb = "acept" }\n')
    status, out, _ = typed("policy", "check", str(made), config=False)
    assert status == 2
    assert out.startswith(f"{made}:4: rule x: ")
    assert typed("policy", "check", str(tmp_path / "none"), config=False)[0] == 3
    status, shown = typed.json("policy", "status")
    assert {"promoted", "candidate", "stage", "share", "barred"} <= set(shown)
    assert shown["candidate"] is None


def test_policy_test(typed, tmp_path):
    """Each test is told; one that fails says what its facts made of each part of the condition."""
    text = (
        '[[rule]]\nid = "x"\nwhen = "body.parts > 3 && text.html"\nthen = { verb = "hold" }\n'
        "[[rule.test]]\nfacts = { body.parts = 4, text.html = true }\n"
        '[[rule.test]]\nname = "plain"\nfacts = { body.parts = 4 }\n'
    )
    path = tmp_path / "p.toml"

    path.write_text(text + "matches = false\n")
    status, out, _ = typed("policy", "test", str(path), config=False)
    assert (status, out) == (0, "ok      x, test 1\nok      x, test 2: plain\n2 tests, all ok\n")
    path.write_text(text)
    status, out, _ = typed("policy", "test", str(path), config=False)
    assert status == 1
    assert out.splitlines()[1:] == [
        "failed  x, test 2: plain",
        f"        {path}:7: it should be true, and is false",
        "        with body.parts = 4",
        "        true   body.parts > 3",
        "        false  text.html",
        "2 tests, 1 failed",
    ]
    status, shown = typed.json("policy", "test", str(path))
    assert (status, shown["ok"], [one["ok"] for one in shown["tests"]]) == (1, False, [True, False])
    assert shown["tests"][1]["parts"][1] == {"text": "text.html", "came": "false"}
    path.write_text(text + "[[rule.test]]\nfacts = { body.parts = 4, text.html = true }\n")
    _, out, _ = typed("policy", "test", str(path), config=False)
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["ok", "ok", "failed"]
    path.write_text(text.replace("body.parts >", "body.part >"))
    status, out, _ = typed("policy", "test", str(path), config=False)
    assert status == 2
    assert "did you mean body.parts?" in out
    path.write_text(text.partition("[[rule.test]]")[0])
    status, out, _ = typed("policy", "test", str(path), config=False)
    assert (status, "there are no tests" in out) == (0, True)


def test_reload_without_a_service(typed):
    """The answer is no, and how to start it."""
    status, _, err = typed("reload")

    assert status == 1
    assert "postweir up" in err


def test_up_and_the_processes_are_handed_over(typed, tmp_path):
    """The commands know no process: they pass the words on."""
    assert typed("up")[0] == 0
    assert typed.ups == [tmp_path / "postweir.toml"]
    assert typed("judge", "--index", "2")[0] == 0
    assert typed.processes == [["judge", "--index", "2", "-c", str(tmp_path / "postweir.toml")]]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (OSError("disk I/O error"), 3),
        (Unreadable("shard 1 is gone"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_trouble_is_one_line_and_never_a_traceback(typed, fault, status):
    """Whatever breaks below, the operator gets a sentence."""
    typed.opening = fault
    ended, out, err = typed("account", "ls")

    assert (ended, out) == (status, "")
    assert "Traceback" not in err
    assert "Errno" not in err


def test_our_own_bugs_are_not_hidden(typed):
    """A bug of ours is no trouble of the operator's: it must show."""
    typed.opening = RuntimeError("bug")

    with pytest.raises(RuntimeError):
        typed("account", "ls")


def test_control_characters_never_reach_the_terminal():
    """A remote's reply cannot colour, clear or retitle anything."""
    assert printing.tame("a\x1b[2Jb\r\nc\x00\x9b\u202e") == "a\\x1b[2Jb\\r\\nc\\x00\\x9b\\u202e"


def test_tables_are_aligned_and_whole_in_a_pipe(capsys):
    """Plain text, no colour, no cut ids, numbers to the right."""
    printing.table(("id", "count"), [("a" * 120, 5), ("b", 12345)])
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == "id" + " " * 120 + "count"
    assert lines[1] == "a" * 120 + "      5"
    assert lines[2] == "b" + " " * 121 + "12345"


def test_a_terminal_gets_a_table_with_whole_ids(monkeypatch):
    """However narrow it is, an id is never cut or wrapped."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with contextlib.redirect_stdout(screen):
        printing.table(("message", "state", "reply"),
                       [("0q3v0e0000g00001", "bounced", "550 " + "no such user " * 9)],
                       fold="reply")  # fmt: skip
    shown = screen.getvalue()

    assert "0q3v0e0000g00001" in shown
    assert "\x1b[31mbounced" in shown
    assert shown.count("no such") > 1


def test_a_terminal_shows_numbers_to_the_right_and_no_heading_cut(monkeypatch):
    """The ledger in eighty columns, and whole in forty too."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for columns in ("80", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("LINES", "25")
        monkeypatch.setenv("TERM", "xterm")
        screen = Terminal()
        with contextlib.redirect_stdout(screen):
            printing.table(("account", "accepted", "residual"),
                           [("acme", 12345, 0), ("a" * 40, 1, 0)])  # fmt: skip
        shown = rich.text.Text.from_ansi(screen.getvalue()).plain
        lines = [line.rstrip() for line in shown.splitlines()]
        assert lines[0].split() == ["account", "accepted", "residual"]
        assert lines[2].split() == ["acme", "12345", "0"]
        for heading, number in (("accepted", "12345"), ("residual", "0")):
            end = lines[0].index(heading) + len(heading)
            assert lines[2][:end].endswith(number)


def test_progress_is_for_who_looks_on(monkeypatch):
    """Not for a file, not more often than anybody reads; and the line is left empty."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(printing, "PROGRESS_S", 0.0)
    for screen, shown in ((Terminal(), "\rkills: 3 of 9\x1b[K\r\x1b[K"), (io.StringIO(), "")):
        with contextlib.redirect_stderr(screen):
            progress = printing.Progress()
            progress.of("kills", 3, 9)
            monkeypatch.setattr(printing, "PROGRESS_S", 60.0)
            progress.of("kills", 4, 9)
            progress.end()
        assert screen.getvalue() == shown
        monkeypatch.setattr(printing, "PROGRESS_S", 0.0)


def test_what_stands_before_the_verb_is_explained(typed):
    """The first thing everybody types wrong."""
    status, out, err = typed("-c", "x.toml", "audit", config=False)

    assert (status, out) == (2, "")
    assert "-c; it stands after the verb" in err


def test_a_terminal_gets_a_story_that_goes_on_below_its_beginning(monkeypatch):
    """A long line in eighty columns never starts where the times stand."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with contextlib.redirect_stdout(screen):
        printing.told([("12:00Z", "word " * 30), ("12:00Z", "  from there")], "  ")
    lines = screen.getvalue().splitlines()

    assert lines[0].startswith("12:00Z  word")
    assert {line[:8] for line in lines[1:]} == {" " * 8}
    assert max(map(len, lines)) <= 60


def run(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "postweir", *words], capture_output=True, text=True, timeout=60,
        check=False, **more,
    )  # fmt: skip


@pytest.mark.real
def test_the_real_thing_without_a_service(tmp_path):
    """`python -m postweir` finds its settings, makes its tables, and says what is wrong."""
    assert run("account", "ls", cwd=tmp_path).returncode == 2
    (tmp_path / "postweir.toml").write_text("")
    assert run("account", "add", "acme", cwd=tmp_path).returncode == 0
    listed = run("account", "ls", "--json", cwd=tmp_path)
    assert json.loads(listed.stdout)[0]["account"] == "acme"
    audit = run("audit", cwd=tmp_path)
    assert (audit.returncode, audit.stdout.splitlines()[-1]) == (0, "residual 0")


def test_closed_streams_are_quiet(tmp_path):
    """A caller that closed them wants no words, and gets the exit status."""
    (tmp_path / "postweir.toml").write_text("")
    line = f"{sys.executable} -m postweir account ls >&-; echo $?"
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip

    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr


def test_an_audit_of_nothing_is_no_closed_ledger(tmp_path):
    """`storage.data` with a slip of the pen: 2, and not a ledger of zeros that closes."""
    (tmp_path / "postweir.toml").write_text('[storage]\ndata = "vra"\n')
    audit = run("audit", cwd=tmp_path)

    assert audit.returncode == 2
    assert audit.stdout.splitlines()[-1] == "residual 0 in what could be read"
    assert "no data directory" in audit.stderr


def test_a_closed_pipe_is_quiet(tmp_path):
    """`postweir … | head -1` complains about nothing."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m postweir --help | true"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stderr == ""
