"""Every process's metrics and health on one page, each asked within 0.2 s."""

import concurrent.futures
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from postweir.runtime import frames
from postweir.runtime.metrics import asked

ASK_S = 0.2


def labelled(page: str, process: str) -> list[str]:
    """Return the sample and comment lines of one page, each sample labelled with its process."""
    lines = []
    for line in page.splitlines():
        if not line or line.startswith("#"):
            lines.append(line)
            continue
        name, brace, rest = line.partition("{")
        if brace:
            lines.append(f'{name}{{process="{process}",{rest}')
        else:
            name, _, value = line.partition(" ")
            lines.append(f'{name}{{process="{process}"}} {value}')
    return lines


class Gatherer:
    """Asks the processes that should run, side by side."""

    def __init__(self, run: Path, wanted: Sequence[tuple[str, int]]) -> None:
        self._run, self._wanted = run, wanted
        self._pool = concurrent.futures.ThreadPoolExecutor(len(wanted), "gather")

    def metrics(self) -> str:
        """Return the text exposition of all, and which of them answered."""
        families: dict[str, list[str]] = {}
        up = []
        for name, page in self._ask_all("/metrics"):
            up.append(f'postweir_up{{process="{name}"}} {int(page is not None)}')
            block: list[str] = []
            for line in labelled((page or b"").decode("utf-8", "replace"), name):
                if line.startswith("#"):  # the samples of a family follow its HELP and TYPE
                    block = families.setdefault(line.split()[2], [])
                if not line.startswith("#") or line not in block:
                    block.append(line)
        head = ["# HELP postweir_up The process answered within 0.2 s.", "# TYPE postweir_up gauge"]
        return "\n".join([*head, *up, *(line for b in families.values() for line in b)]) + "\n"

    def health(self) -> dict[str, Any]:
        """Return each process's own word; silent ones are not ok."""
        found: dict[str, Any] = {}
        for name, page in self._ask_all("/health"):
            try:
                said = frames.from_json(page, dict[str, Any]) if page else {}
            except frames.Torn:
                said = {}
            found[name] = {"ok": False, **said}
        return {"ok": all(one["ok"] is True for one in found.values()), "processes": found}

    def _ask_all(self, path: str) -> list[tuple[str, bytes | None]]:
        answers = [
            (f"{k} {i}", self._pool.submit(asked, self._run / f"{k}-{i}.port", path, ASK_S))
            for k, i in self._wanted
        ]
        return [(name, answer.result()) for name, answer in answers]
