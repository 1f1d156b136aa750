"""A policy's text: where in it things stand, and what is said of what is wrong there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DOTS_MAX = 100  # of a line, outside quotes: the time to read a dotted key grows with their square
FAULTS_MAX = 100  # of a text; more at once help nobody
SHOWN_CHARS_MAX = 60  # of what somebody wrote, in a sentence about it


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a policy: where, what, and what to do."""

    where: str  # "policy.toml:12", with a column where one is known
    rule: str  # its id, "" when the fault is not of a rule
    what: str
    do: str

    def __str__(self) -> str:
        rule = f"rule {self.rule}: " if self.rule else ""
        return f"{self.where}: {rule}{self.what}\n    {self.do}"


def fault_of(subject: str, where: str, what: str, do: str) -> Fault:
    """Return a fault of a rule by its id, or of another thing by words: "set partners"."""
    if " " in subject:
        return Fault(where, "", f"{subject}: {what}", do)
    return Fault(where, subject, what, do)


class Wrong(Exception):
    """The text is no policy; `faults` says all that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


# table ("rule", "rule.test", "limits", ""), the n-th of its kind (a test's: of its rule),
# its rule (else as before), key ("" where the table begins)
_Place = tuple[str, int, int, str]


def note(faults: list[Fault], one: Fault) -> None:
    """Add a fault. Raises Wrong when there are as many as anybody reads: to find what was meant
    takes a millisecond each, and a file has room for thousands."""
    faults.append(one)
    if len(faults) >= FAULTS_MAX:
        raise Wrong(faults)


@dataclass(frozen=True, slots=True)
class Source:
    """A policy's text, and where in it things stand: found by its lines, as the parser keeps none.

    Tables that are written in braces have no lines of their own; then only the file is named.
    """

    name: str
    text: str
    _lines: dict[_Place, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lines: dict[_Place, int] = {}
        for place, line in _places(self.text):
            lines.setdefault(place, line)
        object.__setattr__(self, "_lines", lines)

    def line_of(self, rule: int, key: str = "", *, table: str = "rule") -> int:
        """Return the line of the n-th rule (from 0), or of a key in it; 0 when not found."""
        return self._line(table, rule, rule, key)

    def condition_line(self, rule: int) -> int:
        """Return the line where the n-th rule's condition begins; 0 when not found."""
        line = self._lines.get(("rule", rule, rule, "when"), 0)
        if not line:
            return 0
        # In three quotes it begins on the next line, when nothing stands after them (TOML 1.0).
        opened = self.text.splitlines()[line - 1].rstrip().endswith(("'''", '"""'))
        return line + opened

    def where(self, index: int = -1, key: str = "", *, table: str = "rule") -> str:
        """Return `file:line` of the n-th table of its kind, as near as can be found."""
        return self._named(self._line(table, index, index, key) if index >= 0 else 0)

    def where_test(self, rule: int, test: int, key: str = "") -> str:
        """Return `file:line` of a rule's n-th test."""
        return self._named(self._line("rule.test", test, rule, key) or self.line_of(rule))

    def where_is(self, key: str) -> str:
        """Return `file:line` of a table, or of a key outside of all tables."""
        for (table, _, _, inner), line in self._lines.items():
            if table.partition(".")[0] == key or (not table and inner == key):
                return f"{self.name}:{line}"
        return self.name

    def _named(self, line: int) -> str:
        return f"{self.name}:{line}" if line else self.name

    def _line(self, table: str, index: int, parent: int, key: str) -> int:
        begin = self._lines.get((table, index, parent, ""), 0)
        return self._lines.get((table, index, parent, key), begin)


def crowded_line(text: str) -> int:
    """Return the first line whose keys are too deep to be read in time, 0 for none."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > DOTS_MAX and _bare(line).count(".") > DOTS_MAX:
            return number
    return 0


def shown(value: object) -> str:
    """Return what somebody wrote, short, on one line, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to print thousands
        return "a number without end"
    if isinstance(value, dict | list):  # may hold such a number
        return "a table" if isinstance(value, dict) else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."


def kind_of(value: object) -> str:
    """Return what a value of TOML is called."""
    names = {bool: "true or false", int: "a whole number", float: "a fraction", str: "a text",
             list: "a list", dict: "a table"}  # fmt: skip
    return names.get(type(value), "a time")


def _places(text: str) -> Iterator[tuple[_Place, int]]:
    """Yield every table and key with its line. What stands inside a long text is neither."""
    counts: dict[str, int] = {}
    table, index, parent, quote, depth = "", 0, 0, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not quote and not depth:
            if words.startswith("["):
                table = "".join(words.lstrip("[").partition("]")[0].split()).replace('"', "")
                parent = counts.get("rule", 0) - 1
                kind = f"{table} {parent}" if "." in table else table
                index = counts.get(kind, 0)
                counts[kind] = index + 1
                if "." not in table:
                    parent = index
                yield (table, index, parent, ""), number
                continue
            key, equals, _ = words.partition("=")
            if equals and not key.startswith("#"):
                key = key.partition(".")[0].strip().strip("\"'")
                yield (table, index, parent, key), number
        quote, depth = _after(line, quote, depth)


def _after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """Return the long quote and the depth of brackets that are open at the end of a line."""
    if not quote and not depth and not any(s in line for s in ("[", "'''", '"""')):
        return "", 0
    at = 0
    while at < len(line):
        if quote:
            if quote[0] == '"' and line[at] == "\\":
                at += 1
            elif line.startswith(quote, at):
                at += len(quote) - 1
                quote = ""
        elif line[at] in "\"'":
            quote = line[at] * 3 if line.startswith(line[at] * 3, at) else line[at]
            at += len(quote) - 1
        elif line[at] == "#":
            break
        else:
            depth += (line[at] in "[{") - (line[at] in "]}")
        at += 1
    return (quote if len(quote) == 3 else ""), max(depth, 0)


def _bare(line: str) -> str:
    """Return a line without what stands in quotes."""
    kept, quote = [], ""
    for c in line:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        else:
            kept.append(c)
    return "".join(kept)
