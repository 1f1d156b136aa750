"""Rules in a row, joined into one expression that says which of them is true first.

Asking the engine costs more than most conditions: 20 one by one take 48 µs, joined 5 µs. Each is
compiled on its own before, so what is joined has the meaning of its parts. An error in any of them
is one of the whole: then they are asked one by one, which alone says what went wrong.
"""

from collections.abc import Iterator, Sequence

from postweir.policy.bundle import Rule

JOINED_MAX = 24  # the engine's parser stops at 32 in one another
NONE = -1  # what it comes to when none is true

Row = tuple[int, ...]  # places of rules, in order


def rows(rules: Sequence[Rule]) -> Iterator[Row]:
    """Yield the rules that are looked at, such that each row can be joined.

    One on trial stands alone: when it matches it is passed over, and a row says only its first.
    """
    row: Row = ()
    for place, rule in enumerate(rules):
        if rule.mode == "off":
            continue
        if row and (rule.mode == "shadow" or len(row) == JOINED_MAX):
            yield row
            row = ()
        if rule.mode == "shadow":
            yield (place,)
        else:
            row += (place,)
    if row:
        yield row


def joined(rules: Sequence[Rule], row: Row) -> str:
    """Return the expression that comes to the place of the first that is true, or to NONE."""
    # A line break ends a comment that the condition may end with.
    choices = (f"({rules[place].when}\n) ? {place} : " for place in row)
    return "".join(choices) + str(NONE)
