"""One structured line for one occurrence: `spool.accepted message=… sender=… bytes=…`."""

import os
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

Log = FilteringBoundLogger

VALUE_CHARS_MAX = 500  # a line stays a line, whatever a remote answered


class _Destination:
    """Standard error, or a file that opens anew when it was moved away (SIGHUP)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO = sys.stderr
        self.reopen()

    def reopen(self) -> None:
        if self._path:
            self.close()
            self._file = open(self._path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def close(self) -> None:
        if self._file is not sys.stderr:
            self._file.close()

    def write(self, text: str) -> None:
        # A full disk or a closed pipe must never stop mail.
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):
            return


def _tame(_: Any, __: str, event: EventDict) -> EventDict:
    """Cut long values, and show control characters instead of sending them to a terminal."""
    for key, value in event.items():
        if isinstance(value, str) and (len(value) > VALUE_CHARS_MAX or not value.isprintable()):
            cut = value[:VALUE_CHARS_MAX]
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return event


class Journal:
    """Where a process writes its lines."""

    def __init__(self, process: str, *, path: str = "", level: str = "info") -> None:
        self._to = _Destination(path)
        levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
        self.log: Log = structlog.wrap_logger(
            self,
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                _tame,
                structlog.processors.LogfmtRenderer(key_order=["at", "level", "process", "event"]),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(levels[level]),
            context_class=dict,
            process=process,
        )

    def reopen(self) -> None:
        """Write on to the file of that name, new if it was moved away."""
        self._to.reopen()

    def close(self) -> None:
        """Write no more to the file."""
        self._to.close()

    def msg(self, message: str) -> None:
        self._to.write(message + "\n")

    debug = info = warning = warn = error = critical = exception = log_line = msg


def open_log(process: str, *, path: str = "", level: str = "info") -> Journal:
    """Return the journal of this process; `process` is such as `edge 1`."""
    return Journal(f"{process}[{os.getpid()}]", path=path, level=level)


def quiet() -> Log:
    """Return a log that keeps only errors, on stderr: for tests and commands."""
    return open_log("command", level="error").log
