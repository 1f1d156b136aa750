"""The promoted policies on this judge's own disk: it starts from them with all else dead.

    policy/K/pol_<sha256>   a bundle, the bytes that its name is the hash of
    policy/K/history        JSON: [[name, origin], ...], the promoted one first
    policy/K/promoted       a link to that one, for people and commands

A bundle is written and synced before the history names it; what the history does not name goes
last. So a crash at any point leaves either the old history or the new one, with all it names.
"""

import contextlib
import importlib.resources
from pathlib import Path

from postweir.policy.bundle import Bundle, from_canonical, name_of
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
    return parse(shipped_text(), "default.toml")


class Bundles:
    """What one judge keeps under `policy/K/`. Every call touches the disk."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder, self._log = folder, log

    def begin(self, default: Bundle) -> list[Bundle]:
        """Return what to judge with, best first.

        The shipped policy is installed where there is none, and where the promoted one is an
        earlier shipped one; what an operator promoted stays. On a disk that cannot be written it
        judges from memory.
        """
        history, found = self._read()
        newest = history[0] if history else None
        # A shipped one that is newer, or that was damaged: we have it whole.
        ours = bool(newest and newest[1] == SHIPPED and found and found[0].hash != default.hash)
        if not found or ours:
            try:
                self.promote(default, SHIPPED)
            except OSError as fault:
                self._log.error("policy.unsaved", policy=default.hash, fault=str(fault))
            found = [default, *(bundle for bundle in found if bundle.hash != default.hash)]
        return found[:KEPT]

    def promote(self, bundle: Bundle, origin: str) -> None:
        """Keep this bundle as the promoted one. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        history, _ = self._read()
        name = bundle.hash
        kept = [(name, origin), *(entry for entry in history if entry[0] != name)][:KEPT]
        files.replace(self._folder / name, bundle.canonical)
        files.replace(self._folder / "history", frames.json(kept))
        link = self._folder / "promoted.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(name)
        link.rename(self._folder / "promoted")
        files.sync_folder(self._folder)
        named = {entry[0] for entry in kept}
        for path in self._folder.glob("pol_*"):
            if path.name not in named:
                path.unlink(missing_ok=True)
        self._log.info("policy.promoted", policy=name, origin=origin)

    def _read(self) -> tuple[_History, list[Bundle]]:
        """Return the history, and of what it names all that is whole."""
        history = self._whole(self._history())
        found = []
        for name, _ in history:
            bundle = self._bundle(name)
            if bundle is not None:
                found.append(bundle)
        return history, found

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

    def _bundle(self, name: str) -> Bundle | None:
        try:
            if "/" in name:
                raise frames.Torn("no name of a bundle")
            data = files.read(self._folder / name, FILE_BYTES_MAX)
            if name_of(data) != name:
                raise frames.Torn("its bytes are not those it is named after")
            return from_canonical(data)
        except (OSError, frames.Torn) as fault:
            self._log.error("policy.damaged", policy=name, fault=str(fault))
            if isinstance(fault, frames.Torn) and "/" not in name:
                self._put_aside(name)
            return None

    def _put_aside(self, name: str) -> None:
        """Keep a damaged bundle for whoever wants to look at it."""
        with contextlib.suppress(OSError):
            (self._folder / name).rename(self._folder / f"damaged-{name}")
