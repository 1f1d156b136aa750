"""`postweir message why`: told so that it can be read to whoever asks."""

from collections.abc import Iterator
from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.mail import Id
from postweir.cli.words import CONFIG, Config, Json, wait
from postweir.desk import explaining
from postweir.desk.explaining import Said, Used, Why
from postweir.outcomes import telling
from postweir.policy.flip import Flip, Turned

Policy = Annotated[
    str,
    typer.Option("--policy", metavar="POLICY", help="Ask this one too: FILE, pol_… or promoted."),
]
RECORDED_MAX = 40  # facts, where no rule names any; the rest is in --json


def add_to(message: typer.Typer) -> None:
    """Add this verb to `postweir message`."""
    message.command("why")(why)


def why(
    context: typer.Context, id: Id, *, policy: Policy = "", config: Config = CONFIG,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Say why: rule, facts, and what would have changed it."""
    found = wait(context, config, lambda office: explaining.why(office, id, policy))
    if as_json:
        return printing.show_json(found)
    printing.pairs(_heading(found))
    for line in _condition(found):
        printing.line(line)
    _facts(found)
    for line in _changes(found):
        printing.line(line)
    return None


def _heading(found: Why) -> list[tuple[str, object]]:
    then, now = found.then, found.verdict
    repeated = ""
    if found.same is not None:
        repeated = "the same verdict, byte for byte, from what was recorded"
        if not found.same:
            repeated = "NOT THE SAME: from what was recorded this policy now says otherwise"
    return [
        ("message", found.id),
        ("state", found.state),
        ("note", found.note),
        ("verdict", _verdict(then) if then else "none yet"),
        ("would be", _verdict(now) if now and found.same is not True else ""),
        ("rule", _rule(found)),
        ("help", found.help),
        ("policy", printing.short(found.policy)),
        ("judged again", repeated),
        ("not kept", f"{', '.join(found.unknown)}: taken for false or 0" if found.unknown else ""),
        ("on trial", f"rules in shadow that matched: {', '.join(found.shadow)}"
         if found.shadow else ""),
        ("killed", f"rules that an operator had left out: {', '.join(found.killed)}"
         if found.killed else ""),
        ("failed", "; ".join(found.errors)),
        ("findings", "; ".join(map(telling.describe, found.findings))),
    ]  # fmt: skip


def _verdict(said: Said) -> str:
    code = f"[{said.code}]" if said.code else ""
    retry = f"Retry in {said.retry_after_s} s." if said.retry_after_s else ""
    pool = f"by pool {said.pool}" if said.pool else ""
    return " ".join(filter(None, (said.verb, code, said.text, retry, said.header, pool)))


def _rule(found: Why) -> str:
    if not found.rule:
        return "none: no rule matched" if found.verdict or found.then else ""
    place = f", {found.place} of {found.places}" if found.place else ""
    who = "".join(
        f", {name} {value}"
        for name, value in (("owner", found.owner), ("severity", found.severity)) if value
    )  # fmt: skip
    return found.rule + place + who


def _condition(found: Why) -> Iterator[str]:
    if not found.condition:
        return
    yield ""
    joined = {"&&": ": all of", "||": ": one of"}.get(found.joined, "")
    yield f"the rule's condition{joined}"
    for part in found.parts:
        holds = {True: "true ", False: "false", None: "fails"}[part.holds]
        yield f"    {holds}  {part.text}"


def _facts(found: Why) -> None:
    if found.facts:
        printing.line()
        rows = [(one.fact, _with_unit(one), one.detail or one.meaning) for one in found.facts]
        printing.table(("fact", "value", "what it is"), rows, fold="what it is")
    elif found.verdict is None and found.recorded:
        printing.line()
        some = sorted(found.recorded.items())[:RECORDED_MAX]
        printing.table(("recorded fact", "value"), [(name, _value(value)) for name, value in some])


def _with_unit(one: Used) -> str:
    known = "not kept" if one.unknown else _value(one.value)
    unit = one.unit if not one.unknown and " to " not in one.unit else ""
    if one.value == 1:
        unit = unit.removesuffix("es") if unit.endswith("sses") else unit.removesuffix("s")
    return f"{known} {unit}".rstrip()


def _changes(found: Why) -> Iterator[str]:
    if found.verdict is None:
        return
    yield ""
    if not found.flips:
        yield "no one fact, nor two together, would have changed it"
        return
    yield "what would have changed it, the nearest first"
    for flip in found.flips:
        by = f", by rule {flip.rule}" if flip.rule else ""
        yield f"    {' and '.join(map(_turned, flip.changes))}: {_then(flip)}{by}"


def _then(flip: Flip) -> str:
    return {"accept": "accepted", "hold": "held", "refuse": "refused", "defer": "deferred",
            "tag": "tagged", "route": "routed", "throttle": "throttled"}.get(flip.verb, flip.verb)  # fmt: skip  # noqa: E501


def _turned(one: Turned) -> str:
    was, would = one.was, one.would
    if isinstance(was, list) and isinstance(would, list):
        gone = [item for item in was if item not in would]
        more = [item for item in would if item not in was]
        if not would:
            return f"{one.fact} empty"
        return f"{one.fact} without {gone[0]}" if gone else f"{one.fact} with {more[0]} too"
    return f"{one.fact} {_value(would)} instead of {_value(was)}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)
