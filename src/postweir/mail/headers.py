"""A message's header, field by field, without touching a byte of it."""

from collections.abc import Collection

from postweir.runtime.frames import Value

FIELDS_MAX = 1000  # many times the longest trail seen; `is_crowded` says when there are more
NAME_BYTES_MAX = 256  # a longer one is no field anybody looks for
LINE_CHARS_MAX = 998  # RFC 5322 2.1.1, without its end


class Field(Value, frozen=True):
    """One header field, and where it stands: `header[start:end]`, its line end included."""

    name: str  # lower-case
    value: str  # unfolded, one character a byte, no blanks around it
    start: int
    end: int


def header_end(data: bytes) -> int:
    """Return the offset just after the blank line that ends the header, or len(data).

    A line ends in LF here, with or without CR: what we accept has CRLF only, and for the rest
    (a file, a foreign report) finding more fields is the safer mistake.
    """
    if data.startswith(b"\r\n"):
        return 2
    if data.startswith(b"\n"):
        return 1
    crlf = data.find(b"\n\r\n")
    lf = data.find(b"\n\n", 0, crlf + 2 if crlf >= 0 else len(data))
    if lf >= 0:
        return lf + 2
    return crlf + 3 if crlf >= 0 else len(data)


def fields(header: bytes) -> list[Field]:
    """Return the fields among the first FIELDS_MAX, in order; malformed ones are left out."""
    found: list[Field] = []
    start = 0
    for _ in range(FIELDS_MAX):
        if start >= len(header):
            break
        end = _field_end(header, start)
        field = _field(header, start, end)
        if field:
            found.append(field)
        start = end
    return found


def is_crowded(header: bytes) -> bool:
    """True when the header has more lines that begin a field than `fields` looks at.

    Malformed ones count: a thousand of them would hide whatever comes after.
    """
    lines = header.count(b"\n") + (not header.endswith(b"\n"))
    if lines <= FIELDS_MAX:
        return False
    return lines - header.count(b"\n ") - header.count(b"\n\t") > FIELDS_MAX


def written(text: str) -> bytes | None:
    """Return `Name: value` as one whole line of a header; None when it is anything else.

    What it lets through cannot end the line, begin another field, or end the header.
    """
    name, _, value = text.partition(":")
    value = value.strip(" ")
    if not 0 < len(name) <= NAME_BYTES_MAX or not (name.isascii() and name.isprintable()):
        return None
    if " " in name or not value or not (value.isascii() and value.isprintable()):
        return None
    line = f"{name}: {value}"
    return f"{line}\r\n".encode("ascii") if len(line) <= LINE_CHARS_MAX else None


def without(header: bytes, starts: Collection[int]) -> bytes:
    """Return the header less the fields that start there; all else byte for byte."""
    if not starts:
        return header
    kept = []
    at = 0
    for start in sorted(set(starts)):
        assert at <= start < len(header), f"no field starts at {start}"
        kept.append(header[at:start])
        at = _field_end(header, start)
    kept.append(header[at:])
    return b"".join(kept)


def _field_end(header: bytes, start: int) -> int:
    """Return where the field that starts here ends: behind its last folded line."""
    at = start
    while True:
        at = header.find(b"\n", at) + 1
        if not at:
            return len(header)
        if header[at : at + 1] not in (b" ", b"\t"):
            return at


def _field(header: bytes, start: int, end: int) -> Field | None:
    colon = header.find(b":", start, end)
    if colon < 0:
        return None
    # Blanks before the colon are obsolete (RFC 5322 4.5), and a way to hide a field; so is a fold
    # there, for whoever unfolds before looking for the colon.
    name = header[start:colon].rstrip(b" \t\r\n").decode("latin-1").lower()
    if not 0 < len(name) <= NAME_BYTES_MAX or not (name.isascii() and name.isprintable()):
        return None
    return None if " " in name else Field(name, _unfolded(header[colon + 1 : end]), start, end)


def _unfolded(value: bytes) -> str:
    text = value.decode("latin-1").strip(" \t\r\n")
    return text.replace("\r\n", "").replace("\n", "") if "\n" in text else text
