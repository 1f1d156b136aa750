"""Says what attachments really are, by their first bytes and all their names."""

import itertools
from collections.abc import Iterator, Sequence

from postweir.mail.message import Message, Part
from postweir.scan.finding import Finding, tame

ZIP_NAMES_MAX = 1000  # of one archive; one with more counts as locked: nobody saw the rest
NAMES_MAX = 5000  # of all archives of a message: 20 ms
FINDINGS_MAX = 10  # one would do; ten tell the story

# What a double click runs, on the systems people read mail on.
# fmt: off
DANGEROUS = frozenset((
    "ade", "adp", "apk", "appx", "bat", "chm", "cmd", "cpl", "dll", "exe", "hta", "img", "ins",
    "iso", "isp", "jar", "js", "jse", "lnk", "mde", "msc", "msi", "msix", "msp", "mst", "pif",
    "ps1", "psm1", "reg", "scr", "sct", "sys", "url", "vb", "vbe", "vbs", "vhd", "vhdx", "wsc",
    "wsf", "wsh", "xll",
))
# fmt: on
# `.com` ends names of hosts too: it counts on a part that says it is a program's.
_ALSO_OF_PROGRAMS = ".com"
_MAGIC = (
    (b"\x7fELF", "ELF program"),
    (b"\xfe\xed\xfa\xce", "Mach-O program"),
    (b"\xfe\xed\xfa\xcf", "Mach-O program"),
    (b"\xce\xfa\xed\xfe", "Mach-O program"),
    (b"\xcf\xfa\xed\xfe", "Mach-O program"),
    (b"\xca\xfe\xba\xbe", "Mach-O or Java program"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "Windows shortcut"),
)
# They turn the direction of text: `fdp\u202eexe.` shows as `fdp.exe`. Unicode UAX 9.
_TURNS = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"


class Attachments:
    """The attachment scanner."""

    name = "attachments"
    version = "1"
    instant = True

    def scan(self, message: Message) -> Sequence[Finding]:
        """Return a finding for each attachment that would run, or cannot be looked into."""
        found: list[Finding] = []
        left = iter(range(NAMES_MAX))
        for part in message.parts:
            if part.container or (part.content_type.startswith("text/") and not part.names):
                continue
            for kind, what in _looks(part, left):
                found.append(Finding(self.name, kind, tame(what), 1.0, self.version))
                if len(found) >= FINDINGS_MAX:
                    return found
        return found


def _looks(part: Part, left: Iterator[int]) -> Iterator[tuple[str, str]]:
    for name in part.names:
        reason = danger(name)
        if not reason and name.lower().endswith(_ALSO_OF_PROGRAMS):
            reason = ".com file" if part.content_type.startswith("application/") else ""
        if reason:
            yield "attachment_dangerous", f"{reason}: {name}"
    payload = part.payload
    kind = program(payload)
    if kind:
        yield "attachment_dangerous", kind
    elif payload.startswith(b"PK"):
        yield from _looks_into(payload, left)


def _looks_into(archive: bytes, left: Iterator[int]) -> Iterator[tuple[str, str]]:
    locked = False
    for name, encrypted in zip_names(archive, left):
        reason = danger(name)
        if reason:
            yield "attachment_dangerous", f"{reason} in an archive: {name}"
            return
        locked = locked or encrypted
    if locked:
        yield "attachment_encrypted", "an archive that is locked, or too long to look at"


def danger(name: str) -> str:
    """Return why a file of this name is dangerous, or ""."""
    if any(turn in name for turn in _TURNS):
        return "a name that hides its end"
    # Windows drops dots and blanks at the end; a path's last element counts.
    plain = name.replace("\\", "/").rpartition("/")[2].rstrip(". \t\x00").lower()
    stem, dot, ending = plain.rpartition(".")
    if not dot or ending not in DANGEROUS:
        return ""
    return "a program posing as another file" if "." in stem.strip(".") else f".{ending} file"


def program(payload: bytes) -> str:
    """Return what kind of program these bytes are, or ""."""
    for magic, kind in _MAGIC:
        if payload.startswith(magic):
            return kind
    if payload.startswith(b"MZ") and len(payload) >= 64:
        at = int.from_bytes(payload[60:64], "little")
        # A text may begin with MZ, but has no NUL bytes.
        if payload[at : at + 4] == b"PE\0\0" or b"\0\0" in payload[2:64]:
            return "Windows program"
    return ""


def zip_names(payload: bytes, left: Iterator[int]) -> Iterator[tuple[str, bool]]:
    """Yield names in an archive's own list, and whether each is encrypted; directories left out.

    Each takes one of what is `left` for the message; what is not looked at is one without a name,
    encrypted. The list is read by hand (APPNOTE 4.3.12): the standard library's reader believes
    the list's own length, and builds an object for each of a million entries.
    """
    end = payload.rfind(b"PK\x05\x06", max(0, len(payload) - 65_557))  # the longest comment
    if end < 0 or len(payload) < end + 22:
        return
    size = int.from_bytes(payload[end + 12 : end + 16], "little")
    at = max(0, end - size)  # from the end: something may stand before the archive
    for _ in itertools.islice(left, ZIP_NAMES_MAX):
        if payload[at : at + 4] != b"PK\x01\x02":
            return
        flags = int.from_bytes(payload[at + 8 : at + 10], "little")
        lengths = [int.from_bytes(payload[at + i : at + i + 2], "little") for i in (28, 30, 32)]
        name = payload[at + 46 : at + 46 + lengths[0]]
        if not name.endswith(b"/"):
            yield name.decode("utf-8" if flags & 0x800 else "cp437", "replace"), bool(flags & 1)
        at += 46 + sum(lengths)
    if payload[at : at + 4] == b"PK\x01\x02":
        yield "", True
