"""What is killed counts at once, what is lifted when it is sure, and damage changes nothing."""

import pytest

from postweir.judge import killing
from postweir.judge.killing import KillFile
from postweir.judge.kills import Kill, Kills
from postweir.runtime.log import quiet

A, B = Kill(rule="a"), Kill(rule="b")


class Told:
    """A log that keeps what it is told."""

    def __init__(self):
        self.events = []

    def error(self, event, **_):
        self.events.append(event)

    warning = error


@pytest.fixture
def path(tmp_path):
    (tmp_path / "policy" / "1").mkdir(parents=True)
    return tmp_path / "policy" / "kill.toml"


@pytest.fixture
def file(path):
    return again(path)


def again(path, log=None):
    """Return the file as a judge sees it that has just started."""
    made = KillFile(path, path.parent / "1" / "killed", log or quiet())
    made.begin()
    return made


def write(path, *killed):
    path.write_text(Kills(killed).text)


def test_a_kill_counts_at_the_next_look(file, path):
    """One look, not two: what is killed is in a hurry."""
    assert not file.look()
    write(path, A)
    assert file.look()
    write(path, A, B)
    assert file.look()

    assert file.now.rules == ["a", "b"]
    assert not file.look()


@pytest.mark.parametrize("lifting", ["gone", "emptied", "fewer"])
def test_what_lifts_a_kill_needs_two_looks(file, path, lifting):
    """An editor that saves a file leaves it gone, or empty, for a moment."""
    write(path, A, B)
    file.look()
    whole = path.read_text()

    def lift():
        if lifting == "gone":
            path.unlink()
        else:
            path.write_text("" if lifting == "emptied" else Kills((A,)).text)

    lift()
    assert not file.look()
    path.write_text(whole)
    assert not file.look()
    assert file.now.rules == ["a", "b"]
    lift()
    assert not file.look()
    assert file.look()
    assert file.now.rules == (["a"] if lifting == "fewer" else [])


def test_damage_changes_nothing_and_is_told_once(path):
    """An alarm, a word in health, and what was in force stays, until the file is good again."""
    log = Told()
    file = again(path, log)
    write(path, A)
    file.look()
    path.write_text("[[kill]")
    assert not file.look()
    assert not file.look()

    assert file.now.rules == ["a"]
    assert "TOML" in file.fault
    assert log.events.count("policy.kill_damaged") == 1
    write(path, A, B)
    assert file.look()
    assert (file.fault, file.now.rules) == ("", ["a", "b"])


def test_a_restart_lifts_nothing(file, path):
    """With the file damaged meanwhile, what this judge had in force goes on."""
    write(path, A)
    file.look()
    path.write_text("[[kill]")
    assert again(path).now.rules == ["a"]
    path.unlink()
    assert again(path).now.rules == []
    path.write_text("[[kill]")
    log = Told()
    assert again(path, log).now.rules == []
    assert log.events == ["policy.kill_damaged"]


def test_what_is_kept_is_trusted_only_whole(file, path):
    """A bit that fell over in the judge's own copy: an alarm, and nothing is made up."""
    write(path, A)
    file.look()
    kept = path.parent / "1" / "killed"
    kept.write_bytes(kept.read_bytes()[:-1])
    path.write_text("[[kill]")
    log = Told()

    assert again(path, log).now.rules == []
    assert "policy.kill_unknown" in log.events


def test_a_folder_that_is_gone_lifts_nothing(file, path):
    """A disk that was unmounted says nothing about what is killed."""
    write(path, A)
    file.look()
    path.parent.rename(path.parent.with_name("away"))
    file.look()
    file.look()

    assert file.now.rules == ["a"]
    assert file.fault


def test_a_file_that_is_not_read_is_told(file, monkeypatch):
    """A disk that hangs shows in health."""
    assert file.fault == ""
    monkeypatch.setattr(killing, "LATE_S", -1.0)

    assert "not read for" in file.fault
