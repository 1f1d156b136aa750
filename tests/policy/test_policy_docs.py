"""The page about the policy is true."""

from pathlib import Path

import pytest
from tests import facts_page
from tests.policy.test_policy_mistakes import check

from postweir.judge.bundles import shipped
from postweir.policy import dialect, document
from postweir.policy.facts import ITEMS_MAX, SCHEMA, TEXT_CHARS_MAX

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
        if rule.verb in ("refuse", "defer"):
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


def test_the_examples_pass_the_check(page):
    """The rule, and each condition of the table that is a whole one."""
    example = page.partition("```toml\n")[2].partition("```")[0]
    conditions = [
        "findings.spam > 1.0", 'header.from_domain.endsWith(".example.com")',
        'envelope.from_domain in ["example.com", "example.org"]', '"cut" in body.anomalies',
        'envelope.recipient_domains.exists(d, d.endsWith(".example"))',
    ]  # fmt: skip

    assert check(example) == []
    for condition in conditions:
        assert f"`{condition}`" in page
        text = f'[[rule]]\nid = "a"\nwhen = \'{condition}\'\nthen = {{ verb = "hold" }}\n'
        assert check(text) == []


def test_the_limits_are_those(page):
    """Numbers of the page are numbers of the code."""
    said = page.replace(",", "")

    assert f"{document.BYTES_MAX // 1024} KiB a file {document.RULES_MAX} rules" in said
    assert f"{document.CONDITION_CHARS_MAX} characters and {dialect.NODES_MAX} nodes" in said
    assert f"{dialect.COST_MAX} steps a rule {dialect.COST_TOTAL_MAX} all rules" in said
    assert f"at most {TEXT_CHARS_MAX} characters and a list {ITEMS_MAX} items" in said
    sample = page.partition("column 6: there")[0].rpartition("```\n")[2]
    assert sample.startswith("mine.toml:3: rule many: in the condition, ")
