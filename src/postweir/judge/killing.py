"""What is killed on this judge, as `policy/kill.toml` says it now.

A kill counts at the next look. What lifts one counts when two looks in a row agree, for an editor
that saves a file leaves it empty or gone for a moment. A file that cannot be read, or says what
nobody understands, changes nothing; what was in force is also kept on the judge's own disk, so
that a restart does not lift it either.
"""

from pathlib import Path

from postweir.judge import kills
from postweir.judge.kills import Kills
from postweir.runtime import clock, files
from postweir.runtime.frames import Torn
from postweir.runtime.log import Log

LATE_S = 2.0  # a file that was not read for so long is on a disk that hangs


class KillFile:
    """The file, looked at from one thread; what it found may be read from any."""

    def __init__(self, path: Path, kept: Path, log: Log) -> None:
        self._path, self._kept, self._log = path, kept, log
        self.state = ("", Kills())  # the name of the bytes that count, and what they say
        self._data: bytes | None = None  # what is in force
        self._before: bytes | None = None  # what the look before this one found
        self._fault = ""
        self._looked_ns = clock.monotonic_ns()

    @property
    def now(self) -> Kills:
        """What is killed."""
        return self.state[1]

    @property
    def fault(self) -> str:
        """Why the file does not count, or may not; "" when all is well."""
        late_s = (clock.monotonic_ns() - self._looked_ns) / 1e9
        return self._fault or (f"not read for {late_s:.0f} s" if late_s > LATE_S else "")

    def begin(self) -> None:
        """Take the file as it is, or else what this judge had in force before it ended."""
        self.look()
        if self._data is not None or not self._fault:
            return
        try:
            data = files.unsealed(files.read(self._kept, 2 * kills.BYTES_MAX))
            self._take(data, kills.parse(data))
        except FileNotFoundError:
            return
        except (OSError, Torn) as fault:
            self._log.error("policy.kill_unknown", fault=str(fault))

    def look(self) -> bool:
        """Look at the file; True when what is killed has changed."""
        try:
            data = kills.read(self._path)
            if data == self._data:
                self._well(data)
                return False
            found = kills.parse(data)
        except (OSError, Torn) as fault:
            self._damaged(fault)
            return False
        first = self._data is None
        agreed = data == self._before
        self._well(data)
        if not first and _lifts(self.now, found) and not agreed:
            return False
        self._take(data, found)
        self._keep(data)
        return True

    def _take(self, data: bytes, found: Kills) -> None:
        before = self.now
        self._data, self.state = data, (kills.name_of(data), found)
        was, is_ = {_key(one) for one in before.kills}, {_key(one) for one in found.kills}
        for one in found.kills:
            if _key(one) not in was:
                self._log.warning("policy.killed", what=one.what, by=one.by, reason=one.reason)
        for one in before.kills:
            if _key(one) not in is_:
                self._log.warning("policy.kill_cleared", what=one.what)

    def _well(self, data: bytes) -> None:
        self._before, self._fault, self._looked_ns = data, "", clock.monotonic_ns()

    def _damaged(self, fault: Exception) -> None:
        self._before, self._looked_ns = None, clock.monotonic_ns()
        said = getattr(fault, "strerror", None) or str(fault)
        if said != self._fault:
            self._log.error("policy.kill_damaged", file=str(self._path), fault=said)
        self._fault = said

    def _keep(self, data: bytes) -> None:
        try:
            if not data:
                self._kept.unlink(missing_ok=True)
                return
            self._kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.replace(self._kept, files.sealed(data))
        except OSError as fault:
            self._log.warning("policy.kill_unkept", fault=str(fault))


def _key(one: kills.Kill) -> tuple[str, bool, str]:
    return one.rule, one.engine_off, one.to


def _lifts(before: Kills, found: Kills) -> bool:
    """True when something that was killed is not any more."""
    return not {_key(one) for one in before.kills} <= {_key(one) for one in found.kills}
