"""A policy as people write it: a TOML text becomes a bundle, or a list of all that is wrong."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.verdict import VERBS

BYTES_MAX = 256 * 1024
RULES_MAX = 500
CONDITION_CHARS_MAX = 4000
TEXT_CHARS_MAX = 200  # with code, id and link the reply stays one line of RFC 5321 4.5.3.1.5
ID_CHARS_MAX = 64
RETRY_AFTER_S_MAX = 24 * 3600
FAULTS_MAX = 100  # more at once help nobody

OFFERED = ("accept", "defer", "hold", "refuse")
MODES = ("enforce", "off")
ON_ERROR = ("skip", "hold")  # never refuse: a fault of ours is not the sender's
_RULE_KEYS = ("id", "when", "then", "mode", "on_error", "help", "owner", "severity")
_THEN_KEYS = ("verb", "code", "text", "retry_after_s", "header", "pool")
_MEANT = {  # what people write who know other filters
    "if": "when", "condition": "when", "match": "when", "expr": "when", "name": "id",
    "action": "then", "reject": "refuse", "deny": "refuse", "block": "refuse", "drop": "refuse",
    "discard": "refuse", "quarantine": "hold", "tempfail": "defer", "greylist": "defer",
    "allow": "accept", "pass": "accept", "permit": "accept", "retry_after": "retry_after_s",
    "message": "text", "reason": "text", "disabled": "off", "shadow": "off", "on": "enforce",
}  # fmt: skip


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


class Wrong(Exception):
    """The text is no policy; `faults` says all that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Source:
    """A policy's text, and where in it things stand."""

    name: str
    text: str

    def line_of(self, rule: int, key: str = "") -> int:
        """Return the line of the n-th rule (from 0), or of a key in it; 0 when not found."""
        seen, found = -1, 0
        for number, line in enumerate(self.text.splitlines(), 1):
            words = line.strip()
            if words.startswith("[["):
                seen += words.strip("[] \t").partition("]")[0].strip() == "rule"
                if seen > rule:
                    break
                if seen == rule:
                    found = number
                    if not key:
                        break
            elif seen == rule and key and words.partition("=")[0].partition(".")[0].strip() == key:
                return number
        return found

    def condition_line(self, rule: int) -> int:
        """Return the line where the n-th rule's condition begins; 0 when not found."""
        line = self.line_of(rule, "when")
        if not line:
            return 0
        # In three quotes it begins on the next line, when nothing stands after them (TOML 1.0).
        opened = self.text.splitlines()[line - 1].rstrip().endswith(("'''", '"""'))
        return line + opened

    def where_is(self, key: str) -> str:
        """Return `file:line` of a table, or of a key outside of all tables."""
        for number, line in enumerate(self.text.splitlines(), 1):
            word = line.strip().partition("=")[0].strip("[] \t").partition(".")[0]
            if word.partition("]")[0].strip() == key:
                return f"{self.name}:{number}"
        return self.name

    def where(self, rule: int = -1, key: str = "") -> str:
        """Return `file:line`, as near as can be found."""
        line = self.line_of(rule, key) if rule >= 0 else 0
        return f"{self.name}:{line}" if line else self.name


def parse(text: str, name: str) -> Bundle:
    """Return the policy that a TOML text is. Raises `Wrong` with all faults."""
    text = text.removeprefix("\ufeff")  # some editors put it there
    source = Source(name, text)
    if len(text.encode("utf-8", "replace")) > BYTES_MAX:
        raise Wrong([Fault(name, "", f"is larger than {BYTES_MAX // 1024} KiB", "shorten it")])
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise Wrong([_no_toml(source, str(fault))]) from None
    faults = [
        Fault(source.where_is(key), "", f"{key} is not known", "did you mean [[rule]]?"
              if _near(key, ("rule",)) else "a policy has nothing but [[rule]] tables")
        for key in document
        if key != "rule"
    ]  # fmt: skip
    written = document.get("rule", [])
    if not isinstance(written, list) or not all(isinstance(each, dict) for each in written):
        where = source.where_is("rule")
        faults.append(Fault(where, "", "rule is no list of tables", "begin each with [[rule]]"))
    elif len(written) > RULES_MAX:
        faults.append(Fault(name, "", f"{len(written)} rules", f"at most {RULES_MAX} are taken"))
    elif not written and not faults:
        do = "write a [[rule]], or begin with the shipped ones: postweir policy new FILE"
        faults.append(Fault(name, "", "there is no rule, so all mail would be accepted", do))
    else:
        rules = [_rule(source, index, each, faults) for index, each in enumerate(written)]
        faults += _twice(source, rules) + _unreached(source, rules)
    if faults:
        raise Wrong(faults[:FAULTS_MAX])
    return Bundle(tuple(rules))


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


def _rule(source: Source, index: int, written: Mapping[str, Any], faults: list[Fault]) -> Rule:
    """Return one rule, and add what is wrong with it to `faults`."""
    name = written.get("id") if isinstance(written.get("id"), str) else ""

    def fault(key: str, what: str, do: str) -> None:
        faults.append(Fault(source.where(index, key), name or f"number {index + 1}", what, do))

    for key in written:
        if key == "fault":
            fault(key, "fault is not taken here", "faults can be planted only with POSTWEIR_FAULTS=1, in a later version")  # fmt: skip  # noqa: E501
        elif key not in _RULE_KEYS:
            fault(key, f"{key} is not known", _mean(key, _RULE_KEYS))
    good = {"id": "", "when": "", "mode": "enforce", "on_error": "skip"}
    for key in ("id", "when", "mode", "on_error", "help", "owner", "severity"):
        value = written.get(key, good.get(key, ""))
        if isinstance(value, str):
            good[key] = value
        else:
            fault(key, f"{key} is a {type(value).__name__}", "write it as text in quotes")
    for key, what, do in _wrong_texts(good):
        fault(key, what, do)
    then = written.get("then", {})
    if not isinstance(then, dict) or not then:
        what = "then is no table" if then else "it is not said what to do"
        fault("then", what, 'write then = { verb = "hold" }, or another verb')
        then = {"verb": OFFERED[0]}
    for key in then:
        if key not in _THEN_KEYS:
            fault("then", f"then.{key} is not known", _mean(key, _THEN_KEYS))
    for what, do in _wrong_deeds(then):
        fault("then", what, do)
    deeds = {key: then[key] for key in ("verb", "code", "text") if isinstance(then.get(key), str)}
    wait_s = then.get("retry_after_s", 0)
    return Rule(
        **{"verb": "", **good, **deeds},
        retry_after_s=wait_s if type(wait_s) is int else 0,
    )


def _wrong_texts(good: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (key, what, what to do) for each text of a rule that cannot be used."""
    wrong = []
    if not good["id"]:
        wrong.append(("id", "there is no id", 'write id = "a-short-name"'))
    elif not _is_id(good["id"]):
        wrong.append(("id", f"the id is {good['id'][:80]!r}", "use a-z, 0-9 and -, at most 64"))
    if not good["when"].strip():
        wrong.append(("when", "there is no condition", 'write when = "...", or "true" for always'))
    if len(good["when"]) > CONDITION_CHARS_MAX:
        wrong.append(("when", "the condition is too long", f"at most {CONDITION_CHARS_MAX} characters: make several rules of it"))  # fmt: skip  # noqa: E501
    if good["mode"] not in MODES:
        wrong.append(("mode", f"mode is {good['mode'][:80]!r}", _mean(good["mode"], MODES)))  # fmt: skip  # noqa: E501
    if good["on_error"] not in ON_ERROR:
        wrong.append(("on_error", f"on_error is {good['on_error'][:80]!r}", "choose skip or hold: our own error never refuses mail"))  # fmt: skip  # noqa: E501
    for key in ("help", "owner", "severity"):
        value = good.get(key, "")
        if len(value) > TEXT_CHARS_MAX or not value.isprintable():
            wrong.append((key, f"{key} is too long or not printable", "one line, at most 200"))
    return wrong


def _wrong_deeds(then: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (what, what to do) for each thing wrong with a rule's `then`."""
    verb, code, text = then.get("verb", ""), then.get("code", ""), then.get("text", "")
    wrong = []
    if verb in VERBS and verb not in OFFERED:
        wrong.append((f"{verb} is not offered yet", "choose one of: " + ", ".join(OFFERED)))
    elif verb not in OFFERED:
        near = _mean(str(verb), OFFERED) if verb else "choose one of: " + ", ".join(OFFERED)
        wrong.append((f"the verb is {str(verb)[:80]!r}", near))
    wrong += [
        (f"then.{key} is not offered yet", "leave it out")
        for key in ("header", "pool")
        if key in then
    ]
    if not isinstance(code, str) or (code and not _is_code(code)):
        wrong.append((f"the code is {str(code)[:80]!r}", "two to five capital letters, such as SS"))
    if isinstance(text, str) and len(text.splitlines()) > 1:
        wrong.append(("the text has more than one line", "a reply is one line: one plain sentence"))
    elif not isinstance(text, str) or not (text.isascii() and text.isprintable()):
        wrong.append(
            ("the text is not printable ASCII", "one plain sentence: SMTP carries no more")
        )
    elif len(text) > TEXT_CHARS_MAX:
        wrong.append(("the text is too long", f"at most {TEXT_CHARS_MAX} characters"))
    if verb in ("defer", "refuse") and not (code and text):
        do = 'say to the sender what is wrong: code = "SS", text = "..."'
        wrong.append((f"{verb} needs a code and a text", do))
    wait_s = then.get("retry_after_s", 0)
    if type(wait_s) is not int or not 0 <= wait_s <= RETRY_AFTER_S_MAX:
        wrong.append(
            (
                f"retry_after_s is {wait_s!r:.80}",
                f"whole seconds, without quotes, 0 to {RETRY_AFTER_S_MAX}",
            )
        )
    elif wait_s and verb != "defer":
        wrong.append(("retry_after_s belongs to defer", "leave it out"))
    return wrong


def _twice(source: Source, rules: Sequence[Rule]) -> list[Fault]:
    first: dict[str, int] = {}
    faults = []
    for index, rule in enumerate(rules):
        before = first.setdefault(rule.id, index)
        if before != index and rule.id:
            where = source.where(before, "id")
            faults.append(
                Fault(source.where(index, "id"), rule.id, "has this id a second time",
                      f"choose another: the first is at {where}")
            )  # fmt: skip
    return faults


def _unreached(source: Source, rules: Sequence[Rule]) -> list[Fault]:
    """Return a fault for the first rule behind one that is true of every message."""
    always = -1
    for index, rule in enumerate(rules):
        if rule.mode == "off":
            continue
        if always >= 0:
            what = f"is never reached: rule {rules[always].id} before it is always true"
            return [Fault(source.where(index), rule.id, what, "move that one to the end")]
        if rule.when.strip(" \t\r\n()") == "true":
            always = index
    return []


def _is_id(text: str) -> bool:
    return 0 < len(text) <= ID_CHARS_MAX and all(
        c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in text
    )


def _is_code(text: str) -> bool:
    return 2 <= len(text) <= 5 and text.isascii() and text.isalpha() and text.isupper()


def _mean(name: str, known: Sequence[str]) -> str:
    near = _near(name, known)
    return f"did you mean {near}?" if near else "known here: " + ", ".join(known)


def _near(name: str, known: Sequence[str]) -> str:
    if _MEANT.get(name.lower()) in known:
        return _MEANT[name.lower()]
    near = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    return near[0] if near else ""
