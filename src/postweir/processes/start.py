"""`postweir KIND [--index N] [-c FILE]`: become one process."""

import argparse
from pathlib import Path

from postweir.processes import child


def process(words: list[str]) -> int:
    """Be the process that was named; returns its exit status."""
    reader = argparse.ArgumentParser(prog="postweir")
    reader.add_argument("kind", choices=("edge", "judge", "spool", "delivery", "watch"))
    reader.add_argument("--index", type=int, default=1)
    reader.add_argument("-c", "--config", type=Path, default=Path("postweir.toml"))
    asked = reader.parse_args(words)
    match asked.kind:
        case "edge":
            from postweir.processes.edge import serve
        case "judge":
            from postweir.processes.judge import serve
        case "spool":
            from postweir.processes.spool import serve
        case "delivery":
            from postweir.processes.delivery import serve
        case _:
            from postweir.processes.watch import serve
    return child.run(asked.kind, asked.index, asked.config, serve)
