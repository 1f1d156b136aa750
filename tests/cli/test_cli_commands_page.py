"""docs/commands.md is true: every command, option and JSON key, and none that is not there."""

from pathlib import Path

import pytest

from postweir.cli import app
from postweir.desk import (
    accounts,
    comparing,
    credentials,
    deploying,
    doctor,
    explaining,
    judges,
    killing,
    ledger,
    messages,
    policies,
    promoted,
    queues,
    replaying,
    senders,
    service,
)
from postweir.outcomes import journal
from postweir.policy import comparison, flip, replay
from postweir.runtime import settings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "commands.md").read_text()
COMMON = {"-c", "--config", "--json", "-h", "--help"}


def sections():
    """Return what stands under each heading of a command, by the command's words."""
    found = {}
    for part in PAGE.split("\n### `postweir ")[1:]:
        heading, _, text = part.partition("`\n")
        words = [word for word in heading.split() if word.islower()]
        found[" ".join(words)] = (heading, text.partition("\n## ")[0])
    return found


def commands(of=None, words=()):
    """Yield every command with its words."""
    of = of or app.build()
    if not hasattr(of, "commands"):
        yield " ".join(words), of
        return
    for name, one in of.commands.items():
        yield from commands(one, (*words, name))


def test_every_command_has_its_section_and_no_other():
    """A command nobody can read about does not exist; one that does not exist is not promised."""
    assert set(sections()) == {words for words, _ in commands()}


@pytest.mark.parametrize("words", [words for words, _ in commands()])
def test_every_option_and_argument_is_told(words):
    """In the command's own section; what all have stands once, at the top."""
    command = dict(commands())[words]
    heading, text = sections()[words]
    top = PAGE.partition("\n## ")[0]

    for one in command.params:
        if one.param_type_name == "argument":
            assert str(one.metavar) in heading, one.metavar
            continue
        for name in one.opts:
            assert f"`{name}" in (top if name in COMMON else text), name
            if not one.is_flag and name not in COMMON:
                assert f"`{name} {one.metavar}`" in text, name
    assert ("--json" in {n for p in command.params for n in p.opts}) == ("JSON" in heading + text)


@pytest.mark.parametrize(
    "kind",
    [
        accounts.Shown, credentials.Made, credentials.Shown, doctor.Finding, doctor.Health,
        ledger.Audit, messages.Changed,
        policies.Checked, policies.Fault, policies.Part, policies.Passed, policies.Summary,
        policies.Test, policies.Tests, promoted.Status, promoted.Shown, promoted.Source,
        deploying.Deployed, judges.State, killing.Killed, killing.Shown, queues.Asked,
        queues.Summed,
        queues.Waiting, senders.Shown, service.Checked, service.Reloaded, settings.Fault,
        journal.Timeline, journal.RecipientShown, journal.FindingShown,
        comparing.Compared, comparison.Change, comparison.Changed, explaining.Part, explaining.Said,
        explaining.Used, explaining.Why, flip.Flip, flip.Turned, replay.Diff, replay.Example,
        replay.Line, replay.Moved, replay.RuleLine, replay.Took, replaying.Replayed,
    ],
)  # fmt: skip
def test_every_key_of_the_json_is_told(kind):
    """Scripts rely on them: each stands on the page, in one piece of JSON together."""
    pieces = [" ".join(piece.split()) for piece in PAGE.split("`")[1::2] if piece[:1] in "[{"]

    assert any(all(f'"{key}"' in piece for key in kind.__struct_fields__) for piece in pieces)


def test_every_setting_of_an_account_is_told():
    """A key that `account set` takes and nobody explains is a trap."""
    for key in accounts.SETTABLE:
        assert f"| `{key}` |" in PAGE, key


def test_every_exit_status_is_told():
    """Those the program knows."""
    table = PAGE.partition("**Exit status.**")[2].partition("**As which")[0]
    for status in (app.FINE, app.NO, app.MISUSED, app.UNREACHED, app.INTERRUPTED, app.PIPE_CLOSED):
        assert f"{status}" in table
