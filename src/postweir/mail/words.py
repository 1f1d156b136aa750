"""Decodes the encoded words of a header field (RFC 2047), and bytes in the charsets of mail."""

import binascii
from collections.abc import Iterator

VALUE_CHARS_MAX = 8192  # of one field; a subject has a hundred
WORDS_MAX = 200  # of one field

_CODECS = {  # by the names mail uses; never a codec by a foreign name
    **{f"iso-8859-{n}": f"iso8859_{n}" for n in (*range(1, 12), *range(13, 17))},
    **{f"windows-{n}": f"cp{n}" for n in range(1250, 1259)},
    "utf-8": "utf-8", "utf8": "utf-8", "utf-7": "utf-7", "koi8-r": "koi8_r", "koi8-u": "koi8_u",
    "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5",
    "shift_jis": "cp932", "euc-jp": "euc_jp", "iso-2022-jp": "iso2022_jp", "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
}  # fmt: skip
_SHIFTED = ("iso-2022-jp", "utf-7")  # in these ASCII bytes are not only ASCII


def text_of(data: bytes, charset: str) -> str:
    """Return bytes as text, in the charset they say, or the one they are likely in."""
    if data.isascii() and charset not in _SHIFTED:
        return data.decode("ascii")
    codec = _CODECS.get(charset)
    if codec is None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            codec = "cp1252"
    return data.decode(codec, "replace")


def words_of(value: str) -> str:
    """Return a field's value (`headers.Field`: a character a byte) as a person reads it."""
    value = value[:VALUE_CHARS_MAX]
    if value.isascii() and "=?" not in value:
        return value
    return "".join(text_of(data, charset) for charset, data in _joined(_pieces(value)))


def _joined(pieces: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield neighbours in one charset as one: a character may be cut between two words."""
    before, held = "", b""
    for charset, data in pieces:
        if charset == before:
            held += data
        else:
            yield before, held
            before, held = charset, data
    yield before, held


def _pieces(value: str) -> Iterator[tuple[str, bytes]]:
    """Yield (charset, bytes); what is no encoded word has the charset ""."""
    at, behind_word = 0, False
    for _ in range(WORDS_MAX):
        start = value.find("=?", at)
        if start < 0:
            break
        charset, _, rest = value[start + 2 : start + 80].partition("?")
        text_at = start + 2 + len(charset) + 3
        end = value.find("?=", text_at)
        word = _word(rest[:2], value[text_at:end]) if end >= 0 else None
        between = value[at:start]
        if not (behind_word and word is not None and not between.strip(" \t")):
            yield "", between.encode("latin-1", "replace")
        if word is None:
            yield "", b"=?"
            at, behind_word = start + 2, False
            continue
        yield charset.partition("*")[0].lower(), word
        at, behind_word = end + 2, True
    yield "", value[at:].encode("latin-1", "replace")


def _word(encoding: str, text: str) -> bytes | None:
    """Return the bytes of one word, None when it is none."""
    data = text.encode("latin-1", "replace")
    if encoding in ("Q?", "q?"):
        return binascii.a2b_qp(data, header=True)
    if encoding in ("B?", "b?"):
        try:
            return binascii.a2b_base64(data + b"==")
        except binascii.Error:
            return None
    return None
