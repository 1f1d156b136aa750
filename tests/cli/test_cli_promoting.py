"""What `postweir policy deploy, rollback, kill …` print, and the status they end with."""

import pytest
from tests.cli.test_cli_app import Typed
from tests.desk.office import office as open_office

from postweir.desk import judges
from postweir.judge import checking
from postweir.judge.checking import Report
from postweir.runtime import frames


@pytest.fixture
def typed(tmp_path):
    office = open_office(tmp_path / "data")
    config = tmp_path / "postweir.toml"
    config.write_text('[edge]\nlisten = ["127.0.0.1:0"]\n[metrics]\nlisten = "127.0.0.1:0"\n')
    yield Typed(office, config)
    office.shards.close()


@pytest.fixture
def unchecked(monkeypatch):
    """The check has tests of its own, and takes a third of a second."""

    def read(path, progress):
        return Report(checking.parse(path.read_text(), str(path)))

    monkeypatch.setattr(checking, "check_file", read)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "mine.toml"
    made.write_text("[[rule]]\nid = 'x'\nwhen = 'body.bytes > 9'\nthen = { verb = 'hold' }\n")
    return made


@pytest.mark.usefixtures("unchecked")
def test_a_policy_from_its_file_to_the_history(typed, path):
    """Deployed, in force, gone back from: each in a sentence or two, without a service."""
    status, out, err = typed("policy", "deploy", str(path), "--dry-run")
    assert (status, out.split()[:2]) == (0, ["would", "deploy"])
    status, out, err = typed("policy", "deploy", str(path), "--reason", "monday")
    assert (status, err) == (0, "no judge runs: it takes effect when one starts\n")
    assert out.splitlines()[0].endswith("is promoted")
    assert "in force already" in typed("policy", "deploy", str(path))[1]
    status, shown = typed.json("policy", "history")
    assert (status, shown[0]["reason"], shown[0]["in_force"]) == (0, "monday", True)
    assert "monday" in typed("policy", "history")[1]
    assert typed("policy", "show")[1] == path.read_text()
    status, out, _ = typed("policy", "status")
    assert (status, "1 enforce" in out) == (0, True)
    assert typed("policy", "rollback")[0] == 0
    status, out, err = typed("policy", "rollback")
    assert (status, out) == (1, "")
    assert "no way back" in err


def test_a_faulty_policy_is_told_as_check_tells_it(typed, path):
    """File and line and what to do; status 2; with --json as JSON."""
    path.write_text(path.read_text().replace("body.bytes", "body.bites"))
    status, out, _ = typed("policy", "deploy", str(path))
    assert status == 2
    assert out.startswith(f"{path}:3: rule x: ")
    assert "did you mean body.bytes?" in out
    status, said = typed.json("policy", "deploy", str(path))
    assert (status, said["policy"], len(said["faults"])) == (2, "", 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("says", "status"), [("refuses", 1), ("silent", 3), ("runs", 0)])
def test_a_judge_that_does_not_follow_is_no_success(typed, path, monkeypatch, says, status):
    """Which, and why, on standard error; scripts see the status."""

    async def healths(office):
        last = office.policies.last()
        if last is None:
            return {1: None, 2: None}
        good = {"process": "x", "deployment": last.number, "policy": last.policy}
        bad = {**good, "policy": "pol_old", "refused": "there is no fact x"}
        return {1: good, 2: {"runs": good, "silent": None, "refuses": bad}[says]}

    monkeypatch.setattr(judges, "healths", healths)
    monkeypatch.setattr(judges, "SILENT_S", 0.0)
    done = typed("policy", "deploy", str(path))

    assert done[0] == status
    assert ("but not on every judge" in done[1]) is (says != "runs")
    if says == "refuses":
        assert done[2] == "judge 2: runs pol_old; there is no fact x\n"
    elif says == "silent":
        assert done[2].startswith("judge 2: it does not answer")
    else:
        assert done[2] == ""


def test_killing(typed, tmp_path):
    """Listed with who and why; cleared; and what is damaged says how to go on."""
    assert typed("policy", "kill")[1] == "nothing is killed\n"
    status, out, err = typed("policy", "kill", "spamm", "url-listed", "--reason", "now")
    assert status == 0
    assert out.splitlines()[1].startswith("rule spamm")
    assert "did you mean spam?" in err
    status, said = typed.json("policy", "kill")
    assert [one["rule"] for one in said["kills"]] == ["spamm", "url-listed"]
    assert typed("policy", "kill", "--clear")[0] == 2
    assert typed("policy", "kill", "--clear", "nothing")[0] == 1
    assert typed("policy", "kill", "--clear", "spamm")[0] == 0
    (tmp_path / "data" / "policy" / "kill.toml").write_text("[[kill]")
    status, out, err = typed("policy", "kill", "--engine-off")
    assert (status, out) == (3, "")
    assert "--clear --all" in err
    assert typed("policy", "kill", "--clear", "--all")[0] == 0


def test_the_answer_is_json_that_scripts_can_read(typed):
    """One line, before any word on standard error."""
    status, said = typed.json("policy", "kill", "spam")

    assert status == 0
    assert frames.json(said).decode().count("\n") == 0
