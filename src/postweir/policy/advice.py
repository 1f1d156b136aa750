"""What the compiler says of a condition, and what to do about it, for one who never saw CEL."""

import difflib
from collections.abc import Collection

NAME_CHARS_MAX = 100  # shown of a name that is none: the longest fact has 40
_UNKNOWN = "undeclared reference to '"
_OVERLOAD = "found no matching overload for '"
_SYNTAX = "Syntax error: "
_WORDS = {  # what other languages have instead
    "and": "write && for and", "or": "write || for or", "not": "write ! before what must not be",
    "is": "to compare, write ==", "AND": "write && for and", "OR": "write || for or",
    "&": "write && for and", "|": "write || for or", "=>": "write >=", "=<": "write <=",
    "=": "to compare, write ==", "<>": "write !=", "~": "write .contains(...)",
    "=~": "a regular expression stands in a [[pattern]]: ask for pattern.ID",
}  # fmt: skip
_NAMES = {
    "len": "write size(...)", "length": "write size(...)", "count": "write size(...)",
    "True": "write true", "False": "write false", "TRUE": "write true", "FALSE": "write false",
    "None": 'a text that is not there is ""', "startswith": "write startsWith(...)",
    "endswith": "write endsWith(...)", "any": "write LIST.exists(x, ...)",
    "lower": "domains are in lower case already", "upper": "domains are in lower case",
    "lowerAscii": "domains are in lower case already",
}  # fmt: skip
OWN = ("set", "pattern", "throttle", "limit")  # rooms of facts that a policy has of its own
_CURLY = "\u201c\u201d\u2018\u2019\u00ab\u00bb"


def told(
    said: str, *, condition: str, line: int, column: int, facts: Collection[str]
) -> tuple[str, str]:
    """Return what is wrong at this place of a condition, and what to do."""
    if " not taken" in said:  # the dialect's own words have both
        what, _, do = said.partition(": ")
        return what, do or "leave it out"
    if _UNKNOWN in said:
        return _of_name(said.partition(_UNKNOWN)[2].partition("'")[0], facts)
    if _OVERLOAD in said:
        return _of_types(said.partition(_OVERLOAD)[2])
    if said.startswith(_SYNTAX):
        lines = condition.splitlines()
        text = lines[line - 1] if 0 < line <= len(lines) else ""
        return "it cannot be read from here on", _of_words(said, text[: column - 1], text[column - 1 :])  # fmt: skip  # noqa: E501
    if "recursion limit" in said or "recursion depth" in said:
        return "it is nested too deep", "leave out brackets, or make two rules of it"
    if "no question" in said:
        return said, "compare it with something, as in usage.messages_1h > 300"
    if "loops in one another" in said:
        return said, "exists, all and exists_one are loops; make two rules of it"
    return said, "make the condition smaller, or two rules of it"


def _of_name(name: str, facts: Collection[str]) -> tuple[str, str]:
    name = name[:NAME_CHARS_MAX]
    if name in _NAMES:
        return f"{name} is not known", _NAMES[name]
    room, dot, own = name.partition(".")
    here = [known for known in facts if known.partition(".")[0] == room]
    if dot and room in OWN:
        return _of_own(room, own, [known.partition(".")[2] for known in here])
    near = difflib.get_close_matches(name[:80], facts, n=1, cutoff=0.6)
    if near:
        return f"there is no fact {name}", f"did you mean {near[0]}?"
    if here:
        return f"there is no fact {name}", "there are " + ", ".join(here)
    if not dot:
        return f"{name} is not known", f'a text stands in quotes: "{name}"; a fact has a dot in it'
    rooms = sorted({known.partition(".")[0] for known in facts})
    return f"there is no fact {name}", "facts begin with " + ", ".join(rooms)


def _of_own(kind: str, name: str, declared: list[str]) -> tuple[str, str]:
    """Say what a policy lacks of its own."""
    near = difflib.get_close_matches(name[:80], declared, n=1, cutoff=0.5)
    if near:
        return f"there is no {kind} {name}", f"did you mean {kind}.{near[0]}?"
    if kind == "limit":
        return f"there is no limit {name}", f"write below [limits]: {name[:40]} = a number"
    return f"there is no {kind} {name}", f'declare it: [[{kind}]] id = "{name[:40]}"'


def _of_types(said: str) -> tuple[str, str]:
    """Say which types go together: `1` is an int, `1.0` a double, `"1"` a string."""
    operator = said.partition("'")[0].strip("_@")
    inner = said.partition("applied to '(")[2].rpartition(")'")[0]
    types = inner.replace("list(string)", "list").split(", ")
    what = f"{operator} does not take {' and '.join(types)}"
    pair = set(types)
    if pair == {"double", "int"} and types[0] == "double":
        return what, "this fact may be a fraction: write 1.0, not 1"
    if pair == {"double", "int"}:
        return what, "this fact is a whole number: write 3, not 3.0"
    if operator == "in":
        return what, 'to look into a text, write FACT.contains("...")'
    if types[0] == "list":
        return what, 'to look into a list, write "..." in FACT'
    if pair == {"int", "string"}:
        return what, "numbers have no quotes, and texts have"
    if "bool" in pair:
        return what, "write true or false without quotes, or the fact alone"
    return what, "compare things of one type"


def _of_words(said: str, before: str, after: str) -> str:
    if any(c in _CURLY for c in before[-1:] + after[:1]):
        return 'write straight quotes: "'
    if "'<EOF>'" in said and "missing" in said:
        return "a bracket or a quote is not closed"
    found = after.split(maxsplit=1)[0] if after.split() else ""
    last = before.rsplit(maxsplit=1)[-1] if before.split() else ""
    for word in (found, found[:2], found[:1], last):
        if word in _WORDS:
            return _WORDS[word]
    if "token recognition error" in said and found[:1] in ("'", '"'):
        return "a quote is not closed"
    return 'a condition reads like: usage.messages_1h > 300 && sender.state != "allowed"'
