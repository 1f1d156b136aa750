"""docs/rules has a page for each rule of the shipped policy, and the pages are true."""

import re
from pathlib import Path

import pytest

from postweir.judge.bundles import shipped
from postweir.policy.bundle import Rule
from postweir.policy.facts import SCHEMA

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES = shipped().rules
STATUS = {"refuse": "550 5.7.1 ", "defer": "450 4.7.1 ", "throttle": "450 4.7.1 ", "hold": ""}
HEADINGS = [
    "If it was your message", "If you run the relay", "How often it is wrong",
    "To try it without effect",
]  # fmt: skip
FACT = re.compile(r"`([a-z]+\.[a-z_0-9]+)`")
COMMAND = re.compile(r"`postweir ([a-z]+(?: [a-z]+)?)")


def page(name: str) -> str:
    return (DOCS / "rules" / f"{name}.md").read_text("utf-8")


def named(rule: Rule) -> set[str]:
    """Return the facts of a condition."""
    own = {fact.name for fact in shipped().own_facts()}
    return set(re.findall(r"[a-z]+\.[a-z_0-9]+", rule.when)) & (own | SCHEMA.keys())


def reply(rule: Rule) -> str:
    """Return what a sender or an operator reads."""
    again = (
        f" Retry in {rule.retry_after_s or '…'} s." if rule.verb in ("defer", "throttle") else ""
    )
    return f"{STATUS[rule.verb]}[{rule.code}] {rule.text}{again}"


def test_there_is_a_page_for_each_rule_and_no_other():
    """The list has them in order, each with what it does."""
    pages = {path.stem for path in (DOCS / "rules").glob("*.md")} - {"README"}
    rows = [line for line in page("README").splitlines() if line.startswith("| [`")]

    assert pages == {rule.id for rule in RULES}
    for rule, row in zip(RULES, rows, strict=True):
        says = f"| [`{rule.id}`]({rule.id}.md) | {rule.verb} | `{rule.code}` | {rule.severity} | "
        assert row.startswith(says)


def test_each_code_has_its_rules():
    """What `edge.help_url` may lead to: a heading for each code, the help of each of its rules."""
    parts = page("README").partition("## By code")[2].split("\n### ")[1:]
    listed = {part.split("\n")[0]: part for part in parts}

    assert listed.keys() == {rule.code for rule in RULES}
    for rule in RULES:
        assert f"- [`{rule.id}`]({rule.id}.md): {rule.help}\n" in listed[rule.code] + "\n"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_page_says_what_the_rule_says(rule):
    """Verb, code, severity, owner, all its facts and no other, the reply, the help."""
    text = page(rule.id)
    lines = text.splitlines()
    asks = text.partition("\nIt asks ")[2].partition("\n\n")[0]

    assert lines[0] == f"# {rule.id}"
    assert f"| `{rule.verb}` | `{rule.code}` | {rule.severity} | {rule.owner} |" in lines
    assert set(FACT.findall(asks)) == named(rule)
    assert reply(rule) in lines
    assert f"> {rule.help}" in lines
    assert [line[3:] for line in lines if line.startswith("## ")] == HEADINGS
    assert f'`postweir policy kill {rule.id} --reason "..."`' in text
    assert len(lines) <= 50


def test_what_pages_name_exists():
    """Commands are those of docs/commands.md, facts and limits those of the policy."""
    commands = (DOCS / "commands.md").read_text("utf-8")
    facts = SCHEMA.keys() | {fact.name for fact in shipped().own_facts()}
    rooms = {name.partition(".")[0] for name in facts}
    for rule in RULES:
        text = page(rule.id)
        for command in COMMAND.findall(text):
            assert f"### `postweir {command}" in commands, (rule.id, command)
        for fact in FACT.findall(text):
            assert fact in facts or fact.partition(".")[0] not in rooms, (rule.id, fact)


def test_every_shipped_rule_is_whole():
    """Owner, severity and help; a test that it is true of, and one that it is not."""
    for rule in RULES:
        assert all((rule.owner, rule.severity, rule.help)), rule.id
        assert {test.matches for test in rule.tests} == {True, False}, rule.id
