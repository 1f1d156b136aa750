"""Policies: write the default one, check one, and say which is in force."""

import os
from pathlib import Path
from typing import Any

from postweir.desk.ports import Misused, Office
from postweir.judge import bundles, checking
from postweir.runtime import frames
from postweir.runtime.frames import Struct
from postweir.runtime.metrics import asked

FILE_BYTES_MAX = 1024 * 1024  # the check has its own, lower bound, and words for it
ASK_S = 0.5


class Fault(Struct, frozen=True):
    """One thing wrong with a policy."""

    where: str
    rule: str
    what: str
    do: str


class Checked(Struct, frozen=True):
    """What came of a check."""

    ok: bool
    file: str
    policy: str  # its name, "" when it has faults
    faults: list[Fault]


class Status(Struct, frozen=True):
    """Which policy is in force."""

    promoted: str  # "" when nobody knows
    candidate: str | None = None
    stage: str | None = None
    share: float = 0
    barred: list[str] = []
    judges: dict[str, str] = {}  # what each judge that answered runs


def new(path: Path) -> Path:
    """Write the default policy into a new file. Raises Misused, OSError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(bundles.shipped_text())
    except FileExistsError:
        raise Misused(f"{path} is there already; choose another name") from None
    return path


def check(path: Path) -> Checked:
    """Check a policy file. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        wrong = [Fault(f"{path}:{line}", "", "is not UTF-8", "save it as UTF-8")]
        return Checked(False, str(path), "", wrong)
    faults = [Fault(f.where, f.rule, f.what, f.do) for f in checking.check(text, str(path))]
    name = "" if faults else checking.parse(text, str(path)).hash
    return Checked(not faults, str(path), name, faults)


def status(office: Office) -> Status:
    """Return the policy that the running judges have, or else the one on judge 1's disk."""
    running = _running(office)
    if running:
        first = next(iter(running.values()))
        return Status(first, judges=running)
    return Status(_on_disk(office.settings.data / "policy" / "1"))


def _running(office: Office) -> dict[str, str]:
    found = {}
    for index in range(1, office.settings.judge.workers + 1):
        health = _read(asked(office.settings.run / f"judge-{index}.port", "/health", ASK_S))
        name = health.get("policy") or health.get("promoted")
        if isinstance(name, str) and name:
            found[str(index)] = name
    return found


def _read(body: bytes | None) -> dict[str, Any]:
    """Return what a process says of itself; empty when it says nothing."""
    try:
        found: dict[str, Any] = frames.from_json(body or b"", dict[str, Any])
    except frames.Torn:
        return {}
    return found


def _on_disk(folder: Path) -> str:
    """Return the promoted policy's name as a judge keeps it, "" before it ever ran."""
    try:
        return os.readlink(folder / "promoted")
    except OSError:
        return ""
