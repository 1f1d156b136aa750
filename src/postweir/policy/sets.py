"""The `[[set]]` tables of a policy: many keys, from a file beside it or written in it."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from postweir.policy import keys
from postweir.policy.bundle import KEYS, Set, set_bytes, set_name
from postweir.policy.source import Fault, fault_of, note, shown
from postweir.policy.table import FACT_ID, Table

SETS_MAX = 50
# Of all sets together: what a worker holds of so many takes half a gigabyte.
KEYS_MAX = 1_000_000
BYTES_MAX = 64 * 1024 * 1024
NAME_CHARS_MAX = 255
FAULTS_MAX = 10  # of one file: a list of the wrong kind is wrong in every line

# Gives the bytes of a file that the policy names, or a sentence: why it cannot be read.
Files = Callable[[str], bytes | str]


@dataclass(frozen=True, slots=True)
class Made:
    """One set, and the bytes that it is named after."""

    set: Set
    data: bytes


class Shelf:
    """Reads the sets of one policy, within one bound for all of them."""

    def __init__(self, files: Files, folder: str, faults: list[Fault]) -> None:
        self._files, self._folder, self._faults = files, folder, faults
        self._keys, self._bytes = KEYS_MAX, BYTES_MAX  # still free

    def read(self, table: Table) -> Made | None:
        """Return the set that a table says; None, with its faults noted, when it is none."""
        table.only(("id", "of", "file", "items"))
        name = table.id(FACT_ID, "partners")
        of = table.choice("of", KEYS)
        if ("file" in table) == ("items" in table):
            do = 'write file = "partners.txt", or items = ["a.example"]'
            table.fault("file", "needs a file or items, one of the two", do)
            return None
        if not of:
            return None
        found = self._of_items(table, of) if "items" in table else self._of_file(table, of)
        if found is None or not name:
            return None
        data = set_bytes(frozenset(found))
        self._keys -= len(found)
        self._bytes -= len(data)
        if self._keys < 0 or self._bytes < 0:
            do = f"all sets together have at most {KEYS_MAX:,} keys and {BYTES_MAX >> 20} MiB"
            table.fault("file", "is too large", do)
            return None
        return Made(Set(name, of, set_name(data), len(found)), data)

    def _of_items(self, table: Table, of: str) -> set[str] | None:
        written = table.raw("items")
        if not isinstance(written, list) or not all(isinstance(each, str) for each in written):
            table.fault("items", "items is no list of texts", 'write items = ["a.example", ...]')
            return None
        found: set[str] = set()
        wrong = list(_into(found, of, ((0, each) for each in written), self._keys))
        for _, text in wrong[:FAULTS_MAX]:
            table.fault("items", f"{shown(text)} is no key of {of}", f"write {keys.wanted(of)}")
        return None if wrong else found

    def _of_file(self, table: Table, of: str) -> set[str] | None:
        name = table.text("file")
        fault = file_name_fault(name)
        if fault:
            do = "put it into the policy's folder, or below it, and write only its name"
            table.fault("file", f"{shown(name)} {fault}", do)
            return None
        data = self._files(name)
        if isinstance(data, str):
            table.fault("file", data, "a set's file lies beside the policy: one key a line")
            return None
        found: set[str] = set()
        wrong = list(_wrong_lines(found, of, data, self._keys))
        for line, what, do in wrong:
            where = f"{self._folder}{name}:{line}"
            note(self._faults, fault_of(table.subject, where, what, do))
        return None if wrong else found


def file_name_fault(name: str) -> str:
    """Return why a name is not one of a file beside the policy, "" when it is.

    A policy is handed on and kept whole; and one that a stranger wrote must not show, line by
    line in our complaints, what else is on this machine.
    """
    if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
        return "is no name of a file"
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        return "is not beside the policy"
    return ""


def _wrong_lines(
    found: set[str], of: str, data: bytes, most: int
) -> Iterator[tuple[int, str, str]]:
    """Gather a file's keys; yield (line, what, what to do) for the first that are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        yield line, "is not UTF-8", "save the file as UTF-8"
        return
    entries = _entries(text.removeprefix("\ufeff").split("\n"))
    for line, entry in itertools.islice(_into(found, of, entries, most), FAULTS_MAX):
        yield line, f"{shown(entry)} is no key of {of}", f"write {keys.wanted(of)}"


def _entries(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, entry) without comments: `#` begins one where a word could begin."""
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if "#" in entry:
            entry = "" if entry.startswith("#") else _uncommented(entry)
        if entry:
            yield number, entry


def _uncommented(line: str) -> str:
    for mark in (" #", "\t#"):
        line = line.partition(mark)[0]
    return line.strip()


def _into(
    found: set[str], of: str, entries: Iterable[tuple[int, str]], most: int
) -> Iterator[tuple[int, str]]:
    """Put keys into `found` as they are compared, until there are too many; yield the others."""
    for line, entry in entries:
        key = keys.normal(of, entry)
        if key:
            found.add(key)
        elif of == "client" and (addresses := list(keys.network(entry))):
            found.update(addresses)
        else:
            yield line, entry
        if len(found) > most:
            return
