"""`postweir policy …`."""

from pathlib import Path
from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import CONFIG, Config, Json, ask, group
from postweir.desk import policies

policy = group("Rules: what we do about a message.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy in TOML.")]


@policy.command("new")
def new(file: File, _: Config = CONFIG, as_json: Json = False) -> None:
    """Write the default policy into a new file."""
    made = policies.new(file)
    if as_json:
        return printing.show_json({"file": str(made)})
    return printing.line(f"{made} written; check it with: postweir policy check {made}")


@policy.command("check")
def check(file: File, _: Config = CONFIG, as_json: Json = False) -> None:
    """Check a policy: line, rule and what to do."""
    found = policies.check(file)
    if as_json:
        printing.show_json(found)
    elif found.ok:
        printing.line(f"{file}: good, {found.policy}")
    for fault in [] if as_json else found.faults:
        rule = f"rule {fault.rule}: " if fault.rule else ""
        printing.line(f"{fault.where}: {rule}{fault.what}")
        printing.line(f"    {fault.do}")
    if not found.ok:
        raise typer.Exit(2)


@policy.command("status")
def status(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """Say which policy is in force."""
    found = ask(context, config, policies.status)
    if as_json:
        return printing.show_json(found)
    judges = [f"judge {index}: {name}" for index, name in found.judges.items()]
    return printing.pairs(
        [("promoted", found.promoted or "none yet: a judge takes the default when it first starts"),
         ("candidate", found.candidate or "none"),
         ("running", judges or "no judge answers")]
    )  # fmt: skip
