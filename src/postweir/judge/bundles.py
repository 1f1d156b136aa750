"""The promoted policies on this judge's own disk: it starts from them with all else dead.

    policy/K/pol_<sha256>   a bundle, the bytes that its name is the hash of
    policy/K/set_<sha256>   a set that some of them use, likewise
    policy/K/history        JSON: [[name, origin], ...], the promoted one first
    policy/K/promoted       a link to that one, for people and commands
    policy/K/killed         the last good `kill.toml`, sealed

Sets are written and synced before the bundle that uses them, a bundle before the history names it;
what the history does not name goes last. So a crash at any point leaves either the old history or
the new one, with all it names.
"""

import contextlib
import importlib.resources
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from postweir.judge.ports import Loadable
from postweir.policy import sets
from postweir.policy.bundle import Bundle, from_canonical, name_of, set_name
from postweir.policy.document import BYTES_MAX, parse
from postweir.runtime import files, frames
from postweir.runtime.log import Log

KEPT = 3  # the promoted one and two before it
FILE_BYTES_MAX = 4 * BYTES_MAX  # canonical form names each key of each rule
SHIPPED, OPERATOR = "shipped", "operator"

_History = list[tuple[str, str]]


def shipped_text() -> str:
    """Return the policy that comes with Postweir, as TOML."""
    return importlib.resources.files("postweir.policy").joinpath("default.toml").read_text("utf-8")


def shipped() -> Bundle:
    """Return the policy that comes with Postweir."""
    return parse(shipped_text(), "default.toml").bundle


def shipped_whole() -> Loadable:
    """Return it with the sets it uses."""
    parsed = parse(shipped_text(), "default.toml")
    return Loadable(parsed.bundle, parsed.sets)


class Bundles:
    """What one judge keeps under `policy/K/`. Every call touches the disk."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder, self._log = folder, log
        # A disk that hangs may let go of one promotion while the next is on its way: each would
        # sweep away what the other has written.
        self._writing = threading.Lock()

    def begin(self, default: Loadable) -> list[Loadable]:
        """Return what to judge with, best first.

        The shipped policy is installed where there is none, and where the promoted one is an
        earlier shipped one; what an operator promoted stays. On a disk that cannot be written it
        judges from memory.
        """
        history, found = self._read()
        newest = history[0] if history else None
        # A shipped one that is newer, or that was damaged: we have it whole.
        ours = bool(newest and newest[1] == SHIPPED and found and found[0].policy != default.policy)
        if not found or ours:
            try:
                self.promote(default, SHIPPED)
            except OSError as fault:
                self._log.error("policy.unsaved", policy=default.policy, fault=str(fault))
            found = [default, *(one for one in found if one.policy != default.policy)]
        return found[:KEPT]

    def whole(self) -> list[Loadable]:
        """Return what is kept and whole, the promoted one first."""
        return self._read()[1]

    def promote(self, policy: Loadable, origin: str, *, back: bool = False) -> None:
        """Keep this policy as the promoted one. Raises OSError.

        `back`: an operator went back to it; what was promoted until now is the last to be tried.
        """
        with self._writing:
            self._promote(policy, origin, back=back)

    def _promote(self, policy: Loadable, origin: str, *, back: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        history = self._whole(self._history())
        name = policy.policy
        if history[:1] == [(name, origin)] and self._loadable(name) is not None:
            return
        if back:
            history = [*history[1:], *history[:1]]
        kept = [(name, origin), *(entry for entry in history if entry[0] != name)][:KEPT]
        for each, data in policy.sets.items():
            self._keep(each, data)
        self._keep(name, policy.canonical)
        files.replace(self._folder / "history", frames.json(kept))
        link = self._folder / "promoted.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(name)
        link.rename(self._folder / "promoted")
        files.sync_folder(self._folder)
        self._sweep([entry[0] for entry in kept])
        self._log.info("policy.promoted", policy=name, origin=origin)

    def _keep(self, name: str, data: bytes) -> None:
        """Write what is named after its bytes, unless it is there."""
        with contextlib.suppress(OSError, frames.Torn):
            if files.read(self._folder / name, len(data)) == data:
                return
        files.replace(self._folder / name, data)

    def _sweep(self, named: Sequence[str]) -> None:
        """Remove what no bundle of these names uses."""
        used = set()
        for name in named:
            with contextlib.suppress(OSError, frames.Torn):
                bundle = from_canonical(files.read(self._folder / name, FILE_BYTES_MAX))
                used |= {one.hash for one in bundle.sets}
        for path in (*self._folder.glob("pol_*"), *self._folder.glob("set_*")):
            if path.name not in named and path.name not in used:
                path.unlink(missing_ok=True)

    def _read(self) -> tuple[_History, list[Loadable]]:
        """Return the history, and of what it names all that is whole."""
        history = self._whole(self._history())
        found = [self._loadable(name) for name, _ in history]
        return history, [one for one in found if one is not None]

    def _whole(self, history: _History) -> _History:
        """Give a name that no file has to a file that no name has: the history was damaged."""
        named = {name for name, _ in history}
        spare = [p.name for p in sorted(self._folder.glob("pol_*")) if p.name not in named]
        gone = [name for name, _ in history if not self._there(name)]
        pairs = dict(zip(gone, spare, strict=False))
        for name, other in pairs.items():
            self._log.error("policy.history_damaged", fault=f"no file {name}", instead=other)
        return [(pairs.get(name, name), origin) for name, origin in history]

    def _there(self, name: str) -> bool:
        """True for a bundle that has a file, be it one that was put aside."""
        return (self._folder / name).exists() or (self._folder / f"damaged-{name}").exists()

    def _history(self) -> _History:
        try:
            data = files.read(self._folder / "history", FILE_BYTES_MAX)
            history: _History = frames.from_json(data, list[tuple[str, str]])
        except FileNotFoundError:
            return []
        except (OSError, frames.Torn) as fault:
            self._log.error("policy.history_damaged", fault=str(fault))
            # What is whole on the disk was promoted once, and the operator's word counts most.
            return [(path.name, OPERATOR) for path in sorted(self._folder.glob("pol_*"))[:KEPT]]
        return history[:KEPT]

    def _loadable(self, name: str) -> Loadable | None:
        """Return a bundle with its sets, None when any of it is not what was written."""
        data = self._named(name, FILE_BYTES_MAX, name_of)
        if data is None:
            return None
        try:
            bundle = from_canonical(data)
        except frames.Torn as fault:  # written so: by a version that we are not
            self._log.error("policy.damaged", policy=name, fault=str(fault))
            return None
        found = {}
        for one in bundle.sets:
            keys = self._named(one.hash, sets.BYTES_MAX, set_name)
            if keys is None:
                return None
            found[one.hash] = keys
        return Loadable(bundle, found, b"" if bundle.canonical == data else data)

    def _named(self, name: str, bytes_max: int, name_of: Callable[[bytes], str]) -> bytes | None:
        """Return the bytes that are named after themselves; an alarm, and None, for others."""
        try:
            if "/" in name:
                raise frames.Torn("no name of a policy")
            data = files.read(self._folder / name, bytes_max)
            if name_of(data) != name:
                raise frames.Torn("its bytes are not those it is named after")
        except (OSError, frames.Torn) as fault:
            self._log.error("policy.damaged", policy=name, fault=str(fault))
            if isinstance(fault, frames.Torn) and "/" not in name:
                self._put_aside(name)
            return None
        return data

    def _put_aside(self, name: str) -> None:
        """Keep what is damaged for whoever wants to look at it."""
        with contextlib.suppress(OSError):
            (self._folder / name).rename(self._folder / f"damaged-{name}")


def seen(folder: Path) -> list[tuple[str, Bundle]]:
    """Return what a judge's folder has, the promoted one first; changes nothing there."""
    try:
        data = files.read(folder / "history", FILE_BYTES_MAX)
        history: _History = frames.from_json(data, list[tuple[str, str]])
    except (OSError, frames.Torn):
        return []
    found = []
    for name, _ in history[:KEPT]:
        with contextlib.suppress(OSError, frames.Torn):
            kept = files.read(folder / Path(name).name, FILE_BYTES_MAX)
            if name_of(kept) == name:
                found.append((name, from_canonical(kept)))
    return found
