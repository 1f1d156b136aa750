"""`postweir policy new`, `check` and `test`: what is done with a file alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import CONFIG, Config, Json, group
from postweir.desk import policies
from postweir.desk.policies import Checked, Fault, Summary, Test

policy = group("Rules: what we do about a message.")

FAULTY, FAILED = 2, 1
_MARKS = {True: "ok", False: "failed"}

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy in TOML.")]

NewFile = Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")]


@policy.command("new")
def new(file: NewFile, _: Config = CONFIG, as_json: Json = False) -> None:
    """Write the default policy into a new file."""
    made = policies.new(file)
    if as_json:
        return printing.show_json({"file": str(made)})
    return printing.line(f"{made} written; check it with: postweir policy check {made}")


@policy.command("check")
def check(file: File, _: Config = CONFIG, as_json: Json = False) -> None:
    """Check a policy: line, rule and what to do."""
    progress = printing.Progress()
    found = policies.check(file, progress.of)
    progress.end()
    if as_json:
        printing.show_json(found)
    elif found.ok:
        _good(found)
    else:
        show(found.faults)
    if not found.ok:
        raise typer.Exit(FAULTY)


@policy.command("test")
def run_tests(file: File, _: Config = CONFIG, as_json: Json = False) -> None:
    """Run a policy's own tests, and say of each what it came to."""
    found = policies.run_tests(file)
    if as_json:
        printing.show_json(found)
    elif found.faults and not found.tests:
        show(found.faults)
    elif not found.tests:
        printing.line(f"{file}: there are no tests; write [[rule.test]] below a rule")
    else:
        _tested(found.tests)
    if not found.ok:
        raise typer.Exit(FAILED if found.tests else FAULTY)


def show(faults: Sequence[Fault], mark: str = "") -> None:
    """Print faults: where and what on one line, what to do on the next."""
    for fault in faults:
        rule = f"rule {fault.rule}: " if fault.rule else ""
        printing.line(f"{fault.where}: {mark}{rule}{fault.what}")
        printing.line(f"    {fault.do}")


def _good(found: Checked) -> None:
    printing.line(f"{found.file}: good, {printing.short(found.policy)}")
    printing.line()
    printing.pairs(_amounts(found.summary))
    printing.line()
    printing.table(
        ["passed", "ms", "tried"], [[one.name, one.took_ms, one.said] for one in found.passed]
    )
    if found.notices:
        printing.line()
        show(found.notices, "note: ")


def _amounts(summary: Summary) -> list[tuple[str, object]]:
    verbs = ", ".join(f"{count} {verb}" for verb, count in summary.verbs.items())
    share = 100 * summary.cost / summary.cost_max
    return [
        ("rules", f"{summary.rules}: {verbs}"),
        ("on trial", ", ".join(summary.shadow)),
        ("off", ", ".join(summary.off)),
        ("sets", ", ".join(f"{name} ({size:,} keys)" for name, size in summary.sets.items())),
        ("patterns", ", ".join(summary.patterns)),
        ("throttles", ", ".join(summary.throttles)),
        ("limits", ", ".join(f"{name} = {value:,}" for name, value in summary.limits.items())),
        ("tests", summary.tests),
        ("cost", f"{summary.cost:,} of {summary.cost_max:,} steps at worst ({share:.0f} %)"),
    ]


def _tested(tests: Sequence[Test]) -> None:
    for one in sorted(tests, key=lambda one: not one.ok):  # what failed stands where one looks
        name = f": {one.name}" if one.name else ""
        printing.line(f"{_MARKS[one.ok]:6}  {one.rule}, test {one.number}{name}")
        if not one.ok:
            expected = "true" if one.expected else "false"
            printing.line(f"        {one.where}: it should be {expected}, and is {one.came}")
            for fact, value in {**one.facts, **one.texts, **one.keys}.items():
                printing.line(f"        with {fact} = {_shown(value)}")
            for part in one.parts:
                printing.line(f"        {part.came:5}  {part.text}")
    failed = sum(not one.ok for one in tests)
    printing.line(
        f"{len(tests)} tests, {failed} failed" if failed else f"{len(tests)} tests, all ok"
    )


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
