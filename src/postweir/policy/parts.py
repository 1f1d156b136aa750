"""The parts of a condition that `&&` and `||` join, as they are written."""

from collections.abc import Iterator

PARTS_MAX = 40  # of a condition; more are told as a whole


def parts(condition: str) -> list[str]:
    """Return the parts in order, brackets around them taken off; one alone: it has no parts."""
    found = list(_split(condition))
    return found if len(found) <= PARTS_MAX else [condition.strip()]


def _split(text: str) -> Iterator[str]:
    text = _bare(text.strip())
    cuts = [at for at, _ in _joints(text)]
    if not cuts or any(c == "?" for _, c in _joints(text)):  # either of two is one thing
        yield text
        return
    begin = 0
    for at in (*cuts, len(text)):
        yield from _split(text[begin:at])
        begin = at + 2


def _bare(text: str) -> str:
    """Return a text without the brackets around all of it."""
    while text.startswith("(") and text.endswith(")"):
        if any(not depth for at, _, depth in _signs(text) if 0 < at < len(text) - 1):
            break
        text = text[1:-1].strip()
    return text


def _joints(text: str) -> Iterator[tuple[int, str]]:
    """Yield where `&&`, `||` or `?` stand outside of brackets."""
    skip = -1
    for at, c, depth in _signs(text):
        if not depth and at > skip and (c == "?" or text.startswith(("&&", "||"), at)):
            skip = at + 1
            yield at, c


def _signs(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield (place, character, depth of brackets) of all that stands outside of quotes."""
    at, depth, quote = 0, 0, ""
    while at < len(text):
        c = text[at]
        if quote:
            if c == "\\":
                at += 1
            elif text.startswith(quote, at):
                at += len(quote) - 1
                quote = ""
        elif c in "\"'":
            quote = c * 3 if text.startswith(c * 3, at) else c
            at += len(quote) - 1
        else:
            depth -= c in ")]"
            yield at, c, depth
            depth += c in "(["
        at += 1
