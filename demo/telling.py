"""What the demo shows: lines as things happen, and what became of each message."""

import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.text

from demo.evening import Letter, Said

WIDTH_MAX = 100  # longer lines are hard to read
GAP = 2
STYLES = {
    "delivered": "green", "accept": "green", "bounced": "red", "refused": "red",
    "refuse (spam)": "red", "queued": "yellow", "pending": "yellow", "held": "yellow",
}  # fmt: skip
HEADINGS = ("message", "sender", "verdict", "recipient", "fate")
Row = tuple[str, str, str, str, str, str]  # as the headings, and the last reply


class Teller:
    """Prints what happens as it happens, from whatever thread it happens on."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._console = rich.console.Console(highlight=False, markup=False, soft_wrap=True)
        self.width = min(self._console.width, WIDTH_MAX) if self._terminal else WIDTH_MAX
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, who: str, what: str, style: str = "") -> None:
        """Say that something happened just now."""
        self.line(f"{time.monotonic() - self._began:5.1f} s  {who:9} {what}", style, indent=19)

    def line(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        """Print one line; in a terminal it goes on below its beginning, never within a word."""
        lines = self.wrapped(text, self.width, indent) if self._terminal else [text]
        with self._lock:
            for one in lines:
                self._console.print(rich.text.Text(one, style))

    def title(self, text: str) -> None:
        """Print what stands above a part."""
        self.line()
        self.line(text, "bold")

    @staticmethod
    def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
        """Return the lines that a text takes; an id or an address is never broken."""
        return textwrap.wrap(
            text, width, subsequent_indent=" " * indent,
            break_long_words=False, break_on_hyphens=False,
        ) or [""]  # fmt: skip

    def table(self, rows: Sequence[Row]) -> None:
        """Print aligned columns; where a reply finds no room beside them it stands below."""
        widths = [max(map(len, column)) for column in zip(HEADINGS, *(r[:5] for r in rows))]  # noqa: B905
        taken = sum(widths) + GAP * len(widths)
        beside = self.width - taken >= max(len(word) for r in rows for word in r[5].split())
        heads = [*HEADINGS, "last reply"] if beside else [*HEADINGS]
        self._row(heads, [*widths, 0], ["bold"] * len(heads))
        rule = "─" if self._terminal else "-"
        self.line(rule * (self.width if beside else taken - GAP), "dim")
        for *cells, reply in rows:
            replies = textwrap.wrap(
                reply, self.width - taken if beside else self.width - 4,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
            first = replies[:1] if beside else []
            styles = [STYLES.get(cell, "") for cell in cells]
            self._row([*cells, *first], [*widths, 0], [*styles, ""])
            for more in replies[len(first) :]:
                self.line(" " * (taken if beside else 4) + more, "" if beside else "dim")

    def _row(self, cells: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> None:
        made = rich.text.Text()
        last = len(cells) - 1
        for number, cell in enumerate(cells):
            made.append(cell, styles[number])
            if number < last:
                made.append(" " * (widths[number] - len(cell) + GAP))
        made.rstrip()
        with self._lock:
            self._console.print(made)


def rows(shown: Sequence[dict[str, Any]], sent: Sequence[tuple[Letter, Said]]) -> list[Row]:
    """Return what became of each recipient; what was said of a message stands once."""
    made: list[Row] = []
    for (letter, said), found in zip(sent, shown, strict=True):
        verdict = found["verdict"] + (f" ({found['rule']})" if found["rule"] else "")
        identity = found["sender"].rpartition("|")[2]
        fates = [(r["address"], r["state"], r["reply"]) for r in found["recipients"]]
        if said.code >= 400:
            # Its link stands above, where it was said.
            fates = [(to, "refused", f"{said.code} {said.text.partition(' ref=')[0]}")
                     for to in letter.to]  # fmt: skip
        for number, (address, state, reply) in enumerate(fates):
            about = (letter.title, identity, verdict) if number == 0 else ("", "", "")
            made.append((*about, address, state, reply or ""))
    return made
