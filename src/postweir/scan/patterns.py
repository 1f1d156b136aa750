"""The patterns that see hostile text, compiled once by an engine whose time is linear."""

import itertools
from collections.abc import Iterator

import re2

MATCHES_MAX = 10_000  # per text; a page of links has a few hundred
MEMORY_BYTES_MAX = 1 << 20  # re2 has no bound of its own on a program


class Unusable(ValueError):
    """A pattern that somebody wrote cannot be used; the text says why."""


class Written:
    """One compiled pattern over text, as an administrator wrote it."""

    def __init__(self, pattern: str) -> None:
        """Raises Unusable."""
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MEMORY_BYTES_MAX
        try:
            self._pattern = re2.compile(pattern, options)
        except re2.error as fault:
            said = fault.args[0] if fault.args else b""
            words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            if "too large" in words:
                words = f"it takes more than {MEMORY_BYTES_MAX // 1024} KiB compiled: repeat less"
            raise Unusable(words) from None
        except UnicodeEncodeError:
            raise Unusable("it is not UTF-8") from None

    def found(self, text: str) -> bool:
        """True when it matches anywhere in the text."""
        return self._pattern.search(text) is not None


class Pattern:
    """One compiled pattern over bytes."""

    def __init__(self, pattern: bytes) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character: any bytes match
        options.case_sensitive = False
        options.log_errors = False
        options.max_mem = MEMORY_BYTES_MAX
        self._pattern = re2.compile(pattern, options)

    def is_in(self, text: bytes) -> bool:
        """True when it stands anywhere in there."""
        return self._pattern.search(text) is not None

    def starts(self, text: bytes) -> list[int]:
        """Return where each match begins, up to MATCHES_MAX."""
        return [m.start() for m in itertools.islice(self._pattern.finditer(text), MATCHES_MAX)]

    def wholes(self, text: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield each match, the group that took part in it, and where in it that begins."""
        for match in itertools.islice(self._pattern.finditer(text), MATCHES_MAX):
            start, end = match.span()
            first, last = match.span(1)
            if first < 0:
                first, last = match.span(2)
            yield text[start:end], text[first:last], first - start

    def firsts(self, text: bytes) -> Iterator[bytes]:
        """Yield the group that took part in each match, up to MATCHES_MAX; there are two."""
        for match in itertools.islice(self._pattern.finditer(text), MATCHES_MAX):
            yield match[1] or match[2]


def url_hosts() -> Pattern:
    """Return the pattern whose groups are the host of a URL, as it is written, of any length."""
    return Pattern(_url(b""))


def urls() -> Pattern:
    """Return the same, but for the rest of the URL, which each match takes along."""
    return Pattern(_url(rb"[^\s<>\"'\\]*"))


def _url(rest: bytes) -> bytes:
    # One pattern, and no counted repeats: each pass, and each state of a repeat that does not fit
    # in the engine's memory, costs more than all the rest (78 us of 4 KiB, now 8).
    # A browser takes backslashes for slashes, and skips `user@`.
    begin = rb"\bhttps?:[\\/]+(?:[^\s<>\"'\\/?#@]*@)*"
    attribute = rb"(?:href|src|action)\s*=\s*[\"']?[\\/]{2}"
    host = rb"\[[0-9a-f:.]+\]|[a-z0-9\x80-\xff%][a-z0-9\x80-\xff._%-]*"
    bare = rb"www\.[a-z0-9\x80-\xff._%-]+"
    return (
        rb"(?:" + begin + rb"|" + attribute + rb")(" + host + rb")" + rest
        + rb"|\b(" + bare + rb")" + rest
    )  # fmt: skip


def page_asks() -> Pattern:
    """Return the pattern of a page that asks for input, or runs a script."""
    return Pattern(_asks())


def page_hides() -> Pattern:
    """Return the pattern of what may make a page's text unseen; `page` looks closer."""
    return Pattern(_hides())


def page_plays() -> Pattern:
    """Return the pattern of a page that does either: most letters do neither, told in one pass."""
    return Pattern(_asks() + rb"|" + _hides())


def _asks() -> bytes:
    element = rb"<(?:form|input|textarea|select|script|iframe|object)\b"
    handler = rb"[\s\"'/]on(?:load|error|click|mouse[a-z]+|focus|toggle|start)\s*="
    return element + rb"|" + handler + rb"|(?:java|vb)script:"


def _hides() -> bytes:
    # It matches little else: each match costs as much as two tags.
    says = rb"\s*:\s*"
    unseen = rb"display" + says + rb"none|visibility" + says + rb"hid|\shidden[\s=>]"
    tiny = rb"(?:font-size|opacity|max-height)" + says + rb"(?:0|1p|\.)"
    white = rb"color\s*[:=]\s*[\"']?(?:#fff|white|rgb\(255)"
    return rb"|".join((unseen, tiny, white))
