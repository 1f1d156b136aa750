"""The `[[rule]]` tables of a policy: when, then, and what people should know of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from postweir.policy import deeds, trials
from postweir.policy.bundle import Rule, Test
from postweir.policy.deeds import Deed
from postweir.policy.schema import Declared
from postweir.policy.source import Fault, Source, kind_of
from postweir.policy.table import RULE_ID, Table

RULES_MAX = 500  # compiled in 0.1 s when a worker starts; a spare has to be ready soon
CONDITION_CHARS_MAX = 4000
HELP_CHARS_MAX = 2000  # half a page

MODES = ("enforce", "shadow", "off")
ON_ERROR = ("skip", "hold")  # never refuse: a fault of ours is not the sender's
SEVERITIES = ("low", "medium", "high")
KEYS = ("id", "when", "then", "mode", "on_error", "owner", "severity", "help", "test")


class Rules:
    """Reads the rules of one policy."""

    def __init__(self, source: Source, known: Mapping[str, Declared], faults: list[Fault]) -> None:
        self._source, self._known, self._faults = source, known, faults

    def read(self, index: int, written: Mapping[str, Any]) -> Rule:
        """Return the n-th rule, and note what is wrong with it."""
        name = written.get("id")
        subject = name[:80] if isinstance(name, str) and name.isprintable() and name else ""
        if not subject:
            subject = f"rule number {index + 1}"
        elif " " in subject:
            subject = f"rule {subject}"
        table = Table(subject, written, lambda key: self._source.where(index, key), self._faults)
        if "fault" in table:
            do = "faults can be planted only with POSTWEIR_FAULTS=1, in a later version"
            table.fault("fault", "fault is not taken here", do)
        table.only((*KEYS, "fault"))
        do = "choose skip or hold: our own error never refuses mail"
        return Rule(
            id=table.id(RULE_ID, "a-short-name"),
            when=_when(table),
            mode=table.choice("mode", MODES, "enforce"),
            on_error=table.choice("on_error", ON_ERROR, "skip", do),
            help=_help(table),
            owner=table.line("owner"),
            severity=table.choice("severity", SEVERITIES, "low") if "severity" in table else "",
            tests=tuple(self._tests(table, index)),
            **self._deed(table, index)._asdict(),
        )

    def _deed(self, table: Table, index: int) -> Deed:
        then = table.raw("then")
        if not isinstance(then, dict) or not then:
            what = "then is no table" if then else "it is not said what to do"
            table.fault("then", what, 'write then = { verb = "hold" }, or another verb')
            return Deed()
        where = self._source.where(index, "then")
        return deeds.read(Table(table.subject, then, lambda _: where, self._faults, "then."))

    def _tests(self, table: Table, index: int) -> Iterator[Test]:
        tests = table.raw("test")
        if tests is None:
            return
        if not isinstance(tests, list) or not all(isinstance(each, dict) for each in tests):
            do = "begin each with [[rule.test]], below its rule"
            table.fault("test", f"test is {kind_of(tests)}", do)
        elif len(tests) > trials.TESTS_MAX:
            do = f"at most {trials.TESTS_MAX} are taken of one rule"
            table.fault("test", f"has {len(tests)} tests", do)
        else:
            for number, written in enumerate(tests):
                yield trials.read(self._test(table.subject, index, number, written), self._known)

    def _test(self, subject: str, index: int, number: int, written: Mapping[str, Any]) -> Table:
        def where(key: str) -> str:
            return self._source.where_test(index, number, key)

        return Table(subject, written, where, self._faults)


def _when(table: Table) -> str:
    when = table.text("when")
    if not when.strip():
        if isinstance(table.raw("when") or "", str):
            do = 'write when = "...", or "true" for always'
            table.fault("when", "there is no condition", do)
    elif len(when) > CONDITION_CHARS_MAX:
        do = f"at most {CONDITION_CHARS_MAX} characters: make several rules of it"
        table.fault("when", "the condition is too long", do)
    elif "\0" in when:
        table.fault("when", "the condition has a character of value 0", "leave it out")
    return when


def _help(table: Table) -> str:
    text = table.text("help")
    if len(text) <= HELP_CHARS_MAX and all(c.isprintable() or c == "\n" for c in text):
        return text
    do = f"plain text of at most {HELP_CHARS_MAX} characters"
    table.fault("help", "help is too long or not printable", do)
    return ""
