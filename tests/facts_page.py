"""Writes `docs/facts.md` from the schema: `make facts`; a test compares the two."""

from pathlib import Path

from postweir.policy.facts import SCHEMA, SCHEMA_HASH
from postweir.policy.schema import ITEMS_MAX, TEXT_CHARS_MAX, Declared
from postweir.policy.verdict import Fact

PAGE = Path(__file__).resolve().parents[1] / "docs" / "facts.md"
ROOMS = {
    "connection": "The connection",
    "account": "The account",
    "sender": "The sender",
    "usage": "Usage: what was sent lately",
    "history": "History: what is usual",
    "limit": "Limits",
    "envelope": "The envelope",
    "header": "The header",
    "message": "The message's way",
    "body": "The body",
    "text": "The text",
    "urls": "The links",
    "attachments": "The attachments",
    "findings": "Findings of the scanners",
    "rspamd": "What rspamd says",
}
HEAD = f"""# Facts: what a rule may look at

Written by `make facts` from the schema `{SCHEMA_HASH}`; do not edit.

Every fact is always there. What could not be learnt has its neutral value, that no sensible rule
objects to. A text has at most {TEXT_CHARS_MAX} characters and a list {ITEMS_MAX} items of such
texts; what is longer is cut. A number larger than its bound counts as the bound. The flags `known`
say whether the facts beside them could be learnt: a rule that needs them asks for it first.

A policy adds facts of its own, which only its rules see (`docs/policy.md`): `set.ID` (bool),
`pattern.ID` (bool), `throttle.ID` (int, seconds to wait) and `limit.ID` (int).
"""


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for room, title in ROOMS.items():
        lines += [f"## {title}", "", "| fact | type | unit | neutral | what it says |"]
        lines.append("|---|---|---|---|---|")
        lines += [_row(fact) for name, fact in SCHEMA.items() if name.split(".")[0] == room]
        lines.append("")
    return "\n".join(lines)


def _row(fact: Declared) -> str:
    unit = fact.unit or " "
    sentence = fact.sentence.replace("|", "\\|")
    return f"| `{fact.name}` | {fact.type} | {unit} | `{_shown(fact.neutral)}` | {sentence} |"


def _shown(value: Fact) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
