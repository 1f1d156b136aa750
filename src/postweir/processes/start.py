"""`postweir up` and `postweir KIND [--index N]`, with `-c FILE`: become one process."""

import argparse
import importlib
from pathlib import Path

from postweir.processes import child

KINDS = ("edge", "judge", "spool", "delivery", "watch")


def process(words: list[str]) -> int:
    """Be the process that was named; returns its exit status."""
    reader = argparse.ArgumentParser(prog="postweir")
    reader.add_argument("kind", choices=("up", *KINDS))
    reader.add_argument("--index", type=int, default=1, help="which of its kind, from 1")
    reader.add_argument("-c", "--config", type=Path, default=Path("postweir.toml"))
    asked = reader.parse_args(words)
    if asked.kind == "up":
        status: int = importlib.import_module("postweir.processes.supervisor").run(asked.config)
        return status
    # Only the room it needs: a restart is as short as its imports.
    room = importlib.import_module(f"postweir.processes.{asked.kind}")
    return child.run(asked.kind, asked.index, asked.config, room.serve)
