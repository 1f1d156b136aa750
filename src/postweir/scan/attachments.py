"""Says what attachments really are, by their first bytes, their names, and what is packed in them.

Not looked at: macros older than VBA (Excel 4) in old files, what a PDF or a script would do, what
is in 7z, cab, arj and ace archives (each is a finding: nobody can look in), and in bzip2, xz and
zstd, which pack one file and have no list.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from postweir.mail.message import Message, Part
from postweir.scan.archives import Budget, Entry, entries, entry_bytes
from postweir.scan.finding import Finding, Seen, tame
from postweir.scan.kinds import ARCHIVES, CLOSED, DISKS, PROGRAMS, kind_of, says_otherwise

FINDINGS_MAX = 10  # one would do; ten tell the story
NAMES_MAX = 200  # of attachments, for a policy's sets
HASHES_MAX = 100
EXTENSION_CHARS_MAX = 10
WORDS_MAX = 64  # of each list: what a fact has room for

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
# They turn the direction of text: `fdp\u202eexe.` shows as `fdp.exe`. Unicode UAX 9.
_TURNS = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
_WORDS = {
    "exe": "Windows program", "elf": "ELF program", "macho": "Mach-O program",
    "class": "Mach-O or Java program", "lnk": "Windows shortcut", "chm": "compiled help",
    "iso": "disk image", "vhd": "disk image",
}  # fmt: skip
# A name in an OLE file's directory, which is never packed: no parser is needed, nor trusted.
_VBA = "_VBA_PROJECT".encode("utf-16-le")
_OLE_LOCKED = "EncryptedPackage".encode("utf-16-le")
_PAGES = frozenset(("htm", "html", "xhtml", "shtml"))
_OFFICE_PARTS = ("word/", "xl/", "ppt/", "visio/")
_TYPES_BYTES = 64 * 1024


@dataclass(slots=True)
class Tally:
    """What was seen of a message's attachments so far."""

    findings: list[tuple[str, str]] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    hashes: list[str] = field(default_factory=list)
    types: dict[str, None] = field(default_factory=dict)
    extensions: dict[str, None] = field(default_factory=dict)
    inside: dict[str, None] = field(default_factory=dict)
    archives: int = 0
    bytes: int = 0
    mismatch: bool = False
    macros: bool = False
    html: bool = False


class Attachments:
    """The attachment scanner."""

    name = "attachments"
    version = "2"
    instant = True
    facts: Mapping[str, type] = {
        "attachments.known": bool, "attachments.types": list, "attachments.extensions": list,
        "attachments.mismatch": bool, "attachments.archives": int, "attachments.inside": list,
        "attachments.macros": bool, "attachments.html": bool, "attachments.bytes": int,
    }  # fmt: skip

    def scan(self, message: Message) -> Seen:
        """Return what the attachments are, and a finding for what would run or is locked."""
        tally, budget = Tally(), Budget()
        for part in message.parts:
            if is_attachment(part):
                _look(part, tally, budget)
        return Seen(
            [
                Finding(self.name, kind, tame(what), 1.0, self.version)
                for kind, what in tally.findings[:FINDINGS_MAX]
            ],
            measures={
                "attachments.known": True,
                "attachments.types": list(tally.types)[:WORDS_MAX],
                "attachments.extensions": list(tally.extensions)[:WORDS_MAX],
                "attachments.mismatch": tally.mismatch,
                "attachments.archives": tally.archives,
                "attachments.inside": list(tally.inside)[:WORDS_MAX],
                "attachments.macros": tally.macros,
                "attachments.html": tally.html,
                "attachments.bytes": tally.bytes,
            },
            texts={"attachment_names": "\n".join(tally.names)},
            keys={
                "attachment_names": [name.lower() for name in tally.names],
                "attachment_hashes": tally.hashes,
            },
        )


def is_attachment(part: Part) -> bool:
    """True for a part with a name, one that says so, and one that is neither text nor container."""
    if part.container:
        return False
    named = part.names or part.disposition == "attachment"
    return bool(named) or not part.content_type.startswith(("text/", "message/"))


def _look(part: Part, tally: Tally, budget: Budget) -> None:
    """Add one attachment to the tally."""
    payload = part.payload
    kind = kind_of(payload)
    extensions = [extension(name) for name in part.names]
    if not kind and "zip" in extensions and b"PK\x05\x06" in payload[-66_000:]:
        kind = "zip"  # something stands before it; who unpacks it does not mind
    listed = list(entries(kind, payload, budget))
    if kind == "zip":
        kind, macros = _zip_kind(payload, listed, budget)
        tally.macros |= macros
    elif kind == "ole":
        tally.macros |= _VBA in payload
    tally.bytes += max(len(payload), 0 if payload else part.size)
    tally.archives += kind in ARCHIVES or kind == "jar"
    tally.mismatch |= any(says_otherwise(kind, end) for end in extensions)
    tally.html |= (
        kind == "html" or part.content_type == "text/html" or not _PAGES.isdisjoint(extensions)
    )
    if kind:
        tally.types[kind] = None
    tally.extensions |= dict.fromkeys(filter(None, extensions))
    tally.inside |= dict.fromkeys(filter(None, (extension(e.name) or e.kind for e in listed)))
    if len(tally.names) < NAMES_MAX:
        tally.names |= dict.fromkeys(part.names)
    if len(tally.hashes) < HASHES_MAX and payload:
        tally.hashes.append(hashlib.sha256(payload).hexdigest())
    if len(tally.findings) < FINDINGS_MAX:
        tally.findings += _findings(part, kind, listed)


def _findings(part: Part, kind: str, listed: list[Entry]) -> Iterator[tuple[str, str]]:
    for name in part.names:
        reason = danger(name)
        if not reason and name.lower().endswith(_ALSO_OF_PROGRAMS):
            reason = ".com file" if part.content_type.startswith("application/") else ""
        if reason:
            yield "attachment_dangerous", f"{reason}: {name}"
    if kind in PROGRAMS or kind in DISKS:
        yield "attachment_dangerous", _WORDS[kind]
    elif kind in CLOSED:
        yield "attachment_encrypted", f"a {kind} archive, which nobody here can look into"
    elif kind == "ole" and _OLE_LOCKED in part.payload:
        yield "attachment_encrypted", "an office document with a password"
    yield from _findings_inside(listed)


def _findings_inside(listed: list[Entry]) -> Iterator[tuple[str, str]]:
    for entry in listed:
        reason = danger(entry.name) or _WORDS.get(entry.kind, "")
        if reason:
            yield "attachment_dangerous", f"{reason} in an archive: {entry.name}"
            return
    if any(entry.locked for entry in listed):
        yield "attachment_encrypted", "an archive that is locked, or too long to look at"


def _zip_kind(payload: bytes, listed: list[Entry], budget: Budget) -> tuple[str, bool]:
    """Return what a ZIP archive is, by the names in it, and whether it carries macros."""
    for entry in listed:
        if entry.name == "[Content_Types].xml":
            names = [other.name.lower() for other in listed]
            kind = "ooxml" if any(name.startswith(_OFFICE_PARTS) for name in names) else "zip"
            # The type is what counts: the part may have any name.
            types = entry_bytes(payload, entry, budget)[0][:_TYPES_BYTES].lower()
            macros = any("vbaproject" in name or "macrosheets/" in name for name in names)
            return kind, macros or b"vbaproject" in types or b"macrosheet" in types
        if entry.name == "mimetype" and entry is listed[0]:
            return "odf", any(other.name.startswith("Basic/") for other in listed)
        if entry.name == "META-INF/MANIFEST.MF":
            return "jar", False
    return "zip", False


def extension(name: str) -> str:
    """Return the end of a file's name, lower-case, "" when it has none that says anything."""
    plain = name.replace("\\", "/").rpartition("/")[2].rstrip(". \t\x00").lower()
    stem, _, end = plain.rpartition(".")
    good = stem and end.isascii() and end.isalnum() and len(end) <= EXTENSION_CHARS_MAX
    return end if good else ""


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
