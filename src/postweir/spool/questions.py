"""What may be asked of a shard, and how the answer is packed into pages."""

from collections.abc import Callable, Sequence

from postweir.runtime.frames import Value, pack
from postweir.spool.ports import Committed, Page, Read, Reader

ROWS_MAX = 1000  # of one page
PAGE_BYTES_MAX = 4 * 1024 * 1024  # half of what a frame may hold

Answer = tuple[Sequence[Value], int | None]


def _ledger(reader: Reader, read: Read) -> Answer:
    """One line an account, in order of name; `after` is how many were had."""
    lines = reader.ledger()
    some = lines[read.after : read.after + read.count_max]
    at = read.after + len(some)
    return some, at if at < len(lines) else None


def _message(reader: Reader, read: Read) -> Answer:
    """The message, then its steps; `after` is how many of all that were had."""
    found = reader.message(read.argument)
    if found is None:
        return [], None
    rows: list[Value] = [found, *reader.timeline(read.argument)]
    some = rows[read.after : read.after + read.count_max]
    at = read.after + len(some)
    return some, at if at < len(rows) else None


def _steps(reader: Reader, read: Read) -> Answer:
    steps = reader.steps(read.after, read.count_max)
    return steps, steps[-1].number if len(steps) == read.count_max else None


def _counted(reader: Reader, read: Read) -> Answer:
    since_us = int(read.argument) if read.argument.isdecimal() else 0
    return reader.counted(since_us, read.after, read.count_max)


def _usage(reader: Reader, read: Read) -> Answer:
    """`argument` is where to begin without a cursor, and "whole" or "ends"."""
    since, _, kind = read.argument.partition(" ")
    since_us = int(since) if since.isdecimal() else 0
    return reader.usage(since_us, kind == "whole", read.after, read.count_max), None


def _turned(reader: Reader, read: Read) -> Answer:
    """As `usage`; of what was refused nothing becomes, so with "ends" it is only a cursor."""
    since, _, kind = read.argument.partition(" ")
    since_us = int(since) if since.isdecimal() else 0
    return reader.turned(since_us, kind == "whole", read.after, read.count_max), None


def _facts(reader: Reader, read: Read) -> Answer:
    """Judged messages since a time, of one account or of all; `since=MICROSECONDS account=NAME`."""
    wanted = dict(word.partition("=")[::2] for word in read.argument.split())
    since = wanted.get("since", "")
    since_us = int(since) if since.isdecimal() else 0
    return reader.recorded(since_us, wanted.get("account", ""), read.after, read.count_max)


def _committed(reader: Reader, read: Read) -> Answer:
    """A row for each name, so that an answer that knows no such question is none."""
    names = read.argument.split()[: read.count_max]
    taken = reader.committed(names)
    return [Committed(name, name in taken) for name in names], None


QUESTIONS: dict[str, Callable[[Reader, Read], Answer]] = {
    "ledger": _ledger,
    "message": _message,
    "steps": _steps,
    "counted": _counted,
    "usage": _usage,
    "turned": _turned,
    "facts": _facts,
    "queue": lambda reader, read: reader.queue(read.argument, read.after, read.count_max),
    "refusals": lambda reader, read: reader.refusals(read.argument, read.after, read.count_max),
    "committed": _committed,
    "status": lambda reader, _: ([reader.status()], None),
}


def answer(reader: Reader, read: Read) -> Page:
    """Return one page of the answer; a question nobody here knows has no rows."""
    ask = QUESTIONS.get(read.question)
    if ask is None:
        return Page(read.ask, [], None)
    count_max = max(1, min(read.count_max, ROWS_MAX))
    bounded = Read(read.ask, read.question, read.argument, max(0, read.after), count_max)
    rows, after = ask(reader, bounded)
    packed = [pack(row) for row in rows]
    if sum(map(len, packed)) > PAGE_BYTES_MAX and count_max > 1:
        # Rows with much in them (facts, a thousand recipients): half as many, and go on.
        return answer(
            reader, Read(read.ask, read.question, read.argument, read.after, count_max // 2)
        )
    return Page(read.ask, packed, after)
