"""`postweir sender …`."""

from pathlib import Path
from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import CONFIG, ByAccount, Config, Json, Reason, ask, group
from postweir.desk import senders

sender = group("Who answers for a message: stop one sender, spare the others.")

Key = Annotated[
    str, typer.Argument(metavar="KEY", help="'account|type|identity', quoted for the shell.")
]


Decided = Annotated[str, typer.Option("--state", metavar="STATE", help="stopped or allowed.")]


@sender.command("show")
def show(context: typer.Context, key: Key, config: Config = CONFIG, as_json: Json = False) -> None:
    """Show what was decided about a sender."""
    found = ask(context, config, lambda office: senders.show(office, key))
    if as_json:
        return printing.show_json(found)
    return printing.pairs(
        [("sender", found.sender), ("state", found.state or "nothing decided"),
         ("reason", found.reason), ("by", found.by), ("at", printing.when(found.at_us))]
    )  # fmt: skip


@sender.command("stop")
def stop(
    context: typer.Context, key: Key, reason: Reason = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Refuse a sender's new mail; needs --reason."""
    _decide(context, key, "stopped", reason=reason, config=config, as_json=as_json)


@sender.command("allow")
def allow(
    context: typer.Context, key: Key, reason: Reason = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Take a stopped sender's mail again."""
    _decide(context, key, "allowed", reason=reason, config=config, as_json=as_json)


@sender.command("ls")
def ls(
    context: typer.Context, account: ByAccount = "",
    state: Decided = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """List senders that were stopped or allowed."""
    found = ask(context, config, lambda office: senders.ls(office, account, state))
    if as_json:
        return printing.show_json(found)
    rows = [(s.sender, s.state, s.reason, s.by, printing.when(s.at_us)) for s in found]
    return printing.table(("sender", "state", "reason", "by", "at"), rows, fold="reason")


def _decide(
    context: typer.Context, key: str, state: str, *, reason: str, config: Path, as_json: bool
) -> None:
    found = ask(context, config, lambda office: senders.decide(office, key, state, reason))
    if as_json:
        return printing.show_json(found)
    return printing.line(f"{found.sender} {found.state}")
