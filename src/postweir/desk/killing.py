"""Switches rules or the engine off at once, through one small file that needs nothing else alive.

It can only take away: rules, the engine, or all that was promoted after a policy. The file is
written first; then the audit log, where tables can be written.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from postweir.desk import judges, names, promoted
from postweir.desk.judges import Health, State
from postweir.desk.ports import Missing, Misused, Office, Unreadable
from postweir.judge import bundles, kills
from postweir.judge.kills import Kill, Kills
from postweir.runtime import files
from postweir.runtime.frames import Struct

LOCK_S = 1.0  # another command that was stopped must not keep anybody from killing a rule
LOCK_LOOK_S = 0.01
SEEN_S = 3.0  # a judge looks five times a second; one that takes longer has trouble


class Shown(Struct, frozen=True):
    """One thing that is killed."""

    what: str  # as people say it
    rule: str = ""
    engine_off: bool = False
    to: str = ""
    reason: str = ""
    by: str = ""
    at_us: int = 0


class Killed(Struct, frozen=True):
    """What is killed now, and which judges know."""

    kills: list[Shown]
    cleared: int = 0
    warnings: list[str] = []
    judges: list[State] = []


class Asked(Struct, frozen=True):
    """What is to be killed, or not any more."""

    rules: Sequence[str] = ()
    engine_off: bool = False
    to: str = ""
    all: bool = False

    @property
    def nothing(self) -> bool:
        """True when nothing was named."""
        return not (self.rules or self.engine_off or self.to or self.all)


async def ls(office: Office) -> Killed:
    """Return what is killed. Raises Unreadable: the file is damaged."""
    now = _now(office)
    states = await _followed(office, kills.read(_file(office)) if now.kills else b"")
    return Killed(_shown(now), judges=states)


async def kill(office: Office, asked: Asked, reason: str) -> Killed:
    """Kill these from now on. Raises Misused, Missing, Unreadable, OSError."""
    reason = names.reason(reason)
    if asked.all:
        raise Misused("--all goes with --clear; to use no rule at all, write --engine-off")
    to = _target(office, asked.to) if asked.to else ""
    warnings = _unknown(office, asked.rules)
    more = [Kill(rule=rule) for rule in asked.rules]
    more += [Kill(engine_off=True)] if asked.engine_off else []
    more += [Kill(to=to)] if to else []
    with _locked(office):
        now = _now(office)
        at_us = office.now_us() // 1_000_000 * 1_000_000  # as the file says it
        for one in more:
            now = now.more(Kill(one.rule, one.engine_off, one.to, reason, office.by, at_us))
        if len(now.kills) > kills.KILLS_MAX or len(now.text.encode()) > kills.BYTES_MAX:
            raise Misused("that is more than the file takes; use --engine-off, or --to POLICY")
        data = _write(office, now)
    warnings += _note(office, "policy kill", more, reason)
    return Killed(_shown(now), warnings=warnings, judges=await _followed(office, data))


async def clear(office: Office, asked: Asked, reason: str) -> Killed:
    """Kill these no longer. Raises Misused, Missing, Unreadable, OSError."""
    reason = names.reason(reason)
    if asked.nothing:
        raise Misused("name the rules, --engine-off, --to POLICY or --all: what is to be cleared?")
    with _locked(office):
        # All of it goes, be it readable or not: that is how to begin anew.
        now = Kills() if asked.all else _now(office)
        left = [one for one in now.kills if not _meant(one, asked)]
        if not asked.all and len(left) == len(now.kills):
            raise Missing("nothing of that is killed; see: postweir policy kill")
        data = _write(office, Kills(tuple(left)))
    gone = [one for one in now.kills if _meant(one, asked)]
    warnings = _note(office, "policy kill clear", gone, reason)
    states = await _followed(office, data)
    return Killed(_shown(Kills(tuple(left))), len(gone), warnings, states)


def _meant(one: Kill, asked: Asked) -> bool:
    to = bool(asked.to) and one.to.startswith("pol_" + asked.to.removeprefix("pol_"))
    return (
        asked.all or (one.rule != "" and one.rule in asked.rules)
        or (one.engine_off and asked.engine_off) or to
    )  # fmt: skip


def _target(office: Office, name: str) -> str:
    """Return the policy to go back to: one that a judge has on its disk. Raises Missing."""
    there = promoted.disk(office)
    try:
        return promoted.chosen(name, list(there))
    except Missing:
        has = ", ".join(one[:16] for one in there) or "none"
        raise Missing(f"no judge has a policy {name} on its disk; there are: {has}") from None


def _unknown(office: Office, rules: Sequence[str]) -> list[str]:
    """Return a warning for each rule that no policy on a judge's disk has. Raises Misused.

    It is killed all the same: a policy that is about to come may have it.
    """
    for rule in rules:
        if not rule or len(rule) > kills.RULE_CHARS_MAX or not rule.isprintable():
            raise Misused(f"{rule!r} is no id of a rule")
    there = [bundles.shipped(), *promoted.disk(office).values()] if rules else []
    known = sorted({one.id for bundle in there for one in bundle.rules})
    return [f"no policy here has a rule {rule}{names.meant(rule, known)}"
            for rule in rules if rule not in known]  # fmt: skip


def _file(office: Office) -> Path:
    return office.settings.data / "policy" / "kill.toml"


def _now(office: Office) -> Kills:
    """Return what the file says. Raises Unreadable: nobody may write over what they cannot read."""
    now, fault = promoted.killed_now(office)
    if fault:
        raise Unreadable(
            f"{_file(office)}: {fault}. What was killed before stays so. Correct the file, or"
            " begin anew with: postweir policy kill --clear --all"
        )
    return now


def _write(office: Office, now: Kills) -> bytes:
    """Put the file in place, or take it away; returns its bytes. Raises OSError."""
    path, data = _file(office), now.text.encode()
    if data:
        assert kills.parse(data) == now
        files.replace(path, data)
        return data
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    files.sync_folder(path.parent)
    return data


@contextlib.contextmanager
def _locked(office: Office) -> Iterator[None]:
    """Keep other commands from writing the file at the same time, for as long as can be waited."""
    folder = _file(office).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "kill.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + LOCK_S
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_LOOK_S)
        yield
    finally:
        os.close(descriptor)


def _note(office: Office, verb: str, about: Sequence[Kill], reason: str) -> list[str]:
    """Write it into the audit log; returns a warning when that cannot be done."""
    try:
        what = ", ".join(one.what for one in about) or "all"
        office.tables.note(office.note(verb, what, reason))
    except OSError as fault:
        return [f"it is not in the audit log: {fault}"]
    return []


async def _followed(office: Office, data: bytes) -> list[State]:
    """Wait until every judge has taken the file, or says why not."""
    name, now = kills.name_of(data), kills.parse(data)

    def judged(said: Health) -> tuple[str, str]:
        killed = said.get("killed") or {}
        if killed.get("file") != name:  # a fault may be of what was there before
            return judges.WAITS, str(killed.get("fault") or "it has not taken it")
        if now.to and said.get("policy") != now.to:
            refused = said.get("refused") if said.get("wanted") == now.to else ""
            return (judges.REFUSES, str(refused)) if refused else (judges.WAITS, "it is loading")
        return judges.RUNS, ""

    return await judges.until(office, judged, None if now.to else SEEN_S)


def _shown(now: Kills) -> list[Shown]:
    return [Shown(k.what, k.rule, k.engine_off, k.to, k.reason, k.by, k.at_us) for k in now.kills]
