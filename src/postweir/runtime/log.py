"""One structured line for one occurrence: `spool.accepted message=… sender=… bytes=…`."""

import os
import sys
from datetime import UTC, datetime
from io import FileIO
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from postweir.runtime import clock

Log = FilteringBoundLogger

VALUE_CHARS_MAX = 500  # a line stays a line, whatever a remote answered
EXCEPTION_CHARS_MAX = 4000  # of a traceback its end, where it says what happened


class _Destination:
    """Standard error, or a file that opens anew when it was moved away (SIGHUP)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: FileIO | None = None  # None: standard error
        self.reopen()

    def reopen(self) -> None:
        if self._path:
            self.close()
            self._file = FileIO(self._path, "a")  # a line is one write(2), never half a line

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, text: str) -> None:
        # A full disk or a closed pipe must never stop mail.
        try:
            if self._file is not None:
                self._file.write(text.encode("utf-8", "backslashreplace"))
            elif sys.stderr is not None:
                sys.stderr.write(text)
                sys.stderr.flush()
        except (OSError, ValueError):
            return


class _Lines:
    """Makes an event the text of its line: logfmt, in one pass, for it is on every mail's way."""

    def __init__(self, process: str) -> None:
        self._process = _shown(process)
        self._second = -1
        self._at = ""  # that second, as text

    def __call__(self, _: Any, level: str, event: EventDict) -> str:
        second, us = divmod(clock.wall_us(), 1_000_000)
        if second != self._second:
            self._second = second
            self._at = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        name = _shown(event.pop("event", ""))
        trouble = event.pop("exc_info", None)
        words = [f"at={self._at}.{us:06}Z level={level} process={self._process} event={name}"]
        for key, value in event.items():
            match value:
                case str():
                    words.append(f"{key}={_shown(value)}")
                case True:
                    words.append(key)
                case False:
                    words.append(f"{key}=false")
                case None:
                    words.append(f"{key}=")
                case int() | float():
                    words.append(f"{key}={value}")
                case _:
                    words.append(f"{key}={_shown(str(value))}")
        if trouble:
            words.append(f"exception={_trouble(trouble)}")
        return " ".join(words)


def _shown(value: str, chars_max: int = VALUE_CHARS_MAX) -> str:
    """Return a value that is one word or stands in quotes, cut, its control characters shown."""
    if len(value) > chars_max:
        value = value[:chars_max]
    if value.isalnum():
        return value
    if not value.isprintable():
        value = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    if " " in value or "=" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{value}"'
    return value


def _trouble(exc_info: object) -> str:
    """Return the end of a traceback as one value."""
    found = structlog.processors.format_exc_info(None, "", {"exc_info": exc_info})
    return _shown(str(found.get("exception", ""))[-EXCEPTION_CHARS_MAX:], EXCEPTION_CHARS_MAX)


class Journal:
    """Where a process writes its lines."""

    def __init__(self, process: str, *, path: str = "", level: str = "info") -> None:
        self._to = _Destination(path)
        levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
        self.log: Log = structlog.wrap_logger(
            self,
            processors=[_Lines(process)],
            wrapper_class=structlog.make_filtering_bound_logger(levels[level]),
            context_class=dict,
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
