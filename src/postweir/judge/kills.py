"""What operators have killed: `policy/kill.toml`, which needs nothing else to be alive.

    [[kill]]
    rule = "new-sender-burst"         # or: engine = "off", or: to = "pol_…"
    reason = "defers the invoices"    # this and what follows may be left out by hand
    by = "joe"
    at = 2026-11-24T12:08:02Z

A file that is gone kills nothing. One that cannot be read, or says anything that is not this, is
not taken at all: what was in force stays.
"""

import datetime
import hashlib
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from postweir.runtime import frames
from postweir.runtime.frames import Torn, Value

BYTES_MAX = 64 * 1024  # a hundred kills with their reasons; more is no emergency
KILLS_MAX = 200
TEXT_CHARS_MAX = 500
RULE_CHARS_MAX = 64
HEAD = """\
# What `postweir policy kill` has switched off. Every judge reads this file within a second, also
# when it was written by hand; without it nothing is killed. `postweir policy kill --help`
"""


class Kill(Value, frozen=True):
    """One thing that was killed; exactly one of the first three says what."""

    rule: str = ""
    engine_off: bool = False  # no engine at all: only the baseline judges
    to: str = ""  # judge by this policy, which was promoted once
    reason: str = ""
    by: str = ""
    at_us: int = 0

    @property
    def what(self) -> str:
        """What it is, as people say it."""
        return f"rule {self.rule}" if self.rule else f"to {self.to}" if self.to else "the engine"


class Kills(Value, frozen=True):
    """All that is killed, in the order it was."""

    kills: tuple[Kill, ...] = ()

    @property
    def rules(self) -> list[str]:
        """The rules that no judge uses."""
        return [one.rule for one in self.kills if one.rule]

    @property
    def engine_off(self) -> bool:
        """True when only the baseline judges."""
        return any(one.engine_off for one in self.kills)

    @property
    def to(self) -> str:
        """The policy to judge by instead of the promoted one, "" for none."""
        return next((one.to for one in reversed(self.kills) if one.to), "")

    def more(self, one: Kill) -> "Kills":
        """Return these and one more, which takes the place of one that says the same."""
        same = (one.rule, one.engine_off, bool(one.to))
        kept = [k for k in self.kills if (k.rule, k.engine_off, bool(k.to)) != same]
        return Kills((*kept, one))

    @property
    def text(self) -> str:
        """The file, as it is written; "" when nothing is killed."""
        return HEAD + "".join(map(_table, self.kills)) if self.kills else ""


def name_of(data: bytes) -> str:
    """Return a short name of a file's bytes, by which a judge tells which it took; "" for none."""
    return hashlib.sha256(data).hexdigest()[:16] if data else ""


def read(path: Path) -> bytes:
    """Return the file's bytes, none when it is gone. Raises OSError, Torn; never waits long.

    Only a plain file is read: a link could lead anywhere, and a pipe would wait for a writer.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        path.parent.stat()  # a folder that is gone says nothing
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Torn("it is no plain file")
        data = os.read(descriptor, BYTES_MAX + 1)  # of a plain file: all there is
    finally:
        os.close(descriptor)
    if len(data) > BYTES_MAX:
        raise Torn(f"it is larger than {BYTES_MAX // 1024} KiB")
    return data


def parse(data: bytes) -> Kills:
    """Return what a file says. Raises Torn with what is wrong with it."""
    try:
        document = tomllib.loads(data.decode())
    # ValueError: no TOML, no UTF-8, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as fault:
        raise Torn(f"it is not TOML: {fault}") from None
    written = document.pop("kill", [])
    for key in document:
        raise Torn(f"{key[:80]} is not known; it has [[kill]] tables and nothing else")
    if not isinstance(written, list) or len(written) > KILLS_MAX:
        raise Torn(f"kill is no list of at most {KILLS_MAX} [[kill]] tables")
    return Kills(tuple(_kill(number, one) for number, one in enumerate(written, 1)))


def _kill(number: int, written: Any) -> Kill:
    where = f"[[kill]] number {number}"
    if not isinstance(written, dict):
        raise Torn(f"{where} is no table")
    for key, value in written.items():
        if key not in ("rule", "engine", "to", "reason", "by", "at"):
            raise Torn(f"{where}: {key[:80]} is not known: write rule, engine or to")
        if key != "at" and not (isinstance(value, str) and len(value) <= TEXT_CHARS_MAX):
            raise Torn(f"{where}: {key} is no text in quotes of at most {TEXT_CHARS_MAX}")
    if sum(key in written for key in ("rule", "engine", "to")) != 1:
        raise Torn(f"{where}: write exactly one of rule, engine and to")
    if written.get("engine", "off") != "off":
        raise Torn(f'{where}: engine can only be "off"; remove the table to switch it on')
    if not written.get("rule", "x") or len(written.get("rule", "")) > RULE_CHARS_MAX:
        raise Torn(f"{where}: rule is no id of a rule")
    if not is_policy(written.get("to", "pol_" + "0" * 64)):
        raise Torn(f"{where}: to is no whole name of a policy: pol_ and 64 of 0-9 a-f")
    return Kill(
        written.get("rule", ""), "engine" in written, written.get("to", ""),
        written.get("reason", ""), written.get("by", ""), _us(written.get("at")),
    )  # fmt: skip


def is_policy(name: str) -> bool:
    """True for the whole name of a policy."""
    return name[:4] == "pol_" and len(name) == 68 and set(name[4:]) <= set("0123456789abcdef")


def _us(at: Any) -> int:
    """Return a time in the file as microseconds; 0 for what is none: it is only told."""
    if not isinstance(at, datetime.datetime):
        return 0
    return int(at.replace(tzinfo=at.tzinfo or datetime.UTC).timestamp()) * 1_000_000


def _table(one: Kill) -> str:
    if one.rule:
        lines = [f"rule = {_quoted(one.rule)}"]
    else:
        lines = [f"to = {_quoted(one.to)}"] if one.to else ['engine = "off"']
    lines += [f"{k} = {_quoted(v)}" for k, v in (("reason", one.reason), ("by", one.by)) if v]
    if one.at_us:
        at = datetime.datetime.fromtimestamp(one.at_us // 1_000_000, datetime.UTC)
        lines.append(f"at = {at:%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(["", "[[kill]]", *lines, ""])


def _quoted(text: str) -> str:
    """Return a text as TOML: a JSON string is one, but for DEL."""
    return frames.json(text).decode().replace("\x7f", "\\u007f")
