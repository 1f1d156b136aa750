"""Measures the text that a reader sees: plain, or what a page shows."""

from collections.abc import Iterator, Mapping

from postweir.mail.message import Message, Part
from postweir.mail.words import text_of
from postweir.scan.finding import Measure, Seen
from postweir.scan.page import Page, Reader, unescaped

TEXT_CHARS_MAX = 64 * 1024
PAGES_MAX = 20  # HTML parts of a message that are read
# A preview line, which mail programs show in their list of messages, is hidden in most
# newsletters; words broken up by hidden pieces need many of those.
HIDDEN_BYTES_MIN = 300
HIDDEN_RUNS_MIN = 8
IMAGE_WORDS_MAX = 10

_CAPITALS = bytes(range(ord("A"), ord("Z") + 1))
_LETTERS = _CAPITALS + _CAPITALS.lower()
# Between the letters of a word, to hide it from whoever looks for it; a reader sees none of them.
_UNSEEN = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f")


class Text:
    """The text scanner."""

    name = "text"
    version = "1"
    instant = True
    facts: Mapping[str, type] = {
        "text.known": bool, "text.chars": int, "text.words": int, "text.capitals": float,
        "text.foreign": float, "text.html": bool, "text.hidden": bool, "text.image_only": bool,
        "text.form": bool,
    }  # fmt: skip

    def __init__(self) -> None:
        self._reader = Reader()

    def scan(self, message: Message) -> Seen:
        """Return measures of the text, and the text for whom it may concern."""
        pages: list[Page] = []
        shown: list[str] = []
        html: list[str] = []
        left = TEXT_CHARS_MAX
        for part in _shown(message):
            if left <= 0 or len(pages) >= PAGES_MAX:
                break
            # What is wide (UTF-16, UTF-7, ...) came as UTF-8 from the part.
            raw, charset = part.text, "utf-8" if part.charset[:3] == "utf" else part.charset
            if part.content_type == "text/html":
                page = self._reader.read(raw)
                pages.append(page)
                words = seen(unescaped(text_of(page.text[: 4 * left], charset)))
                html.append(text_of(raw[:TEXT_CHARS_MAX], charset))
            else:
                words = seen(text_of(raw[: 4 * left], charset))
            shown.append(words[:left])
            left -= len(words) + 1
        message.kept["pages"] = pages
        text = " ".join(shown)
        return Seen(
            measures=_measures(text, pages),
            texts={"text": text, "html": "\n".join(html)[:TEXT_CHARS_MAX]},
        )


def seen(text: str) -> str:
    """Return text as it is seen: a blank for blanks, and nothing unseen between letters."""
    if not text.isascii():
        for unseen in _UNSEEN:
            text = text.replace(unseen, "")
    return " ".join(text.split())


def _shown(message: Message) -> Iterator[Part]:
    """Yield the parts whose text is shown, of alternatives only the page where there is one."""
    above: list[int] = []  # the containers we are in
    where: list[int] = []  # for each part, the alternatives it is one of, or -1
    paged: set[int] = set()
    for number, part in enumerate(message.parts):
        del above[part.depth :]
        above += [-1] * (part.depth - len(above))
        within = next((n for n in reversed(above) if n >= 0), -1)
        where.append(within)
        alternatives = part.container and part.content_type == "multipart/alternative"
        above.append(number if alternatives else -1)
        if part.content_type == "text/html":
            paged.add(within)
    paged.discard(-1)
    for part, within in zip(message.parts, where, strict=True):
        if part.container or part.disposition == "attachment":
            continue
        plain = part.content_type == "text/plain" and within not in paged
        if plain or part.content_type == "text/html":
            yield part


def _measures(text: str, pages: list[Page]) -> dict[str, Measure]:
    words = text.count(" ") + 1 if text else 0
    plain = text.encode("ascii", "ignore")
    foreign = len(text) - len(plain)
    capitals = len(plain) - len(plain.translate(None, _CAPITALS))
    letters = len(plain) - len(plain.translate(None, _LETTERS))
    if foreign:
        others = [c for c in text if c > "\x7f"]
        capitals += sum(map(str.isupper, others))
        letters += sum(map(str.isalpha, others))
    return {
        "text.known": True,
        "text.chars": len(text),
        "text.words": words,
        "text.capitals": capitals / letters if letters else 0.0,
        "text.foreign": foreign / len(text) if text else 0.0,
        "text.html": bool(pages),
        "text.hidden": sum(page.hidden_bytes for page in pages) >= HIDDEN_BYTES_MIN
        or sum(page.hidden_runs for page in pages) >= HIDDEN_RUNS_MIN,
        "text.image_only": any(page.images for page in pages) and words <= IMAGE_WORDS_MAX,
        "text.form": any(page.form for page in pages),
    }
