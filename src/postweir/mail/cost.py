"""What reading a message would cost, told from its bytes beforehand, so that no parser is trapped.

Both parsers have inputs whose price is far above their length (measured on one core): the quick
one makes an object for each of a million parts and holds the interpreter while it drops them, and
is quadratic in the encoded words of one field (4 MiB of them: 75 s); the standard one is quadratic
in parameters, and in lines times boundaries. Nothing here copies a message or looks at more of it
at a time than a piece, so that other threads get their turn.
"""

from collections.abc import Iterator

PIECE_BYTES = 1024 * 1024  # lower-cased at a time: half a millisecond
SMALL_BYTES = 64 * 1024  # no room in it for a trap, but for one of encoded words
DELIMITERS_MAX = 25_000  # lines that begin with `--`: 40 ms; a long SQL script has a few thousand
WORDS_WORK_MAX = 200_000_000  # encoded words times bytes, of one field: about 25 ms
WORDS_FIELDS_MAX = 10_000  # fields with such words, or lines that look like it
PARAMETERS_MAX = 200  # in one Content-Type, for the standard parser; real ones have one or two
PARAMETERS_WORK_MAX = 10**12  # parameters times bytes, of one field, for the quick one: 0.2 s
STANDARD_WORK_MAX = 100_000  # lines times boundaries: about 50 ms of the standard parser


def places(data: bytes, word: bytes) -> Iterator[int]:
    """Yield where a lower-case word stands, in whatever case."""
    step = len(word) - 1
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES + step].lower()
        at = piece.find(word)
        while at >= 0:
            yield start + at
            at = piece.find(word, at + len(word))


def count(data: bytes, word: bytes) -> int:
    """Return how often a word stands there, in this case; it must not overlap itself."""
    if len(data) <= PIECE_BYTES:
        return data.count(word)
    step = len(word) - 1
    ends = range(PIECE_BYTES, len(data) + PIECE_BYTES, PIECE_BYTES)
    return sum(data.count(word, end - PIECE_BYTES, end + step) for end in ends)


def is_trap(data: bytes) -> bool:
    """True when the quick parser would take far longer over these bytes than over others."""
    if len(data) <= SMALL_BYTES:
        wordy = b"?" in data and b"=?" in data  # one octet is found at once, two in 3 us
        return wordy and (_is_wordy(data) or _hides_types(data))
    return (
        count(data, b"\n--") > DELIMITERS_MAX
        or _is_wordy(data)
        or _hides_types(data)
        or any(n * size > PARAMETERS_WORK_MAX for n, size in _parameters(data))
    )


def is_trap_for_standard(data: bytes) -> bool:
    """True when the standard library's parser would."""
    lines = count(data, b"\n") + count(data, b"\r") + 1
    boundaries = sum(1 for _ in places(data, b"boundary"))
    work = lines * (1 + boundaries)
    return work > STANDARD_WORK_MAX or any(n > PARAMETERS_MAX for n, _ in _parameters(data))


def field_end(data: bytes, at: int) -> int:
    """Return where the field ends that this place is in: behind its last folded line."""
    while True:
        at = data.find(b"\n", at) + 1
        if not at:
            return len(data)
        if data[at : at + 1] not in (b" ", b"\t"):
            return at


def _is_wordy(data: bytes) -> bool:
    """True when a header field has too many encoded words (RFC 2047), or what begins like them."""
    words = count(data, b"=?")
    if words * len(data) <= WORDS_WORK_MAX:
        return False
    at = data.find(b"=?")
    for _ in range(WORDS_FIELDS_MAX):
        if at < 0:
            return False
        start, end = data.rfind(b"\n", 0, at) + 1, field_end(data, at)
        if data.count(b"=?", at, end) * (end - start) > WORDS_WORK_MAX:
            return True
        at = data.find(b"=?", end)
    return True


def _hides_types(data: bytes) -> bool:
    """True when a Content-Type is spelt in encoded words: a way around what we look for."""
    return any(
        b"=?" in data[at : at + 100].partition(b";")[0] for at in places(data, b"content-type")
    )


def _parameters(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (parameters, bytes) of each field that may have such, or what looks like one."""
    for name in (b"content-type", b"content-disposition"):
        seen = 0
        for at in places(data, name):
            if at >= seen:  # else in the field before
                seen = field_end(data, at)
                yield data.count(b";", at, seen), seen - at
