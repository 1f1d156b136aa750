"""`postweir up`, the processes by name, `check` and `reload`."""

from collections.abc import Callable
from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import CONFIG, Config, Json, doors, wait
from postweir.desk import doctor as health
from postweir.desk import service

KINDS = {
    "edge": "Take mail in.",
    "judge": "Judge mail.",
    "spool": "Keep what was promised: one shard.",
    "delivery": "Send mail out.",
    "watch": "Gather metrics and health.",
}
Index = Annotated[int, typer.Option("--index", min=1, metavar="N", help="Which one of its kind.")]
Verify = Annotated[bool, typer.Option("--verify", help="Read every page and body as well.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("up")(up)
    app.command("reload")(reload)
    app.command("check")(check)
    app.command("doctor")(doctor)
    for kind, sentence in KINDS.items():
        app.command(kind, help=sentence)(_process(kind))


def up(context: typer.Context, config: Config = CONFIG) -> None:
    """Run everything on this host.

    Prints `ready` on a line of its own when all listeners accept mail.
    """
    raise typer.Exit(doors(context).up(config))


def check(config: Config = CONFIG, as_json: Json = False) -> None:
    """Check the settings, and what `up` would stumble over.

    Says file, line and what to do. Looks at the ports (unless the service runs), the data
    directory, the certificate and its key, and files that the settings name.
    """
    found = service.check(config)
    if as_json:
        printing.show_json(found)
    for fault in found.faults:
        if not as_json:
            printing.line(f"{fault.where}: {fault.what}")
            printing.line(f"    {fault.do}")
    for warning in [] if as_json else found.warnings:
        printing.aside(f"{warning.where}: {warning.what}")
        printing.aside(f"    {warning.do}")
    if found.faults:
        raise typer.Exit(2)
    if not as_json:
        printing.line(f"{config}: good (settings {found.hash})")


def doctor(
    context: typer.Context, verify: Verify = False, config: Config = CONFIG, as_json: Json = False
) -> None:
    """Look for what is wrong, or soon will be.

    Says what recovery found and what to do, whether the service runs or not. Changes nothing.
    """
    found = health.sick(config)
    if found is None:
        progress = printing.Progress()
        found = wait(
            context,
            config,
            lambda office: health.doctor(office, config, verify=verify, tell=progress.of),
        )
        progress.end()
    if as_json:
        printing.show_json(found)
    for one in [] if as_json else found.findings:
        printing.line(f"{one.severity:7}  {one.about}: {one.what}")
        if one.do:
            printing.line(f"         {one.do}")
    if found.status:
        raise typer.Exit(found.status)


def reload(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """Let the running service take new settings.

    Nothing changes when they are wrong: then the old ones stay.
    """
    found = wait(context, config, service.reload)
    if as_json:
        printing.show_json(found)
    elif found.taken:
        printing.line(f"settings {found.hash} taken")
        for key in found.restart_needed:
            printing.line(f"{key} waits for a restart")
    else:
        for fault in found.faults:
            printing.aside(fault)
    if not found.taken:
        raise typer.Exit(2)


def _process(kind: str) -> Callable[..., None]:
    def run(context: typer.Context, index: Index = 1, config: Config = CONFIG) -> None:
        words = [kind, "--index", str(index), "-c", str(config)]
        raise typer.Exit(doors(context).process(words))

    return run
