"""Reads the mailboxes of a From, Sender or Reply-To field, as mail programs show them."""

from collections.abc import Iterator

from postweir.runtime.frames import Value

VALUE_CHARS_MAX = 4096  # of one field
MAILBOXES_MAX = 100


class Mailbox(Value, frozen=True):
    """One address, and the name beside it; neither is checked."""

    name: str  # quotes and comments taken off, encoded words as they stand
    address: str


def mailboxes(value: str) -> list[Mailbox]:
    """Return the mailboxes of a field's value, the first MAILBOXES_MAX. Any text has some, or none.

    Where two addresses stand in brackets the last one counts: what is before is shown as a name.
    """
    value = value[:VALUE_CHARS_MAX]
    found = list(_read(value, quotes='"('))
    if any(box is None for box in found):  # a quote or a comment without an end
        found = list(_read(value, quotes=""))
    return [box for box in found if box is not None and (box.name or box.address)][:MAILBOXES_MAX]


def _read(value: str, quotes: str) -> Iterator[Mailbox | None]:
    """Yield what stands between commas; None when a quote or comment of it does not end."""
    name: list[str] = []  # what is shown
    bare: list[str] = []  # what stands outside of brackets, quotes and comments
    inner: list[str] | None = None  # what stands in the last brackets
    addressed = False  # there is an @ outside of these
    at = 0
    while at < len(value):
        char = value[at]
        at += 1
        if char in quotes:
            text, at = _quoted(value, at, ")" if char == "(" else '"')
            if at < 0:
                yield None
                return
            name.append(text if char == '"' else " " + text)
            if char == '"':
                bare.append(text)
        elif char == "<":
            end = value.find(">", at)
            end = len(value) if end < 0 else end
            if inner is not None:
                name += ["<", *inner, ">"]
            inner, at = [value[at:end]], end + 1
        elif char in ",;":
            yield _mailbox(name, bare, inner)
            name, bare, inner, addressed = [], [], None, False
        elif char == ":" and inner is None and not addressed:
            name, bare = [], []  # the name of a group
        else:
            addressed = addressed or char == "@"
            name.append(char)
            bare.append(char)
    yield _mailbox(name, bare, inner)


def _mailbox(name: list[str], bare: list[str], inner: list[str] | None) -> Mailbox:
    if inner is not None:
        return Mailbox(_tidy(name), _tidy(inner))
    address, shown = _tidy(bare), _tidy(name)
    return Mailbox(_tidy([shown.replace(address, "")]) if address else shown, address)


def _tidy(pieces: list[str]) -> str:
    """Return text with single blanks. What else is one to Python may be half of a character."""
    return " ".join(filter(None, "".join(pieces).replace("\t", " ").split(" ")))


def _quoted(value: str, at: int, end: str) -> tuple[str, int]:
    """Return the text up to the closing character, and where it goes on; -1: it does not end."""
    text: list[str] = []
    deep = 0  # a comment may have comments in it
    while at < len(value):
        char = value[at]
        if char == end:
            if not deep:
                return "".join(text), at + 1
            deep -= 1
        elif char == "(" and end == ")":
            deep += 1
        elif char == "\\":
            at += 1
        text.append(value[at : at + 1])
        at += 1
    return "", -1
