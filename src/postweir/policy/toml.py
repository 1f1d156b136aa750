"""A text as TOML has it, or where it stops being TOML and what its writer probably meant."""

import tomllib
from typing import Any

from postweir.policy.source import Fault, Source, Wrong, crowded_line


def tables(source: Source) -> dict[str, Any]:
    """Return what the text says. Raises Wrong."""
    line = crowded_line(source.text)
    if line:
        what = "has a key of more parts than any table has"
        raise Wrong([Fault(f"{source.name}:{line}", "", what, "begin a table with [[rule]]")])
    try:
        return tomllib.loads(source.text)
    except RecursionError:
        what = "is nested too deep to be read"
        raise Wrong([Fault(source.name, "", what, "no table of a policy needs that")]) from None
    except ValueError as fault:  # TOMLDecodeError, and what Python says of a number too long
        raise Wrong([_no_toml(source, str(fault))]) from None


def _no_toml(source: Source, said: str) -> Fault:
    """Return where a text stops being TOML, and what its writer probably meant."""
    what, _, place = said.partition(" (at ")
    number = place.removeprefix("line ").partition(",")[0]
    column = place.rpartition("column ")[2].rstrip(")")
    lines = source.text.splitlines()
    line = lines[int(number) - 1] if number.isdecimal() and int(number) <= len(lines) else ""
    where = f"{source.name}:{number}" if number.isdecimal() else source.name
    if column.isdecimal():
        what = f"column {column}: {what}"
    key, equals, value = (part.strip() for part in line.partition("="))
    if "Illegal character '\\n'" in what:
        do = "a quote is not closed on this line"
    elif value.startswith("{") and "}" not in value:
        do = "what stands in { } stands on one line"
    elif value.startswith('"') and value.count('"') > 2 and key == "when":
        do = f"a condition with \" in it stands in single quotes: {key} = '...'"
    elif equals and value[:1] not in ('"', "'"):
        do = f'a text stands in quotes: {key[:40]} = "..."'
    else:
        do = "correct the line; TOML is explained at https://toml.io"
    return Fault(where, "", f"is not TOML: {what}", do)
