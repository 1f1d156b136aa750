"""`postweir message …`, `postweir queue …` and `postweir audit`."""

from pathlib import Path
from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import (
    CONFIG,
    ByAccount,
    ByDomain,
    BySender,
    Config,
    DryRun,
    Json,
    Reason,
    group,
    wait,
)
from postweir.desk import ledger, messages, queues
from postweir.desk.queues import Filter, Waiting
from postweir.outcomes import telling

message = group("One message: what became of it, and what to do about it.")
queue = group("What waits to leave.")

Id = Annotated[str, typer.Argument(metavar="ID", help="As in `queued as ID` or `ref=ID`.")]
State = Annotated[str, typer.Option("--state", metavar="STATE", help="queued, held or pending.")]
Limit = Annotated[
    int, typer.Option("--limit", min=1, max=100_000, metavar="N", help="At most so many rows.")
]
For = Annotated[
    float, typer.Option("--for", min=0, metavar="HOURS", help="End by itself; 0: when resumed.")
]


@message.command("show")
def show(context: typer.Context, id: Id, config: Config = CONFIG, as_json: Json = False) -> None:
    """Tell a message's life: sender, verdict, attempts."""
    told = wait(context, config, lambda office: messages.show(office, id))
    if as_json:
        return printing.show_json(told)
    printing.pairs(telling.heading(told))
    if told.recipients:
        printing.line()
        rows = [
            (r.address, "in hand" if r.in_hand else r.state, r.tries,
             telling.moment(r.next_attempt_at), r.reply)
            for r in told.recipients
        ]  # fmt: skip
        printing.table(("recipient", "state", "tries", "next attempt", "reply"), rows, fold="reply")
    printing.line()
    return printing.told(telling.story(told), telling.DETAIL)


@message.command("release")
def release(
    context: typer.Context, id: Id, *, reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Deliver a held message."""
    _change(context, "release", id, reason=reason, dry_run=dry_run, config=config, as_json=as_json)


@message.command("retry")
def retry(
    context: typer.Context, id: Id, *, reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Try a message now."""
    _change(context, "retry", id, reason=reason, dry_run=dry_run, config=config, as_json=as_json)


@message.command("drop")
def drop(
    context: typer.Context, id: Id, *, reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Never deliver a message; needs --reason."""
    _change(context, "drop", id, reason=reason, dry_run=dry_run, config=config, as_json=as_json)


def _change(
    context: typer.Context, verb: str, id: str, *, reason: str, dry_run: bool, config: Path,
    as_json: bool,
) -> None:  # fmt: skip
    done = wait(
        context,
        config,
        lambda office: messages.change(office, verb, id, reason=reason, dry_run=dry_run),
    )
    if as_json:
        return printing.show_json(done)
    if dry_run:
        return printing.line(f"would {verb} {id} for {_recipients(done.recipients)}")
    return _said(f"{verb} {id}", done.number, done.waiting)


@queue.command("ls")
def ls(
    context: typer.Context, *, account: ByAccount = "", sender: BySender = "",
    domain: ByDomain = "", state: State = "", limit: Limit = 1000,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """List recipients that wait, oldest first."""
    wanted = Filter(account, sender, domain, state)
    found = wait(context, config, lambda office: queues.ls(office, wanted, limit))
    if as_json:
        return printing.show_json(found)
    rows = [
        (w.id, w.sender, w.address, _standing(w), w.tries,
         telling.moment(w.next_attempt_at), w.reply)
        for w in found
    ]  # fmt: skip
    heading = ("message", "sender", "recipient", "state", "tries", "next attempt", "last reply")
    printing.table(heading, rows, fold="last reply")
    if not found:
        printing.aside("nothing waits")
    if len(found) == limit:
        printing.aside(f"only the first {limit}; --limit shows more, `queue show` sums up")
    return None


@queue.command("show")
def sums(
    context: typer.Context, *, account: ByAccount = "", sender: BySender = "",
    domain: ByDomain = "", state: State = "", config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Sum up what waits, by domain."""
    wanted = Filter(account, sender, domain, state)
    found = wait(context, config, lambda office: queues.show(office, wanted))
    if as_json:
        return printing.show_json(found)
    rows = [
        (s.domain, s.queued, s.held, s.pending, telling.moment(s.oldest_at),
         telling.moment(s.next_attempt_at))
        for s in found
    ]  # fmt: skip
    printing.table(("domain", "queued", "held", "pending", "oldest", "next attempt"), rows)
    return None if found else printing.aside("nothing waits")


@queue.command("suspend")
def suspend(
    context: typer.Context, *, account: ByAccount = "", sender: BySender = "",
    domain: ByDomain = "", hours: For = 0, reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Deliver nothing of a sender, account or domain."""
    wanted = Filter(account, sender, domain)
    _ask(context, "suspend", wanted, reason, dry_run=dry_run, config=config, as_json=as_json,
         hours=hours)  # fmt: skip


@queue.command("resume")
def resume(
    context: typer.Context, *, account: ByAccount = "", sender: BySender = "",
    domain: ByDomain = "", reason: Reason = "", config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Deliver again what was suspended."""
    wanted = Filter(account, sender, domain)
    _ask(context, "resume", wanted, reason, config=config, as_json=as_json)


@queue.command("retry")
def retry_all(
    context: typer.Context, *, account: ByAccount = "", sender: BySender = "",
    domain: ByDomain = "", reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Try all of a sender, account or domain now."""
    wanted = Filter(account, sender, domain)
    _ask(context, "retry", wanted, reason, dry_run=dry_run, config=config, as_json=as_json)


@queue.command("drop")
def drop_all(
    context: typer.Context, *, account: ByAccount = "", sender: BySender = "",
    domain: ByDomain = "", reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Never deliver what waits; needs --reason."""
    wanted = Filter(account, sender, domain)
    _ask(context, "drop", wanted, reason, dry_run=dry_run, config=config, as_json=as_json)


def _ask(
    context: typer.Context, verb: str, wanted: Filter, reason: str, *, config: Path,
    as_json: bool, dry_run: bool = False, hours: float = 0,
) -> None:  # fmt: skip
    done = wait(
        context,
        config,
        lambda office: queues.ask(
            office, verb, wanted, reason=reason, dry_run=dry_run,
            until_us=office.now_us() + int(hours * 3600e6) if hours else None,
        ),
    )  # fmt: skip
    if as_json:
        return printing.show_json(done)
    if dry_run:
        return printing.line(f"would {verb} {_recipients(done.recipients or 0)} of {done.scope}")
    return _said(f"{verb} {done.scope}", done.number, done.waiting)


def audit(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """Count whether all that was promised is there."""
    found = wait(context, config, ledger.audit)
    if as_json:
        printing.show_json(found)
    else:
        _ledger(found)
    for why in found.why:
        printing.aside(f"postweir: {why}")
    raise typer.Exit(found.status)


def _ledger(found: ledger.Audit) -> None:
    keys = ledger.Line.__struct_fields__
    rows = [(name, *(getattr(line, key) for key in keys)) for name, line in found.accounts.items()]
    rows.append(("all", *(getattr(found, key) for key in keys)))
    printing.table(("account", *keys), rows)
    part = " in what could be read" if found.unreadable else ""
    printing.line(f"residual {found.residual}{part}")


def _standing(waiting: Waiting) -> str:
    """Return the state, or what an operator would rather know."""
    if waiting.in_hand:
        return "in hand"
    return "suspended" if waiting.suspended and waiting.state == "queued" else waiting.state


def _recipients(count: int) -> str:
    return "1 recipient" if count == 1 else f"{count} recipients"


def _said(what: str, number: int, waiting: list[int]) -> None:
    if not waiting:
        return printing.line(f"{what}: done (request {number})")
    shards = ", ".join(str(shard) for shard in waiting)
    who = f"shard {shards}: it does it" if len(waiting) == 1 else f"shards {shards}: they do it"
    return printing.line(
        f"{what}: written as request {number}; not yet done by {who} as soon as it can"
    )
