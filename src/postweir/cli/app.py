"""All commands under one roof: what they are called, how they fail, and with which status."""

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
import typer.core
import typer.main

from postweir.cli import (
    accounts,
    mail,
    policies,
    printing,
    promoting,
    reasons,
    replays,
    senders,
    service,
)
from postweir.cli.words import Doors
from postweir.desk.ports import Missing, Misused, Trouble
from postweir.runtime import settings

FINE, NO, MISUSED, UNREACHED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141

HELP = "Postweir: an outbound mail filter that a bad policy cannot slow down."
PARTS = {
    "The service": ("up", "check", "doctor", "reload", "audit"),
    "What an operator does (each has verbs: postweir account --help)": (
        "account", "credential", "sender", "message", "queue", "policy",
    ),
    "Single processes (`up` runs them all)": ("edge", "judge", "spool", "delivery", "watch"),
}  # fmt: skip
WIDTH = max(len(name) for names in PARTS.values() for name in names)
EPILOG = """\b
After the verb every command takes -c FILE (default: ./postweir.toml) and, but for those
that run, --json: one line of stable JSON. Commands work whether the service runs or not,
and take effect in a running service within a second. Times are UTC.

\b
Exit status:
  0  fine
  1  the answer is no: not found, a policy's own test that failed, a judge that does not
     follow, a ledger that does not close; doctor: warnings
  2  wrong words, settings or policy; audit: a shard cannot be read; doctor: something is wrong
  3  somebody could not be reached, or a file not be read or written; policy replay: more
     changes than the budget
"""


class Parts(typer.core.TyperGroup):
    """Lists the commands by what they are for."""

    def format_commands(self, _: Any, formatter: Any) -> None:
        for heading, names in PARTS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{WIDTH}}", self._sentence(name)) for name in names])

    def _sentence(self, name: str) -> str:
        return (self.commands[name].help or "").partition("\n")[0]


@functools.cache  # the groups are one each: what is added twice is there twice
def build() -> Any:
    """Return all commands, as one that can be called."""
    app = typer.Typer(
        cls=Parts,
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    service.add_to(app)
    app.add_typer(accounts.account, name="account")
    app.add_typer(accounts.credential, name="credential")
    app.add_typer(senders.sender, name="sender")
    promoting.add_to(policies.policy)
    replays.add_to(policies.policy)
    reasons.add_to(mail.message)
    app.add_typer(policies.policy, name="policy")
    app.add_typer(mail.message, name="message")
    app.add_typer(mail.queue, name="queue")
    app.command("audit")(mail.audit)
    return typer.main.get_command(app)


def main(words: Sequence[str], doors: Doors) -> int:
    """Do what was typed; returns the exit status. Nothing but our own bugs gives a traceback."""
    _open_streams()
    try:
        status = build().main(
            args=list(words), prog_name="postweir", standalone_mode=False, obj=doors
        )
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as fault:
        told = _told(fault)
        if told is None:
            raise
        return told
    return status if isinstance(status, int) else FINE


def _open_streams() -> None:
    """Where the caller closed standard output or error, what is said goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  as long as we live


def _told(fault: BaseException) -> int | None:
    """Say what went wrong in one clear line; returns the exit status, None for a bug of ours."""
    match fault:
        case BrokenPipeError():
            # Whoever read us has seen enough. Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        case KeyboardInterrupt() | typer.Abort():
            return INTERRUPTED
        case settings.Wrong():
            for one in fault.faults:
                printing.aside(f"{one.where}: {one.what}")
                printing.aside(f"    {one.do}")
            return MISUSED
        case typer.TyperException():
            return _fail(_usage(fault), MISUSED)
        case Misused():
            return _fail(str(fault), MISUSED)
        case Missing():
            return _fail(str(fault), NO)
        case OSError(filename=str(name), strerror=str(words)):
            owner = "; run this as the user that owns it" if _forbidden(fault) else ""
            return _fail(f"{name}: {words.lower()}{owner}", UNREACHED)
        case OSError(strerror=str(words)):
            return _fail(words.lower(), UNREACHED)
        case Trouble() | OSError() | ValueError():
            return _fail(str(fault), UNREACHED)
        case _:
            return None


def _forbidden(fault: BaseException) -> bool:
    return isinstance(fault, PermissionError)


def _usage(fault: typer.TyperException) -> str:
    """Return what is wrong with the words, and where to read how they go."""
    text = fault.format_message().strip()
    if text.startswith("Usage:"):  # a noun alone: its help is the answer
        return text
    context = getattr(fault, "ctx", None)
    where = context.command_path if context is not None else "postweir"
    if where == "postweir" and getattr(fault, "option_name", "") in ("-c", "--config", "--json"):
        text += "; it stands after the verb"
    return f"{text.rstrip('.')} (see {where} --help)"


def _fail(text: str, status: int) -> int:
    if text.startswith("Usage:"):
        sys.stderr.write(text + "\n")
    else:
        printing.aside(f"postweir: {text}")
    return status
