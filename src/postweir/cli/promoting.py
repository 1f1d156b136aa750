"""`postweir policy deploy, rollback, history, status, show, kill`: which policy is in force."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from postweir.cli import policies, printing
from postweir.cli.words import CONFIG, Config, DryRun, Json, Reason, ask, wait
from postweir.desk import deploying, judges, killing, promoted
from postweir.desk.deploying import Deployed
from postweir.desk.judges import State

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy in TOML.")]
Policy = Annotated[
    str,
    typer.Argument(metavar="POLICY", help="Its name, or the beginning of it.", show_default=False),
]
Rules = Annotated[list[str] | None, typer.Argument(metavar="RULE", help="Rules, by their id.")]
EngineOff = Annotated[
    bool,
    typer.Option("--engine-off", help="All rules: only the checks without an engine are left."),
]
To = Annotated[
    str, typer.Option("--to", metavar="POLICY", help="Judge by this one instead, promoted before.")
]
Clear = Annotated[bool, typer.Option("--clear", help="Kill these no longer.")]
All = Annotated[bool, typer.Option("--all", help="With --clear: all that is killed.")]

REFUSED, FAULTY, SILENT = 1, 2, 3  # exit statuses: a judge does not follow, or not answer


def add_to(policy: typer.Typer) -> None:
    """Add these verbs to `postweir policy`."""
    policy.command("deploy")(deploy)
    policy.command("rollback")(rollback)
    policy.command("history")(history)
    policy.command("status")(status)
    policy.command("show")(show)
    policy.command("kill")(kill)


def deploy(
    context: typer.Context, file: File, *, reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Check a policy, and judge by it from now on."""
    progress = printing.Progress()
    done = wait(
        context, config,
        lambda o: deploying.deploy(o, file, reason, dry_run=dry_run, tell=progress.of),
    )  # fmt: skip
    progress.end()
    if as_json:
        printing.show_json(done)
    else:
        policies.show(done.faults)
        policies.show(done.notices, "note: ")
    if done.faults:
        raise typer.Exit(FAULTY)
    _tell(done, "deploy", as_json=as_json)


def rollback(
    context: typer.Context, policy: Policy = "", *, reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Go back to the policy promoted before, or to a named one."""
    done = wait(context, config, lambda o: deploying.rollback(o, policy, reason, dry_run=dry_run))
    if as_json:
        printing.show_json(done)
    _tell(done, "go back to", as_json=as_json)


def history(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """List what was put in force, when, by whom and why."""
    found = ask(context, config, promoted.history)
    if as_json:
        return printing.show_json(found)
    if not found:
        return printing.line("no policy was ever deployed: the shipped one is in force")
    rows = [
        (d.number, printing.when(d.at_us), d.verb, printing.short(d.policy), d.by, d.reason,
         "in force" if d.in_force else "")
        for d in found
    ]  # fmt: skip
    heads = ("number", "at", "verb", "policy", "by", "reason", "")
    return printing.table(heads, rows, fold="reason")


def status(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """Say which policy is in force, and which each judge runs."""
    found = wait(context, config, promoted.status)
    if as_json:
        return printing.show_json(found)
    rules = [f"{count} {mode}" for mode, count in sorted(found.rules.items())]
    return printing.pairs(
        [("promoted", printing.short(found.promoted)
          or "none yet: a judge takes the shipped one when it first starts"),
         ("since", printing.when(found.at_us)), ("by", found.by), ("reason", found.reason),
         ("rules", rules or None), ("candidate", found.candidate),
         ("killed", found.killed or None), ("kill.toml", found.kill_fault),
         *[(f"judge {one.judge}", _standing(one)) for one in found.states]]
    )  # fmt: skip


def show(
    context: typer.Context, policy: Policy = "", config: Config = CONFIG, as_json: Json = False
) -> None:
    """Print a policy as it was written."""
    found = ask(context, config, lambda office: promoted.show(office, policy))
    if as_json:
        return printing.show_json(found)
    for line in found.source.splitlines():
        printing.line(line)
    return None


def kill(
    context: typer.Context, rules: Rules = None, *, engine_off: EngineOff = False,
    to: To = "", clear: Clear = False, every: All = False, reason: Reason = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Switch rules off at once; alone: list what is killed.

    It needs neither tables nor network: it writes policy/kill.toml in the data directory, which
    every judge reads within a second, and which may also be written by hand.
    """
    asked = killing.Asked(rules or [], engine_off, to, every)
    if clear:
        done = wait(context, config, lambda office: killing.clear(office, asked, reason))
    elif asked.nothing:
        done = wait(context, config, killing.ls)
    else:
        done = wait(context, config, lambda office: killing.kill(office, asked, reason))
    for warning in done.warnings:
        printing.aside(warning)
    if as_json:
        printing.show_json(done)
    elif done.kills:
        rows = [(k.what, printing.when(k.at_us), k.by, k.reason) for k in done.kills]
        printing.table(("killed", "at", "by", "reason"), rows, fold="reason")
    else:
        printing.line("nothing is killed")
    _end(done.judges)


def _tell(done: Deployed, verb: str, *, as_json: bool) -> None:
    policy, before = printing.short(done.policy), printing.short(done.before)
    if not as_json:
        if done.in_force:
            printing.line(f"{policy} is in force already")
        elif done.dry_run:
            printing.line(f"would {verb} {policy}; now: {before}")
        else:
            followed = all(one.state in (judges.RUNS, judges.DOWN) for one in done.judges)
            printing.line(f"{policy} is promoted{'' if followed else ', but not on every judge'}")
            printing.line(f"before it: {before}")
    _end(done.judges)


def _end(states: Sequence[State]) -> None:
    """Say which judges do not follow, and why; ends with the status that says so."""
    for one in states:
        if one.state not in (judges.RUNS, judges.DOWN):
            printing.aside(f"judge {one.judge}: {_standing(one)}")
    if states and all(one.state == judges.DOWN for one in states):
        printing.aside("no judge runs: it takes effect when one starts")
    if any(one.state in (judges.REFUSES, judges.WAITS) for one in states):
        raise typer.Exit(REFUSED)
    if any(one.state == judges.SILENT for one in states):
        raise typer.Exit(SILENT)


def _standing(one: State) -> str:
    runs = printing.short(one.policy) or "nothing yet"
    if one.state == judges.SILENT:
        return one.why
    return f"runs {runs}; {one.why}" if one.why else f"runs {runs}"
