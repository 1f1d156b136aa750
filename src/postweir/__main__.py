"""The commands."""

import sys

PROCESSES = ("edge", "judge", "spool", "delivery", "watch")


def main() -> int:
    """Run what was typed; returns the exit status."""
    if len(sys.argv) > 1 and sys.argv[1] in PROCESSES and "--help" not in sys.argv:
        # The short way: a process that starts again must not read the command line's library.
        from postweir.processes import start

        return start.process(sys.argv[1:])
    from postweir.processes import command

    return command.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
