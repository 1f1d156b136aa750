"""Killing needs one small file and nothing else, and only ever takes away."""

import os
import threading

import pytest

from postweir.desk import judges, killing
from postweir.desk.killing import Asked
from postweir.desk.ports import Missing, Misused, Unreadable
from postweir.judge import kills
from postweir.judge.bundles import OPERATOR, Bundles
from postweir.judge.ports import Loadable
from postweir.policy.bundle import Bundle, Rule
from postweir.runtime import frames
from postweir.runtime.log import quiet

RULE = Asked(rules=("spam",))
OFF = Asked(engine_off=True)


@pytest.fixture
def path(office):
    return office.settings.data / "policy" / "kill.toml"


def names(done):
    return [one.what for one in done.kills]


async def kill(office, asked, reason=""):
    return await killing.kill(office, asked, reason)


async def test_a_kill_is_written_with_its_reason(office, path):
    """For whoever finds it: what, why, who, when; and a line in the audit log."""
    done = await kill(office, RULE, "refuses invoices")

    assert names(done) == ["rule spam"]
    assert done.warnings == []
    now = kills.parse(path.read_bytes())
    assert (now.rules, now.kills[0].reason, now.kills[0].by) == (["spam"], "refuses invoices", "op")
    ((_, note),) = office.tables.notes(0, 10)
    assert (note.verb, note.object, note.reason) == ("policy kill", "rule spam", "refuses invoices")


async def test_more_is_added_and_cleared_piece_by_piece(office, path):
    """And when the last is cleared, the file is gone."""
    await kill(office, RULE)
    done = await kill(office, Asked(rules=("url-listed",), engine_off=True))
    assert names(done) == ["rule spam", "rule url-listed", "the engine"]
    done = await killing.clear(office, Asked(rules=("spam",)), "")
    assert (names(done), done.cleared) == (["rule url-listed", "the engine"], 1)
    done = await killing.clear(office, OFF, "")
    assert names(done) == ["rule url-listed"]
    assert names(await killing.ls(office)) == ["rule url-listed"]
    await killing.clear(office, Asked(all=True), "")

    assert not path.exists()
    assert names(await killing.ls(office)) == []


async def test_with_tables_that_are_dead_it_works(office, path):
    """It says what it could not write down."""
    (office.settings.data / "tables.db").write_bytes(b"no tables" * 1000)
    done = await kill(office, RULE)

    assert kills.parse(path.read_bytes()).rules == ["spam"]
    assert "not in the audit log" in done.warnings[0]


async def test_an_unknown_rule_is_killed_with_a_warning(office):
    """A policy that comes tomorrow may have it; a slip of the pen is pointed at."""
    done = await kill(office, Asked(rules=("spamm",)))

    assert names(done) == ["rule spamm"]
    assert "did you mean spam?" in done.warnings[0]


async def test_only_to_a_policy_that_a_judge_has(office, path):
    """By the beginning of its name; else it is told what there is."""
    one = Loadable(Bundle((Rule("a", "true", "hold"),)))
    Bundles(path.parent / "1", quiet()).promote(one, OPERATOR)
    with pytest.raises(Missing, match=one.policy[:16]):
        await kill(office, Asked(to="pol_0000"))
    assert not path.exists()
    await kill(office, Asked(to=one.policy[:12]))

    assert kills.parse(path.read_bytes()).to == one.policy
    await killing.clear(office, Asked(to=one.policy[:12]), "")
    assert not path.exists()


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        (Asked(all=True), Misused), (Asked(rules=("",)), Misused),
        (Asked(rules=("x" * 65,)), Misused), (Asked(to="short"), Misused),
        (Asked(rules=tuple(f"r{n}" for n in range(300))), Misused),
    ],
)  # fmt: skip
async def test_wrong_words_write_nothing(office, path, asked, fault):
    """What cannot be meant is said."""
    with pytest.raises(fault):
        await kill(office, asked)
    assert not path.exists()


async def test_clearing_what_is_not_killed_is_told(office):
    """And --clear alone is asked what."""
    with pytest.raises(Misused, match="--all"):
        await killing.clear(office, Asked(), "")
    with pytest.raises(Missing, match="nothing of that"):
        await killing.clear(office, RULE, "")


@pytest.mark.parametrize("damage", ["torn", "pipe", "link", "folder"])
async def test_a_damaged_file_is_not_written_over(office, path, damage):
    """What judges have in force would be lifted; to begin anew is a choice."""
    path.parent.mkdir()
    if damage == "torn":
        path.write_text("[[kill]")
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(Unreadable, match="--clear --all"):
        await kill(office, RULE)
    with pytest.raises(Unreadable):
        await killing.ls(office)
    await killing.clear(office, Asked(all=True), "")

    assert path.name not in os.listdir(path.parent)
    assert names(await kill(office, RULE)) == ["rule spam"]


async def test_two_commands_at_once_lose_nothing(office, path, monkeypatch):
    """The one waits for the other; for one that was stopped it does not wait for ever."""
    held, go = threading.Event(), threading.Event()

    def other():
        with killing._locked(office):
            held.set()
            go.wait(10)
            killing._write(office, killing._now(office).more(kills.Kill(rule="a")))

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(10)
    threading.Timer(0.05, go.set).start()
    await kill(office, RULE)
    thread.join()
    assert kills.parse(path.read_bytes()).rules == ["a", "spam"]

    monkeypatch.setattr(killing, "LOCK_S", 0.01)
    with killing._locked(office):
        await kill(office, OFF)
    assert kills.parse(path.read_bytes()).engine_off


async def test_judges_say_that_they_have_taken_it(office, monkeypatch):
    """By the name of the file's bytes; one that has not says why."""
    monkeypatch.setattr(killing, "SEEN_S", 0.0)
    said = {}

    def asked(*_):
        return frames.json({"process": "judge 1", "policy": "pol_x", "killed": said})

    monkeypatch.setattr(judges, "asked", asked)
    done = await kill(office, RULE)
    assert (done.judges[0].state, done.judges[0].why) == ("waits", "it has not taken it")
    said["fault"] = "Permission denied"
    assert (await killing.ls(office)).judges[0].why == "Permission denied"
    path = office.settings.data / "policy" / "kill.toml"
    said["file"] = kills.name_of(path.read_bytes())
    assert (await killing.ls(office)).judges[0].state == "runs"
