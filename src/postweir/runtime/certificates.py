"""The certificate in force, from files that change while we serve.

* What works is replaced only by what works: a pair that cannot be read, does not belong together,
  is not in force yet or no longer is refused, and the old one serves on. So does an old one that
  has expired: a client that looks at the date can say so, one that does not still gets its mail
  through. Both are alarms, and neither is an end.
* Who looks takes a copy first, and looks at the copy: nothing changes under its eyes.
* One process keeps the copy of what it took. A worker that is started anew while the files are
  bad begins with that.
"""

import contextlib
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from postweir.runtime import clock
from postweir.runtime.log import Log
from postweir.runtime.net import in_force, server_context

FILE_BYTES_MAX = 1024 * 1024  # of a certificate with its chain, or of a key; a thousand times one
ALARM_S = 86_400.0  # an expired certificate is told again after so long


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, loaded."""

    context: ssl.SSLContext
    begins_s: float | None  # wall clock; None: nobody can say
    ends_s: float | None

    def fault(self, now_s: float) -> str:
        """Return why its time is not now, or ""."""
        if self.begins_s is not None and now_s < self.begins_s:
            return "it is not in force yet"
        if self.ends_s is not None and now_s >= self.ends_s:
            return "it has expired"
        return ""


class ServerTls:
    """The pair in force; `look` once a second, on a thread, takes new files or keeps the old pair.

    New connections use `.context` as it is then; those open keep what they began with.
    """

    def __init__(
        self,
        certificate: str,
        key: str,
        log: Log,
        *,
        kept: Path | None = None,
        saves: bool = False,
        before: "ServerTls | None" = None,
    ) -> None:
        """Raises OSError or ValueError when neither the files nor what was kept make a pair.

        `before` is what serves now, under other names: only what works replaces it.
        """
        self._files = (certificate, key)
        self._log, self._kept, self._saves = log, kept, saves
        self._told_s = 0.0  # when an alarm about the time of what is in force was last told
        self._seen = self._stat()
        self.fault = ""  # what is wrong with files that were not taken
        now_s = clock.wall_us() / 1e6
        self._pair = self._first(now_s, before)
        self._tell(now_s)

    @property
    def context(self) -> ssl.SSLContext:
        """What a new connection begins with."""
        return self._pair.context

    @property
    def ends_s(self) -> float | None:
        """When what is in force expires, on the wall clock; None: nobody can say."""
        return self._pair.ends_s

    def look(self) -> bool:
        """Take the files if they changed; True when new ones are in force. Reads two files."""
        now_s = clock.wall_us() / 1e6
        seen = self._stat()
        changed = seen != self._seen
        # What was refused is looked at again each time: its day may have come, and a renewal
        # that writes one file after the other may be done.
        taken = (changed or bool(self.fault)) and self._take(now_s, tell=changed)
        self._seen = seen
        self._tell(now_s)
        return taken

    def _take(self, now_s: float, *, tell: bool) -> bool:
        pair, fault = self._load(self._files)
        fault = fault or (pair.fault(now_s) if pair else "")
        if fault or pair is None:
            if tell or fault != self.fault:
                self._refuse(fault)
            self.fault = fault
            return False
        self._pair, self.fault, self._told_s = pair, "", 0.0
        self._log.info("tls.taken", certificate=self._files[0], ends_s=pair.ends_s)
        return True

    def _first(self, now_s: float, before: "ServerTls | None") -> Pair:
        """Return what to begin with: the first that is in force, else the first that loads."""
        pair, fault = self._load(self._files)
        fault = fault or (pair.fault(now_s) if pair else "")
        if pair is not None and not fault:
            return pair
        self.fault = fault
        self._refuse(fault)
        kept = before._pair if before else self._load_kept()
        loaded = [one for one in (pair, kept) if one is not None]
        if not loaded:
            raise ValueError(f"{self._files[0]}: {fault}")
        return next((one for one in loaded if not one.fault(now_s)), loaded[0])

    def _load_kept(self) -> Pair | None:
        if self._kept is None:
            return None
        pair, _ = _pair(str(self._kept))
        if pair is not None:
            self._log.warning("tls.kept", certificate=str(self._kept))
        return pair

    def _load(self, files: tuple[str, str]) -> tuple[Pair | None, str]:
        """Return the pair in these files, or what is wrong with it."""
        if self._kept is None:
            return _pair(*files)
        copy = self._kept.parent / f"tls.{os.getpid()}.new"
        try:
            # One file may hold both.
            _write(copy, b"\n".join(_read(path) for path in dict.fromkeys(files)))
            pair, fault = _pair(str(copy))
            if pair is not None and self._saves and not pair.fault(clock.wall_us() / 1e6):
                copy.rename(self._kept)
        except ValueError as trouble:
            return None, str(trouble)
        except OSError:
            return _pair(*files)  # no room for a copy is no reason to refuse a pair
        else:
            return pair, fault
        finally:
            with contextlib.suppress(OSError):
                copy.unlink()

    def _refuse(self, fault: str) -> None:
        self._log.error("tls.refused", certificate=self._files[0], fault=fault)

    def _tell(self, now_s: float) -> None:
        """Raise the alarm, once a day, while what is in force is out of its time."""
        fault = self._pair.fault(now_s)
        if fault and not 0 <= now_s - self._told_s < ALARM_S:
            self._told_s = now_s
            self._log.error("tls.out_of_date", certificate=self._files[0], fault=fault)

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stat(path) for path in self._files)


def forget(kept: Path) -> None:
    """No certificate is wanted any more: keep no key of it."""
    with contextlib.suppress(OSError):
        kept.unlink()


def _pair(certificate: str, key: str = "") -> tuple[Pair | None, str]:
    try:
        context = server_context(certificate, key or certificate)
    except (OSError, ValueError) as fault:
        return None, str(fault)
    begins_s, ends_s = in_force(context, certificate) or (None, None)
    return Pair(context, begins_s, ends_s), ""


def _read(path: str) -> bytes:
    """Return a whole file. Raises OSError, or ValueError when it is no certificate or key."""
    # A FIFO would hold this thread for ever, before the first look at what it is.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path}: no file")
        found = file.read(FILE_BYTES_MAX + 1)
    if len(found) > FILE_BYTES_MAX:
        raise ValueError(f"{path}: too large for a certificate or key")
    return found


def _write(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
