"""Two policies beside each other: what was written otherwise, and what verdicts that changes."""

from collections.abc import Iterator

from postweir.desk import bundled
from postweir.desk.ports import Office
from postweir.desk.replaying import Replayed
from postweir.policy.comparison import Changed
from postweir.policy.comparison import compare as compared
from postweir.runtime.frames import Struct

SIGNS = {"added": "+", "removed": "-", "changed": "~", "moved": ">"}


class Compared(Struct, frozen=True):
    """What `policy diff` says."""

    before: str
    after: str
    same: bool
    changed: list[Changed]
    verdicts: Replayed | None = None  # with --since


async def compare(office: Office, one: str, other: str) -> Compared:
    """Compare two policies. Raises Misused, OSError."""
    before = await bundled.find(office, one)
    after = await bundled.find(office, other)
    changed = compared(before.bundle, after.bundle, before.sets, after.sets)
    return Compared(before.policy, after.policy, before.policy == after.policy, changed)


def with_verdicts(found: Compared, verdicts: Replayed) -> Compared:
    """Return it with what a replay came to."""
    return Compared(found.before, found.after, found.same, found.changed, verdicts)


def told(found: Compared) -> Iterator[str]:
    """Yield the lines for people: `+` added, `-` removed, `~` changed, `>` moved."""
    yield f"from {found.before[:16]}"
    yield f"to   {found.after[:16]}"
    if found.same:
        yield "they are the same"
    elif not found.changed:
        yield "they say the same; the facts or the dialect they were written for differ"
    for one in found.changed:
        yield ""
        yield _headline(one)
        for change in one.changes:
            yield from _lines(change.key, change.before, change.after, one.what)
        for sign, keys, count in (
            ("+", one.added, one.keys_added), ("-", one.removed, one.keys_removed),
        ):  # fmt: skip
            yield from (f"    {sign} {key}" for key in keys)
            if count > len(keys):
                yield f"    {sign} and {count - len(keys)} more"


def _headline(one: Changed) -> str:
    words = f"{SIGNS[one.what]} {one.kind} {one.id}: {one.what}"
    if one.place_before:
        words += f", from place {one.place_before} to {one.place}"
    elif one.place:
        words += f", place {one.place}"
    if one.keys_added or one.keys_removed:
        words += f", {one.keys_added} keys more, {one.keys_removed} fewer"
    return words


def _lines(key: str, before: str, after: str, what: str) -> Iterator[str]:
    """Yield what a key was and is; what was not there, or is gone, had no value to compare."""
    for sign, value, none in (("-", before, "added"), ("+", after, "removed")):
        if value and what != none:
            yield f"    {sign} {key} = {value}"
