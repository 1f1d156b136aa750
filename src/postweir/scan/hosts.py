"""Reads hosts as browsers do, and says what their spelling hides."""

import contextlib
import unicodedata
from urllib.parse import unquote_to_bytes

LABELS_MAX = 12  # of a host, from the right; deeper ones are looked up by these
HOST_BYTES_MAX = 255  # RFC 1035 2.3.4
LABEL_CHARS_MAX = 63

# Written together in one language; every other mixture of alphabets is a disguise (UTS 39, 5.2).
_TOGETHER = (
    frozenset(("LATIN", "CJK", "HIRAGANA", "KATAKANA")),
    frozenset(("LATIN", "CJK", "HANGUL")),
    frozenset(("LATIN", "CJK", "BOPOMOFO")),
)
# Letters of other alphabets that look like Latin ones: a word of these alone is a disguise too.
_LOOKALIKE = frozenset("аеорсухіјѕԁӏһԛԝьгѵαιοκνρτυχօսոհցզ")


def host_of(raw: bytes) -> str:
    """Return a host as sets spell it: lower-case, in punycode, without trailing dots; "" if bad."""
    if raw[:1] == b"[":  # an IPv6 address
        return raw.lower().decode("ascii", "replace")
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    text = raw.decode("utf-8", "replace").strip(".-_").lower()
    if not text.isascii():
        # A browser takes full-width letters and dots for plain ones.
        text = unicodedata.normalize("NFKC", text[-HOST_BYTES_MAX:]).replace("。", ".").lower()
        text = ".".join(map(_punycode, text.split(".")[-LABELS_MAX:]))
    plain = text.replace("-", "").replace(".", "").replace("_", "")
    good = text and ".." not in text and (plain.isalnum() or not plain)
    return text if good else ""


def is_numeric(host: str) -> bool:
    """True for an address: also as one number, in octal or hexadecimal (WHATWG URL, 3.5)."""
    last = host.rpartition(".")[2]
    return host[:1] == "[" or last.isdecimal() or _is_hexadecimal(last)


def is_punycode(host: str) -> bool:
    """True when a label is written in punycode (RFC 3492)."""
    return host.startswith("xn--") or ".xn--" in host


def is_confusable(host: str) -> bool:
    """True when a label mixes alphabets, or is of letters that only look like Latin ones."""
    return is_punycode(host) and any(map(_is_disguise, host.split(".")))


def _is_disguise(label: str) -> bool:
    if not label.startswith("xn--") or len(label) > LABEL_CHARS_MAX:
        return False
    with contextlib.suppress(UnicodeError):
        text = label[4:].encode("ascii").decode("punycode")
        letters = [c for c in text if c.isalpha() and unicodedata.category(c) != "Lm"]
        alphabets = {unicodedata.name(c, "").partition(" ")[0] for c in letters}
        if len(alphabets) > 1:
            return not any(alphabets <= together for together in _TOGETHER)
        return bool(letters) and _LOOKALIKE.issuperset(letters)
    return False


def _is_hexadecimal(label: str) -> bool:
    return label.startswith("0x") and all(c in "0123456789abcdef" for c in label[2:])


def _punycode(label: str) -> str:
    if label.isascii() or len(label) > LABEL_CHARS_MAX:  # the encoder is quadratic
        return label
    return "xn--" + label.encode("punycode").decode()
