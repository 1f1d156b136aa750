"""Prints for people and for machines; nothing that came from outside reaches a terminal raw."""

import datetime
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import rich.box
import rich.cells
import rich.console
import rich.table
import rich.text

from postweir.runtime import frames

CELL_CHARS_MAX = 300  # a remote's reply stays a cell
POLICY_CHARS = 16  # of a policy's name: pol_ and 12 digits
FOLD_CHARS_MIN = 24  # the least width of a column that may wrap
PROGRESS_S = 0.5
_STYLES = {
    "delivered": "green", "accept": "green", "active": "green", "allowed": "green",
    "queued": "cyan", "deferred": "yellow", "pending": "yellow", "held": "yellow",
    "hold": "yellow", "bounced": "red", "refused": "red", "refuse": "red", "dropped": "red",
    "suspended": "red", "stopped": "red", "revoked": "red", "failed": "red",
}  # fmt: skip


class Progress:
    """Says how far long work is: one line of standard error, where somebody looks on."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    @property
    def began_s(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Write over what was said before; not more often than anybody reads."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._said >= PROGRESS_S:
            self._said = now
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    def of(self, about: str, done: int, of: int) -> None:
        """Say how many of how many; 0: nobody knows of how many."""
        self.say(f"{about}: {done}{f' of {of}' if of else ''}")

    def end(self) -> None:
        """Leave an empty line."""
        if self._said > self._began:
            sys.stderr.write("\r\x1b[K")


def tame(value: object) -> str:
    """Return a value as one printable line: control characters are shown, not sent."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def when(at_us: int | None) -> str:
    """Return a time as people read it, in UTC; "" for none."""
    if not at_us:
        return ""
    at = datetime.datetime.fromtimestamp(at_us // 1_000_000, datetime.UTC)
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def short(policy: str) -> str:
    """Return a policy's name as people read it: its beginning is enough for every command."""
    return policy[:POLICY_CHARS]


def show_json(value: object) -> None:
    """Print a value as one line of JSON, and nothing else on standard output."""
    sys.stdout.write(frames.json(value).decode() + "\n")


def line(text: str = "") -> None:
    """Print one line."""
    sys.stdout.write(tame(text) + "\n")


def aside(text: str) -> None:
    """Say something that is no answer: on standard error."""
    sys.stderr.write(tame(text) + "\n")


def pairs(values: Sequence[tuple[str, object]]) -> None:
    """Print names and values below each other; what is empty is left out."""
    shown = [(name, cell(value)) for name, value in values]
    width = max((len(name) for name, text in shown if text), default=0)
    for name, text in shown:
        if text:
            _folded(f"{name:{width}}  {text}", width + 2)


def _folded(text: str, indent: int) -> None:
    """Print a line; in a terminal it goes on below its beginning, and never breaks a word."""
    width = rich.console.Console().width if sys.stdout.isatty() else 0
    if width - indent < FOLD_CHARS_MIN:
        return line(text)
    for part in textwrap.wrap(
        tame(text), width, subsequent_indent=" " * indent,
        break_on_hyphens=False, break_long_words=False,
    ):  # fmt: skip
        line(part)
    return None


def told(lines: Sequence[tuple[str, str]], detail: str) -> None:
    """Print times and what happened then; a line that begins with `detail` has no time of its own.

    In a terminal long lines go on below their beginning.
    """
    for at, what in lines:
        stamp = " " * len(at) if what.startswith(detail) else at
        text = tame(what)
        _folded(f"{stamp}  {text}", len(at) + 4 + len(text) - len(text.lstrip()))


def cell(value: object) -> str:
    """Return a value as a table shows it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(tame(each) for each in value) or "none"
    text = tame(value)
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 1] + "…"


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], *, fold: str = "") -> None:
    """Print aligned columns: a drawn table in a terminal, plain text in a pipe.

    `fold` names the one column that may wrap in a terminal; ids and addresses never do.
    """
    cells = [[cell(value) for value in row] for row in rows]
    right = [bool(rows) and all(type(row[i]) is int for row in rows) for i in range(len(headings))]
    if sys.stdout.isatty():
        _drawn(headings, cells, right, fold)
    else:
        _plain(headings, cells, right)


def _plain(headings: Sequence[str], cells: list[list[str]], right: list[bool]) -> None:
    lines = [list(headings), *cells]
    widths = [max(len(row[i]) for row in lines) for i in range(len(headings))]
    for row in lines:
        parts = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ]
        sys.stdout.write("  ".join(parts).rstrip() + "\n")


def _drawn(headings: Sequence[str], cells: list[list[str]], right: list[bool], fold: str) -> None:
    """Draw a table as wide as the terminal, or wider: long lines are better than cut ids."""
    terminal = rich.console.Console(highlight=False)
    drawn, needed = _draw(headings, cells, right, fold, gap=1)
    if needed > terminal.width:
        drawn, needed = _draw(headings, cells, right, fold, gap=0)
    wide = rich.console.Console(highlight=False, width=max(terminal.width, needed))
    wide.print(drawn)


def _draw(
    headings: Sequence[str], cells: list[list[str]], right: list[bool], fold: str, *, gap: int
) -> tuple[rich.table.Table, int]:
    """Return a table and the width it needs, when only the `fold` column may wrap."""
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0))
    needed = 0
    for number, heading in enumerate(headings):
        drawn.add_column(
            heading,
            justify="right" if right[number] else "left",
            no_wrap=heading != fold,
            overflow="fold",
        )
        width = max(rich.cells.cell_len(text) for text in (heading, *(r[number] for r in cells)))
        needed += (min(width, FOLD_CHARS_MIN) if heading == fold else width) + gap + 1
    for row in cells:
        drawn.add_row(*(rich.text.Text(text, style=_STYLES.get(text, "")) for text in row))
    return drawn, needed
