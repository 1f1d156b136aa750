"""The patterns that see hostile text, compiled once by an engine whose time is linear."""

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
        """Yield the first group of each match, up to MATCHES_MAX."""
        for count, match in enumerate(self._pattern.finditer(text)):
            if count >= MATCHES_MAX:
                return
            yield match.group(1)


def url_hosts() -> tuple[Pattern, ...]:
    """Return patterns whose first group is the host of a URL, as it is written."""
    # A browser takes backslashes for slashes, and skips `user@`.
    host = rb"([a-z0-9\x80-\xff%][a-z0-9\x80-\xff._%-]{0,252})"
    return (
        Pattern(rb"\bhttps?:[\\/]{2,4}(?:[^\s<>\"'\\/?#]{0,128}@)?" + host),
        Pattern(rb"(?:href|src|action)\s{0,3}=\s{0,3}[\"']?[\\/]{2}" + host),
        Pattern(rb"\b(www\.[a-z0-9\x80-\xff._%-]{1,252})"),
    )
