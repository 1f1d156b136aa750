"""Says what a file is by its first bytes, and whether that is what its name says."""

# By hand, and not by a library of magic numbers: 0.3 us instead of 250, what mail carries and a
# reader opens, and no guess where there is no sign (a library calls every ZIP archive `.docx`).
_SIGNS = (
    (b"%PDF-", "pdf"), (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"), (b"GIF89a", "gif"),
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"PK\x07\x08", "zip"),
    (b"PK00", "zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"), (b"{\\rt", "rtf"),
    (b"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"), (b"Rar!\x1a\x07", "rar"), (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"MSCF\0\0\0\0", "cab"),
    (b"\x7fELF", "elf"), (b"\xfe\xed\xfa\xce", "macho"), (b"\xfe\xed\xfa\xcf", "macho"),
    (b"\xce\xfa\xed\xfe", "macho"), (b"\xcf\xfa\xed\xfe", "macho"), (b"\xca\xfe\xba\xbe", "class"),
    (b"L\0\0\0\x01\x14\x02\0", "lnk"), (b"ITSF\x03\0\0\0", "chm"), (b"#!", "script"),
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"\0\0\x01\0", "ico"),
    (b"OggS", "ogg"), (b"ID3", "mp3"), (b"fLaC", "flac"), (b"\x1aE\xdf\xa3", "matroska"),
    (b"%!PS", "postscript"), (b"\xc5\xd0\xd3\xc6", "postscript"), (b"8BPS", "psd"),
    (b"SQLite format 3\0", "sqlite"), (b"conectix", "vhd"), (b"vhdxfile", "vhd"),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "onenote"), (b"!BDN", "pst"), (b"BEGIN:V", "vcard"),
)  # fmt: skip
_BY_BYTE: dict[int, list[tuple[bytes, str]]] = {}
for _sign, _kind in _SIGNS:
    _BY_BYTE.setdefault(_sign[0], []).append((_sign, _kind))

_PAGES = (
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<script",
    b"<meta ",
    b"<title",
    b"<table",
)
_HEAD_BYTES = 1024  # where a page may begin, behind blanks and comments

PROGRAMS = frozenset(("exe", "elf", "macho", "class", "lnk", "chm"))
DISKS = frozenset(("iso", "vhd"))
ARCHIVES = frozenset(
    ("zip", "rar", "7z", "tar", "gzip", "bzip2", "xz", "zstd", "cab", "arj", "ace")
)
# Their lists of names cannot be read here, so nobody looked into one.
CLOSED = frozenset(("7z", "cab", "arj", "ace"))

_TEXTS = frozenset(("html", "xml", "script", "rtf", "vcard", "postscript", "svg"))
_PICTURES = frozenset(("png", "jpeg", "gif", "bmp", "tiff", "webp", "heif", "ico"))
_OFFICE = frozenset(
    ("ole", "ooxml", "odf", "zip", "rtf", "html", "xml")
)  # old ones are any of these
# What a file of this name may be. A name that is not here says nothing; neither does a file whose
# bytes nobody knows. Pictures go by each other's names, and do no harm by it.
_NAMED = {
    "pdf": frozenset(("pdf",)), "rtf": frozenset(("rtf", "ole", "ooxml")),
    **dict.fromkeys(("doc", "dot", "xls", "xlt", "ppt", "pps"), _OFFICE),
    **dict.fromkeys(("docx", "docm", "xlsx", "xlsm", "xlsb", "pptx", "pptm", "ppsx", "dotx"),
                    frozenset(("ooxml", "zip", "ole"))),  # ole: locked with a password
    **dict.fromkeys(("odt", "ods", "odp"), frozenset(("odf", "zip"))),
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "webp", "heic"), _PICTURES),
    "zip": frozenset(("zip", "ooxml", "odf", "jar")), "rar": frozenset(("rar", "zip")),
    "7z": frozenset(("7z", "zip")), "tar": frozenset(("tar",)),
    **dict.fromkeys(("gz", "tgz"), frozenset(("gzip",))), "bz2": frozenset(("bzip2",)),
    "xz": frozenset(("xz",)), "cab": frozenset(("cab",)),
    **dict.fromkeys(("htm", "html", "xhtml"), frozenset(("html", "xml", "svg"))),
    **dict.fromkeys(("txt", "csv", "log", "ics", "vcf", "eml", "md"), _TEXTS),
    **dict.fromkeys(("mp3", "wav", "ogg", "mp4", "avi", "mov"),
                    frozenset(("mp3", "riff", "ogg", "mp4", "flac", "matroska"))),
}  # fmt: skip


def kind_of(data: bytes) -> str:
    """Return a short name of what these bytes are, "" when they do not say."""
    if not data:
        return ""
    for sign, kind in _BY_BYTE.get(data[0], ()):
        if data.startswith(sign):
            return kind
    if data[:2] == b"MZ" and _is_windows_program(data):
        return "exe"
    if data[:4] == b"RIFF":
        return "webp" if data[8:12] == b"WEBP" else "riff"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "bmp"
    if data[:3] == b"BZh" and data[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    if data[:2] == b"\x60\xea" and data[10:11] == b"\x02":  # a header about an archive
        return "arj"
    if data[4:8] == b"ftyp":
        return "heif" if data[8:11] in (b"hei", b"mif", b"avi") else "mp4"
    if data[7:14] == b"**ACE**":
        return "ace"
    if data[257:262] == b"ustar":
        return "tar"
    if data[0x8001:0x8006] == b"CD001":
        return "iso"
    return _page_kind(data[:_HEAD_BYTES])


def says_otherwise(kind: str, extension: str) -> bool:
    """True when a file of this name cannot be what its bytes are."""
    named = _NAMED.get(extension)
    return bool(kind and named is not None and kind not in named)


def _is_windows_program(data: bytes) -> bool:
    at = int.from_bytes(data[60:64], "little") if len(data) >= 64 else len(data)
    # A text may begin with MZ, but has no NUL bytes.
    return len(data) >= 64 and (data[at : at + 4] == b"PE\0\0" or b"\0\0" in data[2:64])


def _page_kind(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"").lstrip().lower()  # UTF-16 too
    if text[:1] != b"<" and text[:3] not in (b"\xff\xfe<", b"\xfe\xff<"):
        return ""
    text = text[text.find(b"<") :]
    if text.startswith(b"<?xml"):
        text = text.partition(b"?>")[2].lstrip()
        if b"<svg" in text:
            return "svg"
        return "html" if text.startswith((b"<html", b"<!doctype html")) else "xml"
    while text.startswith(b"<!--"):
        text = text.partition(b"-->")[2].lstrip()
    if text.startswith(b"<svg"):
        return "svg"
    return "html" if text.startswith(_PAGES) else ""
