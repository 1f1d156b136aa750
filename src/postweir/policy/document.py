"""A policy as people write it: a TOML text becomes a bundle, or a list of all that is wrong."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from postweir.policy import measures, notes, order, schema, sets, toml
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.facts import SCHEMA
from postweir.policy.meant import near
from postweir.policy.rules import RULES_MAX, Rules
from postweir.policy.sets import Files, Made
from postweir.policy.source import Fault, Source, Wrong, fault_of, kind_of, note, shown
from postweir.policy.table import Table

__all__ = ["Fault", "Files", "Parsed", "Source", "Wrong", "no_files", "parse"]

BYTES_MAX = 256 * 1024  # 500 rules of half a screen; more are a list, and lists are sets

_MOST = {
    "rule": RULES_MAX, "set": sets.SETS_MAX, "pattern": measures.PATTERNS_MAX,
    "throttle": measures.THROTTLES_MAX,
}  # fmt: skip
_TABLES = (*_MOST, "limits")


def no_files(name: str) -> str:
    """Stand for the files of a policy that is no file itself: there is nothing beside it."""
    return f"{name} cannot be read: there is no folder to look in"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A policy as it was written, and what it amounts to."""

    bundle: Bundle
    source: Source
    sets: dict[str, bytes] = field(default_factory=dict)  # by set_<sha256>, as they are kept
    notices: tuple[Fault, ...] = ()  # what its author should know, and may leave as it is


def parse(text: str, name: str, files: Files = no_files) -> Parsed:
    """Return the policy that a TOML text is. Raises `Wrong` with all faults."""
    text = text.removeprefix("\ufeff")  # some editors put it there
    if len(text) > BYTES_MAX or len(text.encode("utf-8", "replace")) > BYTES_MAX:
        what = f"is larger than {BYTES_MAX // 1024} KiB"
        raise Wrong([Fault(name, "", what, "shorten it; long lists belong in a [[set]]")])
    reading = _Reading(Source(name, text), files)
    parsed = reading.parsed()
    if reading.faults:
        raise Wrong(reading.faults)
    return parsed


class _Reading:
    """One document, and what is wrong with it so far."""

    def __init__(self, source: Source, files: Files) -> None:
        self.faults: list[Fault] = []
        self._source, self._files = source, files
        self._document = toml.tables(source)
        for key in self._document:
            if key not in _TABLES:
                self._fault(source.where_is(key), f"{shown(key)[1:-1]} is not known", _table(key))
        self._written = {kind: self._listed(kind) for kind in _MOST}

    def parsed(self) -> Parsed:
        made = self._sets()
        declared = Bundle(
            (),
            sets=tuple(one.set for one in made),
            patterns=tuple(map(measures.pattern, self._tables("pattern"))),
            throttles=tuple(map(measures.throttle, self._tables("throttle"))),
            limits=self._limits(),
        )
        for kind in ("set", "pattern", "throttle"):
            self._twice(kind, [written.get("id") for written in self._written[kind]])
        bundle = declared.with_rules(tuple(self._rules(declared)))
        kept = {one.set.hash: one.data for one in made}
        notices = () if self.faults else notes.of(bundle, self._source)
        return Parsed(bundle, self._source, kept, notices)

    def _sets(self) -> list[Made]:
        folder, slash, _ = self._source.name.rpartition("/")
        shelf = sets.Shelf(self._files, folder + slash, self.faults)
        return list(filter(None, map(shelf.read, self._tables("set"))))

    def _rules(self, declared: Bundle) -> list[Rule]:
        # A set that cannot be read has its own fault: what asks for it is not wrong as well.
        ids = (written.get("id") for written in self._written["set"])
        unread = [schema.boolean(f"set.{id}", "") for id in ids if isinstance(id, str)]
        known = {**SCHEMA, **{fact.name: fact for fact in (*unread, *declared.own_facts())}}
        reader = Rules(self._source, known, self.faults)
        rules = [reader.read(index, written) for index, written in enumerate(self._written["rule"])]
        if not rules and not self.faults:
            do = "write a [[rule]], or begin with the shipped ones: postweir policy new FILE"
            what = "there is no rule, so all mail would be accepted"
            self._fault(self._source.name, what, do)
        self._twice("rule", [rule.id for rule in rules])
        for remark in (*order.unreached(rules), *order.unthrottled(rules, declared.throttles)):
            where = self._source.where(remark.rule)
            self._fault(where, remark.what, remark.do, rules[remark.rule].id)
        return rules

    def _limits(self) -> dict[str, int]:
        written = self._document.get("limits", {})
        if not isinstance(written, dict):
            do = "write [limits], and below it lines like new_recipients = 300"
            where = self._source.where_is("limits")
            self._fault(where, f"limits is {kind_of(written)}", do)
            return {}
        where_key = functools.partial(self._where, "limits", 0)
        return measures.limits(Table("the limits", written, where_key, self.faults), list(written))

    def _tables(self, kind: str) -> Iterator[Table]:
        for index, written in enumerate(self._written[kind]):
            name = written.get("id")
            named = name if isinstance(name, str) and name.isprintable() and name else index + 1
            where = functools.partial(self._where, kind, index)
            yield Table(f"{kind} {named}"[:80], written, where, self.faults)

    def _where(self, kind: str, index: int, key: str) -> str:
        return self._source.where(index, key, table=kind)

    def _listed(self, kind: str) -> list[dict[str, Any]]:
        """Return all tables of a kind, as TOML has them, and note when they are none."""
        written = self._document.get(kind, [])
        where = self._source.where_is(kind)
        if not isinstance(written, list) or not all(isinstance(each, dict) for each in written):
            self._fault(where, f"{kind} is no list of tables", f"begin each with [[{kind}]]")
        elif len(written) > _MOST[kind]:
            do = f"at most {_MOST[kind]} are taken"
            self._fault(where, f"{len(written)} {kind}s", do)
        else:
            return written
        return []

    def _twice(self, kind: str, ids: Sequence[object]) -> None:
        first: dict[str, int] = {}
        for index, name in enumerate(ids):
            if not isinstance(name, str) or not name:
                continue
            before = first.setdefault(name, index)
            if before != index:
                where = self._where(kind, before, "id")
                subject = name if kind == "rule" else f"{kind} {name}"
                do = f"choose another: the first is at {where}"
                place = self._where(kind, index, "id")
                self._fault(place, "has this id a second time", do, subject[:80])

    def _fault(self, where: str, what: str, do: str, subject: str = "") -> None:
        note(self.faults, fault_of(subject, where, what, do))


def _table(key: str) -> str:
    """Return which table was meant, or which there are."""
    meant = near(key, _TABLES)
    if not meant:
        return "a policy has [limits], [[set]], [[pattern]], [[throttle]] and [[rule]]"
    return "did you mean [limits]?" if meant == "limits" else f"did you mean [[{meant}]]?"
