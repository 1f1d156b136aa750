"""The page about the policy is true."""

import contextlib
import io
from pathlib import Path

import pytest
from tests import facts_page
from tests.policy.test_policy_mistakes import check

from postweir.cli import app
from postweir.cli.words import Doors
from postweir.judge.bundles import shipped
from postweir.policy import deeds, dialect, document, keys, measures, rules, sets, trials
from postweir.policy.bundle import KEYS, TEXTS, THROTTLE_KEYS, THROTTLE_OF
from postweir.policy.facts import ITEMS_MAX, SCHEMA, TEXT_CHARS_MAX
from postweir.policy.verdict import VERBS
from postweir.scan import patterns

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policy.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


def test_every_rule_of_the_shipped_policy_has_its_line(page):
    """In order, and with the very words that a sender reads."""
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    places = []
    for rule in shipped().rules:
        (place,) = (n for n, row in enumerate(rows) if row.startswith(f"| `{rule.id}` |"))
        places.append(place)
        if rule.verb != "hold":
            status = "550 5.7.1" if rule.verb == "refuse" else "450 4.7.1"
            assert f"`{status} [{rule.code}] {rule.text}" in rows[place]
        else:
            assert "held" in rows[place]

    assert places == sorted(places)


def test_the_page_of_facts_is_the_schema():
    """Written anew by `make facts`; every fact stands under a title."""
    written = facts_page.PAGE.read_text("utf-8")

    assert written == facts_page.page(), "run make facts"
    assert all(f"| `{name}` | " in written for name in SCHEMA)


def blocks(text: str) -> list[tuple[str, str]]:
    """Return (kind, what it says) of each fenced piece."""
    pieces = text.split("```")[1::2]
    return [(kind, rest) for kind, _, rest in (piece.partition("\n") for piece in pieces)]


def test_the_examples_pass_the_check(page):
    """Each rule and table that is shown, and each condition of the table that is a whole one."""
    examples = [text for kind, text in blocks(page.partition("## A rule")[2]) if kind == "toml"]
    conditions = [
        "findings.spam > 1.0", 'header.from_domain.endsWith(".example.com")',
        'envelope.from_domain in ["example.com", "example.org"]', '"cut" in body.anomalies',
        'envelope.recipient_domains.exists(d, d.endsWith(".example"))',
        "usage.bounced_1d * 10 > usage.delivered_1d",
        "usage.messages_1d > 0 && usage.bounced_1d / usage.messages_1d > 2",
    ]  # fmt: skip

    assert len(examples) == 2
    for example in examples:
        assert check(example, lambda _: b"a.example\n") == []
    for condition in conditions:
        assert f"`{condition}`" in page
        text = f'[[rule]]\nid = "a"\nwhen = \'{condition}\'\nthen = {{ verb = "hold" }}\n'
        assert check(text) == []


def test_every_word_of_a_policy_is_explained(page):
    """Keys, verbs and what belongs to them, and what sets, patterns and throttles may be of."""
    for key in (*rules.KEYS, "facts", "matches", "name", *rules.MODES, *rules.SEVERITIES):
        assert f"`{key}`" in page, key
    verbs = page.partition("| verb | keys |")[2].partition("\n\n")[0]
    for verb in VERBS:
        (row,) = (line for line in verbs.splitlines() if line.startswith(f"| `{verb}` |"))
        beside = row.split(" | ")[1]
        assert set(beside.split("`")[1::2]) == set(deeds.keys_of(verb))
    for word in (*deeds.KEYS[1:], *KEYS, *TEXTS, *THROTTLE_KEYS, *THROTTLE_OF):
        assert f"`{word}`" in page or f"`then.{word}`" in page, word


def test_the_limits_are_those(page):
    """Numbers of the page are numbers of the code."""
    said = page.replace(",", "")

    assert f"{document.BYTES_MAX // 1024} KiB a file {rules.RULES_MAX} rules" in said
    assert f"{trials.TESTS_MAX} tests a rule" in said
    assert f"{rules.CONDITION_CHARS_MAX} characters and {dialect.NODES_MAX} nodes" in said
    assert f"{dialect.COST_MAX} steps a rule {dialect.COST_TOTAL_MAX} all rules" in said
    assert f"at most {TEXT_CHARS_MAX} characters and a list {ITEMS_MAX} items" in said
    assert f"{sets.SETS_MAX} sets of {sets.KEYS_MAX} keys and {sets.BYTES_MAX >> 20} MiB" in said
    measured = f"{measures.PATTERNS_MAX} patterns of {measures.PATTERN_CHARS_MAX} characters"
    assert f"{measured} {patterns.MEMORY_BYTES_MAX >> 20} MiB each" in said
    assert f"{measures.THROTTLES_MAX} throttles {measures.LIMITS_MAX} limits" in said
    assert f"a network of at most {keys.NETWORK_SIZE_MAX}" in said
    assert f"a minute to {deeds.HOLD_S_MAX // 86400} days" in said
    assert f"a minute to {deeds.LIFETIME_S_MAX // 86400} days" in said
    sample = page.partition("column 6: there")[0].rpartition("```\n")[2]
    assert sample.startswith("mine.toml:3: rule many: in the condition, ")


MINE = Path("mine.toml")


@pytest.mark.real
def test_a_newcomer_can_follow_the_first_ten_minutes(page, tmp_path, monkeypatch):
    """Every file is written and every command typed as the page says, and says what it says."""
    monkeypatch.chdir(tmp_path)
    typed, shipped_rules = 0, ""
    for kind, text in blocks(page.partition("## Ten minutes")[2].partition("\n## ")[0]):
        if kind == "console":
            command, _, shown = text.removeprefix("$ ").partition("\n")
            assert_shown(shown, typing(*command.split()[1:]))
            typed += 1
            shipped_rules = shipped_rules or MINE.read_text()
        elif kind == "text":
            Path(text.split()[1]).write_text(text, "utf-8")
        elif text.startswith("[["):
            MINE.write_text(text + "\n" + shipped_rules)
        elif kind == "toml":
            before, last, rest = MINE.read_text().partition("set.partners = true }\n")
            MINE.write_text(before + last + text + rest)

    assert typed == 4
    for word in ("replay", "deploy", "status", "rollback", "kill"):
        assert f"postweir policy {word}" in page
        assert word in typing("policy", "--help")


def typing(*words: str) -> str:
    """Return what a command says."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        app.main(words, Doors(None, None, None))  # type: ignore[arg-type]
    return out.getvalue()


def assert_shown(shown: str, said: str) -> None:
    """Each line of the page is said, in order; figures and names differ, `...` leaves some out."""
    lines = iter(masked(said))
    for line in masked(shown):
        assert line == "..." or line in lines, f"{line!r} is not in {said}"


def masked(text: str) -> list[str]:
    """Return the lines without what the clock, the machine or the shipped policy decides."""
    return [
        "rules" if line.startswith("rules ") else " ".join(map(_masked, line.split()))
        for line in text.splitlines()
        if line.strip()
    ]


def _masked(word: str) -> str:
    if word.startswith("pol_"):
        return "pol_"
    return "N" if word.strip("(%)").replace(",", "").isdigit() else word
