"""Reads an HTML page as a person sees it: its text, what hides in it, its anchors; in one pass.

What is looked at: tags, attributes in them, styles written in a `style` attribute. Not looked at:
style sheets, scripts, pictures, colours but white, and what lies on top of what. A quick look,
linear in its input, that no page can trap; where a browser would differ, it reads rather more as
text than less.
"""

from collections.abc import Iterator
from html.entities import html5

from postweir.runtime.frames import Value
from postweir.scan.patterns import page_asks, page_hides, page_plays

HTML_BYTES_MAX = 256 * 1024  # of a page; long newsletters have 150 KiB
TAGS_MAX = 10_000  # of a page: 8 ms; a newsletter has a thousand
ANCHORS_MAX = 500
ATTRIBUTES_MAX = 20  # places in one tag that look like the attribute
ANCHOR_BYTES_MAX = 1000  # of the text it shows
STYLE_BYTES_MAX = 2000  # of one tag
CLOSE_TO_NOTHING = 2.0  # points or pixels of a font: nobody reads these

_BLOCK, _INLINE, _TEXT, _RAW, _IMAGE, _ANCHOR, _ANCHOR_END = range(7)
# fmt: off
_INLINES = (
    "abbr", "acronym", "b", "big", "code", "em", "font", "i", "label", "mark", "q", "s", "small",
    "span", "strike", "strong", "sub", "sup", "tt", "u", "wbr",
)
_BLOCKS = (  # the common ones; what is in no table counts as one too
    "blockquote", "body", "br", "center", "div", "h1", "h2", "h3", "head", "hr", "html", "li",
    "ol", "p", "table", "tbody", "td", "th", "tr", "ul",
)
_RAWS = ("!--", "script", "style", "template", "textarea", "title")
# fmt: on
_NAMED = (
    *((f"{end}{name}", _INLINE) for name in _INLINES for end in ("", "/")),
    *((f"{end}{name}", _BLOCK) for name in _BLOCKS for end in ("", "/")),
    *((name, _RAW) for name in _RAWS),
    ("img", _IMAGE),
    ("a", _ANCHOR),
    ("/a", _ANCHOR_END),
)  # fmt: skip
# In capitals too, as pages used to be written: the others take a longer way.
_KINDS = {
    written.encode(): kind for name, kind in _NAMED for written in {name, name.upper()}
}  # fmt: skip
_VOID = frozenset(b"area base br col embed hr img input link meta param source wbr".split())
_WHITE = frozenset((b"#fff", b"#ffffff", b"white", b"rgb(255,255,255)"))
_BEFORE = (b" ", b"\t", b"\r", b"\n", b"\f", b'"', b"'", b"/")
_BLANKS = b" \t\r\n\f"


class Page(Value, frozen=True):
    """What one page shows."""

    text: bytes = b""  # as a reader sees it, still in its charset and with its entities
    hidden_bytes: int = 0  # of text that nobody sees
    hidden_runs: int = 0  # in so many pieces
    images: int = 0  # but for those of one dot, which count who reads
    form: bool = False
    anchors: tuple[tuple[bytes, bytes], ...] = ()  # where each leads, and the text it shows


class Reader:
    """Reads pages. Its patterns are compiled once."""

    def __init__(self) -> None:
        self._asks, self._hides, self._plays = page_asks(), page_hides(), page_plays()

    def read(self, html: bytes) -> Page:
        """Return what a page shows. Any bytes are one."""
        html = html[:HTML_BYTES_MAX]
        plays = self._plays.is_in(html)
        walk = _Walk()
        walk.go(html, self._hides.starts(html) if plays else [])
        hidden, runs = walk.hidden, walk.hidden_runs
        # White on what? Where nothing sets a background it is on white.
        if walk.pale and not (b"background" in (lower := html.lower()) or b"bgcolor" in lower):
            hidden, runs = hidden + walk.pale, runs + walk.pale_runs
        anchors = tuple((href, b"".join(text)[:ANCHOR_BYTES_MAX]) for href, text in walk.anchors)
        text = b"".join(walk.shown)
        asks = plays and self._asks.is_in(html)
        return Page(text, hidden, runs, walk.images, asks, anchors)


class _Walk:
    """One pass over a page."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.anchors: list[tuple[bytes, list[bytes]]] = []
        self.images = self.hidden = self.hidden_runs = self.pale = self.pale_runs = 0
        self._anchor: list[bytes] | None = None  # the text of the one that is open
        self._raw = b""  # the element that is open and whose content is no text
        self._hider, self._deep = b"", 0  # the element that hides, and how often it is open
        self._white = b""  # the element whose text is white

    def go(self, html: bytes, hides: list[int]) -> None:
        """Read all; `hides` are the places where something may hide, in order."""
        first, *pieces = html.split(b"<", TAGS_MAX)
        self._say(first)
        if len(pieces) == TAGS_MAX:
            pieces.pop()  # the rest, with tags in it
        hides.append(len(html))
        at, nth = len(first), 0
        for piece in pieces:
            at += 1 + len(piece)
            if self._raw:
                self._skip(piece)
                continue
            tag, _, text = piece.partition(b">")
            if tag.count(b'"') & 1:
                tag, text = _requoted(tag, text)
            name = tag if tag.isalnum() else (tag.split(None, 1) or (b"",))[0]
            kind = _KINDS.get(name)
            if kind is None:
                name = _name(name)
                kind = _KINDS.get(name, _BLOCK if name else _TEXT)
            before = nth
            while hides[nth] < at and nth < len(hides) - 1:
                nth += 1
            if nth > before and not self._hider and name[:1] != b"/":
                self._maybe_hide(name.lower(), tag, kind)
            elif self._hider or self._white:
                self._nest(name.lower())
            if kind > _INLINE:
                text = self._special(kind, name, tag, text, piece)
            elif kind == _BLOCK:
                self.shown.append(b" ")
            if text:
                self._say(text)

    def _say(self, text: bytes) -> None:
        if self._hider:
            size = len(text.translate(None, _BLANKS))
            self.hidden += size
            self.hidden_runs += size > 0
            return
        if self._white:
            size = len(text.translate(None, _BLANKS))
            self.pale += size
            self.pale_runs += size > 0
        self.shown.append(text)
        if self._anchor is not None:
            self._anchor.append(text)

    def _skip(self, piece: bytes) -> None:
        """Go on behind the end of a script, a style sheet, a comment."""
        if self._raw == b"!--":
            _, ended, rest = piece.partition(b"-->")
        else:
            _, ended, rest = piece.partition(b">")
            if piece[: len(self._raw) + 1].lower() != b"/" + self._raw:
                return
        if ended:
            self._raw = b""
            self._say(rest)

    def _special(self, kind: int, name: bytes, tag: bytes, text: bytes, piece: bytes) -> bytes:
        """Do what a tag asks for, and return the text behind it."""
        if kind == _TEXT:
            return b"<" + piece
        if kind == _RAW:
            self._raw = name.lower()
            if name == b"!--":
                self._skip(piece[3:])
            return b""
        if kind == _IMAGE:
            self.images += not _is_dot(tag.lower())
        elif kind == _ANCHOR:
            self._anchor = None
            if len(self.anchors) < ANCHORS_MAX:
                self._anchor = []
                self.anchors.append((attribute(tag, b"href"), self._anchor))
        elif kind == _ANCHOR_END:
            self._anchor = None
        return text

    def _maybe_hide(self, name: bytes, tag: bytes, kind: int) -> None:
        if name in _VOID or kind == _RAW:
            return
        how = _hiding(tag.lower())
        if how == "hidden":
            self._hider, self._deep = name, 1
        elif how == "white":
            self._white = name

    def _nest(self, name: bytes) -> None:
        """Follow how deep we are in what hides."""
        if name[:1] != b"/":
            self._deep += name == self._hider
        elif name[1:] == self._hider:
            self._deep -= 1
            if not self._deep:
                self._hider = b""
        elif name[1:] == self._white:
            self._white = b""


def attribute(tag: bytes, name: bytes) -> bytes:
    """Return the value of an attribute, b"" when the tag has none."""
    lower = tag.lower()
    at = lower.find(name)
    for _ in range(ATTRIBUTES_MAX):
        if at < 0:
            break
        rest = tag[at + len(name) :].lstrip(_BLANKS)
        if rest[:1] == b"=" and lower[at - 1 : at] in _BEFORE:
            value = rest[1:].lstrip(_BLANKS)
            if value[:1] in (b'"', b"'"):
                return value[1:].partition(value[:1])[0]
            return value.split(None, 1)[0] if value else b""
        at = lower.find(name, at + 1)
    return b""


def unescaped(text: str) -> str:
    """Return text with its character references resolved, as browsers do; bounded, in one pass."""
    first, *pieces = text.split("&")
    return first + "".join(map(_resolved, pieces)) if pieces else first


def _resolved(piece: str) -> str:
    """Return what stands behind an ampersand, the reference at its beginning resolved."""
    if piece[:1] == "#":
        hexadecimal = piece[1:2] in ("x", "X")
        digits = piece[2 if hexadecimal else 1 :][:8]
        known = "0123456789abcdefABCDEF" if hexadecimal else "0123456789"
        number = digits[: len(digits) - len(digits.lstrip(known))]
        if not number:
            return "&" + piece
        rest = piece[(2 if hexadecimal else 1) + len(number) :]
        code = int(number, 16 if hexadecimal else 10)
        good = 0 < code < 0x110000 and not 0xD800 <= code < 0xE000
        return (chr(code) if good else "\ufffd") + rest.removeprefix(";")
    name, found, rest = piece[:32].partition(";")
    if found and name + ";" in html5:
        return html5[name + ";"] + piece[len(name) + 1 :]
    return "&" + piece


def _requoted(tag: bytes, text: bytes) -> tuple[bytes, bytes]:
    """Return tag and text cut anew: the bracket stood in quotes, and did not end the tag."""
    inside, found, after = text.partition(b'"')
    if not found:
        return tag, text
    more, _, text = after.partition(b">")
    return b"".join((tag, b">", inside, found, more)), text


def _name(name: bytes) -> bytes:
    """Return a tag's name as the table has it; b"" when it begins like none."""
    name = name[:32].lower()
    if name.startswith(b"!--"):
        return b"!--"
    plain = name[:1] + name[1:].partition(b"/")[0]
    return plain if plain[:1].isalpha() or plain[:1] in (b"/", b"!", b"?") else b""


def _is_dot(lower: bytes) -> bool:
    plain = lower.replace(b'"', b"").replace(b"'", b"")
    return any(
        (plain + b" ").partition(side)[2][:2].strip(b" p/") in (b"0", b"1")
        for side in (b"width=", b"height=")
    )


def _hiding(lower: bytes) -> str:
    """Return "hidden" or "white" for a tag whose text is that, else ""."""
    style = attribute(lower, b"style")[:STYLE_BYTES_MAX].translate(None, _BLANKS)
    if not style:
        if any(b" hidden" + end in lower + b" " for end in (b" ", b"=")):
            return "hidden"
        colour = attribute(lower, b"color") if lower.startswith(b"font") else b""
        return "white" if colour in _WHITE else ""
    said = dict(_declarations(style))
    if said.get(b"display") == b"none" or said.get(b"visibility") == b"hidden":
        return "hidden"
    if _is_nothing(said.get(b"font-size", b""), CLOSE_TO_NOTHING):
        return "hidden"
    if any(_is_nothing(said.get(name, b""), 0.05) for name in (b"opacity", b"max-height")):
        return "hidden"
    colour = said.get(b"color", b"")
    ground = said.get(b"background-color", said.get(b"background", b""))
    if colour and colour == ground:
        return "hidden"
    return "white" if colour in _WHITE and not ground else ""


def _declarations(style: bytes) -> Iterator[tuple[bytes, bytes]]:
    for declaration in style.split(b";"):
        name, _, value = declaration.partition(b":")
        yield name, value.partition(b"!")[0]


def _is_nothing(length: bytes, below: float) -> bool:
    """True for 0, 1px, .1em and the like."""
    number = length.rstrip(b"abcdefghijklmnopqrstuvwxyz%")
    digits = number.replace(b".", b"", 1)
    if not digits.isdigit() or len(number) > 10:
        return False
    if length[len(number) :] in (b"px", b"pt", b""):
        return float(number) < below
    return float(number) < 0.1 * min(below, 1.0)  # em, rem, %, vw: of something readable
