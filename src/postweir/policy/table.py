"""One table of a policy, read key by key: values of their kind, and a fault for the rest."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from postweir.policy.meant import mean
from postweir.policy.source import Fault, fault_of, kind_of, note, shown

LINE_CHARS_MAX = 200  # with code, id and link a reply stays one line of RFC 5321 4.5.3.1.5
ID_CHARS_MAX = 64  # of what stands in logs, in metrics and in names of facts

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
RULE_ID = frozenset(_LETTERS + "0123456789-")
_FIRST = frozenset(_LETTERS)
FACT_ID = frozenset(_LETTERS + "0123456789_")  # a minus would be a minus in a condition

# CEL keeps these words for itself (its specification, "Syntax").
RESERVED = frozenset(
    ("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
     "let", "loop", "namespace", "null", "package", "return", "true", "var", "void", "while")
)  # fmt: skip


class Table:
    """A table with the place of its keys. What is asked for is always given, of its type."""

    def __init__(
        self,
        subject: str,  # "rule many", "set partners", or only the rule's id
        written: Mapping[str, Any],
        where: Callable[[str], str],  # of a key
        faults: list[Fault],
        prefix: str = "",  # before a key in sentences: "then."
    ) -> None:
        self.subject, self._written, self._where = subject, written, where
        self._faults, self._prefix = faults, prefix

    def __contains__(self, key: str) -> bool:
        return key in self._written

    def fault(self, key: str, what: str, do: str) -> None:
        """Note that something is wrong here."""
        note(self._faults, fault_of(self.subject, self._where(key), what, do))

    def only(self, known: Collection[str]) -> None:
        """Note each key that is not known."""
        for key in self._written:
            if key not in known:
                named = self._prefix + (key if key.isprintable() else shown(key))[:80]
                self.fault(key, f"{named} is not known", mean(key, known))

    def raw(self, key: str) -> Any:
        """Return what was written, None when nothing was."""
        return self._written.get(key)

    def text(self, key: str, default: str = "") -> str:
        """Return a text."""
        value = self._written.get(key, default)
        if isinstance(value, str):
            return value
        self.fault(key, f"{self._prefix}{key} is {kind_of(value)}", "write it as text in quotes")
        return default

    def line(self, key: str, most: int = LINE_CHARS_MAX) -> str:
        """Return a text of one line for people."""
        value = self.text(key)
        if len(value) > most or not value.isprintable():
            self.fault(key, f"{key} is too long or not printable", f"one line, at most {most}")
            return ""
        return value

    def choice(self, key: str, known: Collection[str], default: str = "", do: str = "") -> str:
        """Return one of the known words."""
        value = self.text(key, default)
        if value in known:
            return value
        if value == "" and key not in self._written:
            self.fault(key, f"{self._prefix}{key} is missing", "choose one of: " + ", ".join(known))
        else:
            self.fault(key, f"{self._prefix}{key} is {shown(value)}", do or mean(value, known))
        return default

    def number(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number between two bounds; without a default it has to be there."""
        value = self._written.get(key, default)
        name = self._prefix + key
        bounds = f"{least} to {most}"
        if value is None:
            self.fault(key, f"{name} is missing", f"write {key} = a whole number, {bounds}")
        elif type(value) is not int or not (least <= value <= most or value == default):
            do = f"whole seconds, {bounds}" if key.endswith("_s") else f"a whole number, {bounds}"
            self.fault(key, f"{name} is {shown(value)}", f"write {do}, without quotes")
        else:
            return value
        return default if default is not None else least

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._written.get(key, default)
        if isinstance(value, bool):
            return value
        self.fault(key, f"{key} is {shown(value)}", "write true or false, without quotes")
        return default

    def id(self, letters: frozenset[str], like: str) -> str:
        """Return the id; "" when there is none that can be used."""
        value = self.text("id")
        if not value:
            if isinstance(self._written.get("id", ""), str):
                self.fault("id", "there is no id", f'write id = "{like}"')
            return ""
        return value if self.is_id("id", value, letters) else ""

    def is_id(self, key: str, value: str, letters: frozenset[str] = FACT_ID) -> bool:
        """Return whether a word can be a name, and note why it cannot."""
        do = ""
        if len(value) > ID_CHARS_MAX or not letters.issuperset(value):
            sign = "-" if "-" in letters else "_"
            do = f"use a-z, 0-9 and {sign}, at most {ID_CHARS_MAX}"
        elif letters is FACT_ID and (value[:1] not in _FIRST or value in RESERVED):
            do = "begin it with a letter; the words of the language itself cannot be used"
        if do:
            self.fault(key, f"the id is {shown(value)}", do)
        return not do
