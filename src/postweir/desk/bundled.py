"""Which policy is meant: a file, `promoted`, or the beginning of the name of one that is kept."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from postweir.desk import promoted
from postweir.desk.ports import Missing, Misused, Office
from postweir.judge import beside, bundles
from postweir.judge.ports import Loadable
from postweir.policy import sets
from postweir.policy.bundle import from_canonical, name_of, set_name
from postweir.policy.document import Parsed, Wrong
from postweir.runtime import files, frames

PROMOTED = "promoted"


async def find(office: Office, name: str) -> Loadable:
    """Return the policy that is meant. Raises Misused, OSError."""
    return await asyncio.to_thread(_find, office, name)


async def by_hash(office: Office, policy: str) -> Loadable | None:
    """Return the policy of this name, None where nobody has it any more."""
    return await asyncio.to_thread(_kept, office, policy)


def from_file(path: Path) -> Parsed:
    """Return the policy in a file. Raises Misused with its first faults, OSError."""
    try:
        return beside.read(path)
    except Wrong as wrong:
        first = wrong.faults[0]
        more = f"; and {len(wrong.faults) - 1} more" if len(wrong.faults) > 1 else ""
        raise Misused(
            f"{first.where}: {first.what}{more}; postweir policy check {path} says what to do"
        ) from None


def _find(office: Office, name: str) -> Loadable:
    if name == PROMOTED:
        return _promoted(office)
    if Path(name).is_file():
        parsed = from_file(Path(name))
        return Loadable(parsed.bundle, dict(parsed.sets))
    if not promoted.begins_one(name):
        raise Misused(f"{name} is no file, nor pol_… of a policy that is kept, nor {PROMOTED}")
    try:
        found = promoted.chosen(name, list(_names(office)))
    except Missing as none:
        raise Misused(str(none)) from None
    kept = _kept(office, found)
    if kept is None:
        raise Misused(f"{found[:16]} was kept, and its sets are gone")
    return kept


def _promoted(office: Office) -> Loadable:
    """Return what the judges are to run: what was deployed last, or what judge 1 started with."""
    last = office.policies.last() if office.policies else None
    names = [last.policy] if last else []
    names += [link for judge in _judges(office) if (link := _link(judge / PROMOTED))]
    for name in names:
        kept = _kept(office, name)
        if kept is not None:
            return kept
    return bundles.shipped_whole()


def _kept(office: Office, policy: str) -> Loadable | None:
    """Return a policy from the tables, from a judge's disk, or the one that was shipped."""
    stored = office.policies.loadable(policy) if office.policies else None
    if stored is not None:
        return stored
    for judge in _judges(office):
        if (found := _on_disk(judge, policy)) is not None:
            return found
    shipped = bundles.shipped_whole()
    return shipped if shipped.policy == policy else None


def _names(office: Office) -> Iterator[str]:
    """Yield the names of all policies that are kept."""
    if office.policies:
        yield from (one.policy for one in office.policies.deployments())
    for judge in _judges(office):
        yield from (path.name for path in judge.glob("pol_*"))
    yield bundles.shipped_whole().policy


def _judges(office: Office) -> list[Path]:
    """Return the folders in which judges keep their policies; others may not be looked into."""
    try:
        return sorted((office.settings.data / "policy").glob("[0-9]*"))
    except OSError:
        return []


def _on_disk(folder: Path, policy: str) -> Loadable | None:
    try:
        data = files.read(folder / policy, bundles.FILE_BYTES_MAX)
        if name_of(data) != policy:
            return None
        bundle = from_canonical(data)
        keys = {one.hash: files.read(folder / one.hash, sets.BYTES_MAX) for one in bundle.sets}
    except (OSError, frames.Torn):
        return None
    if any(set_name(kept) != name for name, kept in keys.items()):
        return None
    return Loadable(bundle, keys, b"" if bundle.canonical == data else data)


def _link(path: Path) -> str:
    try:
        return path.readlink().name
    except OSError:
        return ""
