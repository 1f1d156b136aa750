"""A rule's `then`: a verb, and what it needs and may have beside it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from postweir.policy.meant import mean
from postweir.policy.source import shown
from postweir.policy.table import ID_CHARS_MAX, LINE_CHARS_MAX, RULE_ID, Table
from postweir.policy.verdict import VERBS

WAIT_S_MAX = 24 * 3600  # servers come back by themselves within hours, and give up within days
HOLD_S_MIN, HOLD_S_MAX = 60, 30 * 24 * 3600  # a body that nobody looks at in a month is clutter
LIFETIME_S_MIN, LIFETIME_S_MAX = 60, 7 * 24 * 3600  # RFC 5321 4.5.4.1: four to five days, at least

_POOL = RULE_ID | {"_"}
_FIELD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")


class _Keys(NamedTuple):
    needed: tuple[str, ...]
    more: tuple[str, ...]


_OF: Mapping[str, _Keys] = {
    "accept": _Keys((), ("lifetime_s",)),
    "tag": _Keys((), ("header", "pool", "lifetime_s")),
    "route": _Keys(("pool",), ("lifetime_s",)),
    "throttle": _Keys(("throttle", "code", "text"), ()),
    "defer": _Keys(("code", "text"), ("retry_after_s",)),
    "hold": _Keys((), ("code", "text", "hold_s", "lifetime_s")),
    "refuse": _Keys(("code", "text"), ()),
}
KEYS = ("verb", *dict.fromkeys(key for one in _OF.values() for key in (*one.needed, *one.more)))


def keys_of(verb: str) -> tuple[str, ...]:
    """Return what may stand beside a verb, what it needs first."""
    return (*_OF[verb].needed, *_OF[verb].more)


class Deed(NamedTuple):
    """What a rule does, by the names that `bundle.Rule` has for it."""

    verb: str = VERBS[0]
    code: str = ""
    text: str = ""
    retry_after_s: int = 0
    header: str = ""
    pool: str = ""
    throttle: str = ""
    hold_s: int = 0
    lifetime_s: int = 0


def read(table: Table) -> Deed:
    """Return what a `then` says, and note what is wrong with it."""
    table.only(KEYS)
    verb = table.text("verb")
    if verb not in VERBS:
        what = f"the verb is {shown(verb)}" if verb else "there is no verb"
        table.fault("verb", what, mean(verb, VERBS) if verb else f"choose one of: {_list(VERBS)}")
        return Deed()
    _belong(table, verb)
    return Deed(
        verb,
        _code(table), _text(table), table.number("retry_after_s", 1, WAIT_S_MAX, 0),
        _header(table), _id(table, "pool"), _id(table, "throttle"),
        table.number("hold_s", HOLD_S_MIN, HOLD_S_MAX, 0),
        table.number("lifetime_s", LIFETIME_S_MIN, LIFETIME_S_MAX, 0),
    )  # fmt: skip


def _belong(table: Table, verb: str) -> None:
    """Note what the verb lacks, and what belongs to others."""
    needed = _OF[verb].needed
    for key in KEYS[1:]:
        if key in table and key not in keys_of(verb):
            verbs = [other for other in _OF if key in keys_of(other)]
            table.fault(key, f"{key} belongs to {_list(verbs)}", "leave it out")
    missing = [key for key in needed if not table.raw(key)]
    if "throttle" in missing:
        do = 'name it: throttle = "young", of a [[throttle]] with that id'
        table.fault("throttle", "throttle needs its throttle", do)
    if "pool" in missing:
        table.fault("pool", "route needs a pool", 'name it: pool = "bulk"')
    if {"code", "text"} & set(missing):
        do = 'say to the sender what is wrong: code = "SS", text = "..."'
        table.fault("text", f"{verb} needs a code and a text", do)
    if verb == "tag" and "header" not in table and "pool" not in table:
        do = 'write header = "X-Suspect: yes", or pool = "bulk"'
        table.fault("verb", "tag needs a header or a pool", do)


def _code(table: Table) -> str:
    code = table.raw("code")
    if code is None or (isinstance(code, str) and (not code or _is_code(code))):
        return code or ""
    table.fault("code", f"the code is {shown(code)}", "two to five capital letters, such as SS")
    return ""


def _is_code(text: str) -> bool:
    return 2 <= len(text) <= 5 and text.isascii() and text.isalpha() and text.isupper()


def _text(table: Table) -> str:
    text = table.text("text")
    if len(text.splitlines()) > 1:
        do = "a reply is one line: one plain sentence"
        table.fault("text", "the text has more than one line", do)
    elif not (text.isascii() and text.isprintable()):
        do = "one plain sentence: SMTP carries no more"
        table.fault("text", "the text is not printable ASCII", do)
    elif len(text) > LINE_CHARS_MAX:
        table.fault("text", "the text is too long", f"at most {LINE_CHARS_MAX} characters")
    else:
        return text
    return ""


def _header(table: Table) -> str:
    """Return a field to put before the message: one of those that change no meaning."""
    header = table.text("header")
    if not header:
        return ""
    name, colon, value = header.partition(":")
    mine = name[:2] in ("X-", "x-") and len(name) > 2 and _FIELD.issuperset(name)
    if not mine or name.lower().startswith("x-postweir-"):
        do = 'only names that begin with X- are taken: header = "X-Suspect: yes"'
        table.fault("header", f"the header is {shown(header)}", do)
    elif not colon or not value.strip() or not (header.isascii() and header.isprintable()):
        do = 'a name, a colon and a value of printable ASCII: header = "X-Suspect: yes"'
        table.fault("header", f"the header is {shown(header)}", do)
    elif len(header) > LINE_CHARS_MAX:
        table.fault("header", "the header is too long", f"at most {LINE_CHARS_MAX} characters")
    else:
        return f"{name}: {value.strip()}"
    return ""


def _id(table: Table, key: str) -> str:
    value = table.text(key)
    if len(value) <= ID_CHARS_MAX and _POOL.issuperset(value):
        return value
    do = f"a name of a-z, 0-9, - and _, at most {ID_CHARS_MAX}"
    table.fault(key, f"the {key} is {shown(value)}", do)
    return ""


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
