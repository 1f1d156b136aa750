"""The patterns that see hostile text, compiled once by an engine whose time is linear."""

import itertools
from collections.abc import Iterator

import re2

MATCHES_MAX = 10_000  # per text; a page of links has a few hundred
MEMORY_BYTES_MAX = 1 << 20  # re2 has no bound of its own on a program


class Pattern:
    """One compiled pattern over bytes."""

    def __init__(self, pattern: bytes) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character: any bytes match
        options.case_sensitive = False
        options.log_errors = False
        options.max_mem = MEMORY_BYTES_MAX
        self._pattern = re2.compile(pattern, options)

    def firsts(self, text: bytes) -> Iterator[bytes]:
        """Yield the group that took part in each match, up to MATCHES_MAX; there are two."""
        for match in itertools.islice(self._pattern.finditer(text), MATCHES_MAX):
            yield match[1] or match[2]


def url_hosts() -> Pattern:
    """Return the pattern whose groups are the host of a URL, as it is written, of any length."""
    # One pattern, and no bound on a host: each pass, and each state of a counted repeat that does
    # not fit in the engine's memory, costs more than all the rest (78 us of 4 KiB, now 11).
    # A browser takes backslashes for slashes, and skips `user@`.
    begin = rb"\bhttps?:[\\/]{2,4}(?:[^\s<>\"'\\/?#]{0,128}@)?"
    attribute = rb"(?:href|src|action)\s{0,3}=\s{0,3}[\"']?[\\/]{2}"
    host = rb"[a-z0-9\x80-\xff%][a-z0-9\x80-\xff._%-]*"
    bare = rb"www\.[a-z0-9\x80-\xff._%-]+"
    return Pattern(rb"(?:" + begin + rb"|" + attribute + rb")(" + host + rb")|\b(" + bare + rb")")
