"""The commands."""

import sys

SHORT = ("up", "edge", "judge", "spool", "delivery", "watch")


def main() -> int:
    """Run what was typed; returns the exit status."""
    if len(sys.argv) > 1 and sys.argv[1] in SHORT and "--help" not in sys.argv:
        # The short way: what mail waits for must not read the command line's library first, nor
        # rich, which structlog takes along for tracebacks on a terminal: a tenth of a start.
        sys.modules["rich"] = None  # type: ignore[assignment]
        from postweir.processes import start

        return start.process(sys.argv[1:])
    from postweir.processes import command

    return command.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
