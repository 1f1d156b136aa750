"""`postweir policy replay` and `postweir policy diff`: what another policy would do."""

from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import CONFIG, ByAccount, Config, Json, wait
from postweir.desk import comparing, replaying
from postweir.desk.ports import Misused, Unreadable
from postweir.desk.replaying import Replayed, Wanted
from postweir.outcomes import telling
from postweir.policy.replay import NO_RULE, Diff, Line

ABOVE = 3  # the budget
EXAMPLES_MAX = 10  # the rest is in --json

Candidate = Annotated[
    str, typer.Argument(metavar="FILE", help="A policy in TOML, or pol_… of one that is kept.")
]
One = Annotated[str, typer.Argument(metavar="A", help="FILE, pol_…, or `promoted`.")]
Other = Annotated[str, typer.Argument(metavar="B", help="FILE, pol_…, or `promoted`.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="How far back: 24h, 90m, 3d.")]
Against = Annotated[
    str, typer.Option("--against", metavar="POLICY", help="Compare with FILE or pol_….")
]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="SHARE",
        help="Share of all mail that may change; above it, exit status 3.",
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", min=0, metavar="N", help="At most so many messages; 0: all.")
]


def add_to(policy: typer.Typer) -> None:
    """Add these verbs to `postweir policy`."""
    policy.command("replay")(replay)
    policy.command("diff")(diff)


def replay(
    context: typer.Context, file: Candidate, *, since: Since = "24h", against: Against = "promoted",
    account: ByAccount = "", budget: Budget = "0.5%", limit: Limit = 0,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Try a policy on yesterday's mail, beside the promoted one."""
    found = _replay(context, config, Wanted(
        file, against, replaying.seconds(since), account, limit, replaying.share(budget)
    ))  # fmt: skip
    if as_json:
        printing.show_json(found)
    else:
        _show(found)
    if not found.within:
        raise typer.Exit(ABOVE)


def diff(
    context: typer.Context, one: One, other: Other, *, since: Since = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Say what one policy has otherwise than another."""
    found = wait(context, config, lambda office: comparing.compare(office, one, other))
    if since:
        wanted = Wanted(other, one, replaying.seconds(since))
        found = comparing.with_verdicts(found, _replay(context, config, wanted))
    if as_json:
        return printing.show_json(found)
    for line in comparing.told(found):
        printing.line(line)
    if found.verdicts is not None:
        printing.line()
        _show(found.verdicts)
    return None


def _replay(context: typer.Context, config: Config, wanted: Wanted) -> Replayed:
    progress = printing.Progress()

    def tell(done: int, share: float) -> None:
        rate = done / max(progress.began_s, 0.001)
        progress.say(f"{done} messages, {min(share, 1):.0%}, {rate:.0f} a second")

    try:
        return wait(context, config, lambda office: replaying.replay(office, wanted, tell))
    except (Unreadable, OSError) as fault:
        # A script that looks at the status must not take it for a policy that changes too much.
        raise Misused(str(fault)) from None
    finally:
        progress.end()


def _show(found: Replayed) -> None:
    printing.pairs(_heading(found))
    changes = found.diff
    if changes.newly_refused:
        count = changes.newly_refused_count
        printing.line()
        printing.line(f"NEW REFUSALS: {count} senders of whom nothing was refused before")
        _lines("sender", changes.newly_refused)
    moved = [one for one in changes.verdicts if one.before != one.after]
    if moved:
        printing.line()
        moves = [(one.before, one.after, one.messages, _percent(one.share)) for one in moved]
        printing.table(("verdict", "becomes", "messages", "of all mail"), moves)
    rules = [line for line in changes.rules if line.came or line.went]
    if rules:
        printing.line()
        rows = [(_rule(line.rule), line.before, line.after, line.came, line.went) for line in rules]
        printing.table(("rule", "decided", "would decide", "new to it", "gone from it"), rows)
    for name, lines in (("account", changes.accounts), ("sender", changes.senders)):
        if lines:
            printing.line()
            _lines(name, lines)
    _examples(changes)
    for rule, count in changes.errors.items():
        printing.line(f"rule {rule} fails on {count} messages")


def _heading(found: Replayed) -> list[tuple[str, object]]:
    changes = found.diff
    why = ", ".join(f"{name} {count}" for name, count in found.why_not.items())
    kept = changes.stand_for - changes.messages
    return [
        ("candidate", printing.short(found.candidate)),
        ("against", printing.short(found.against)),
        ("messages", f"{changes.messages}"
         + (f", which stand for {changes.stand_for}: of {kept} no facts were kept" if kept else "")
         + ("; there are more" if found.limited else "")),
        ("from", f"{telling.moment(found.since_at)} to {telling.moment(found.until_at)}"
         if found.until_at else ""),
        ("not replayable", f"{found.not_replayable} ({why})" if found.not_replayable else ""),
        ("changed", f"{changes.changed}, {_percent(changes.share)} of the mail; budget"
         f" {_percent(found.budget)}: {'within' if found.within else 'ABOVE'}"),
        ("would be refused", f"{changes.refused}, {_percent(changes.refused_share)} of the mail"
         if changes.refused else ""),
        ("by another rule", f"{changes.by_other_rule}, with the same verdict"
         if changes.by_other_rule else ""),
        ("simulated", f"throttles {', '.join(found.simulated)}: begun empty, nothing was taken"
         if found.simulated else ""),
        ("NOT AS THEN", f"{found.unlike} verdicts of {found.against[:16]} are not what it said then"
         if found.unlike else ""),
        ("evaluation", f"median {changes.took.p50_us} µs, 99 % below {changes.took.p99_us} µs"
         f" (before {changes.took_before.p50_us} and {changes.took_before.p99_us});"
         f" {found.pairs_s} pairs a second" if changes.messages else ""),
    ]  # fmt: skip


def _lines(heading: str, lines: list[Line]) -> None:
    rows = [
        (line.name, line.messages, line.changed, _percent(line.share), line.refused)
        for line in lines
    ]
    printing.table((heading, "messages", "changed", "of its mail", "newly refused"), rows)


def _examples(changes: Diff) -> None:
    if not changes.examples:
        return
    printing.line()
    rows = [
        (one.id, one.sender, _by(one.before, one.before_rule), _by(one.after, one.after_rule))
        for one in changes.examples[:EXAMPLES_MAX]
    ]
    printing.table(("for example", "sender", "verdict", "would be"), rows)
    printing.line("postweir message why ID --policy FILE says why")


def _by(verdict: str, rule: str) -> str:
    return verdict if rule == NO_RULE else f"{verdict} ({rule})"


def _rule(name: str) -> str:
    return "(no rule)" if name == NO_RULE else name


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")
