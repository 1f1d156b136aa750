"""Whether the wall clock was set lately: remembered in the shard's file, over its restarts."""

from pathlib import Path

from postweir.runtime import clock
from postweir.storage.spool_schema import rows
from postweir.storage.sqlite import Connection

BOOT = Path("/proc/sys/kernel/random/boot_id")  # monotonic time is of one boot
SLEW_US = 1_000_000  # less than this is the clock being steered, and not worth a write


class Steps:
    """Looks at the clock for one store.

    The file has wall time minus monotonic time as it was before any step that is remembered. A
    process that starts compares it with what it finds: after a step, a shard that starts anew
    within the hour would bounce what only looks old.
    """

    def __init__(self, connection: Connection) -> None:
        self._db = connection
        saved = dict(rows(connection, "SELECT key, value FROM meta WHERE key LIKE 'clock_%'"))
        self._boot = boot()
        same = self._boot != 0 and saved.get("clock_boot") == self._boot
        self.offset_us: int | None = saved.get("clock_offset_us") if same else None
        self._watch = clock.StepWatch(self.offset_us)

    def look(self) -> bool:
        """True while a step of more than a minute lies less than an hour back."""
        return self._watch.look()

    def save(self) -> None:
        """Remember how the clocks stand, in the open transaction; only while no step is."""
        now_us = clock.offset_us()
        if self.offset_us is None or abs(now_us - self.offset_us) > SLEW_US:
            self.offset_us = now_us
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?,?)",
                [("clock_boot", self._boot), ("clock_offset_us", now_us)],
            )


def boot() -> int:
    """Return a number that is another one after each boot; 0 where nobody says."""
    try:
        return int(BOOT.read_text().replace("-", "")[:15], 16)
    except (OSError, ValueError):
        return 0
