"""Files are what their first bytes say, and nothing is said where they do not."""

import bz2
import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.scan.kinds import kind_of, says_otherwise


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7", "pdf"), (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"PK\x03\x04", "zip"), (gzip.compress(b"x", mtime=0), "gzip"),
        (bz2.compress(b"x"), "bzip2"),
        (lzma.compress(b"x"), "xz"), (b"Rar!\x1a\x07\x00", "rar"), (b"7z\xbc\xaf'\x1c", "7z"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"), (b"{\\rtf1", "rtf"), (b"#!/bin/sh", "script"),
        (b"\x7fELF", "elf"), (b"BM\x10\0\0\0\0\0\0\0", "bmp"), (b"RIFF....WEBP", "webp"),
        (b"....ftypheic", "heif"), (b"....ftypisom", "mp4"), (b"\0" * 257 + b"ustar", "tar"),
        (b"\0" * 0x8001 + b"CD001", "iso"), (b"\xef\xbb\xbf \r\n<!DOCTYPE HTML>", "html"),
        (b"<!-- x --><html>", "html"), ("\ufeff<html>".encode("utf-16-le"), "html"),
        (b"<?xml version='1.0'?><html>", "html"), (b"<?xml?><x>", "xml"), (b"<svg>", "svg"),
        (b"<?xml?><svg>", "svg"), (b"", ""), (b"BMW sells cars", ""), (b"BZh is a text", ""),
        (b"MZ begins this letter", ""), (b"<b>bold</b> words", ""), (b"\0\0\0\0", ""),
        (b"\x60\xeaxyz", ""), (b"hello", ""),
    ],
)  # fmt: skip
def test_kinds(data, kind):
    """By signs that a text does not have by chance."""
    assert kind_of(data) == kind


@pytest.mark.parametrize(
    ("kind", "extension", "lies"),
    [
        ("exe", "pdf", True), ("zip", "jpg", True), ("html", "pdf", True), ("pdf", "docx", True),
        ("ole", "csv", True), ("ooxml", "doc", False), ("png", "jpg", False),
        ("html", "xls", False), ("ole", "xlsx", False), ("", "pdf", False),
        ("exe", "dat", False), ("pdf", "", False),
        ("script", "txt", False), ("gzip", "tgz", False),
    ],
)  # fmt: skip
def test_a_name_that_lies(kind, extension, lies):
    """Only where both are known, and cannot both be."""
    assert says_otherwise(kind, extension) is lies


@given(st.binary(max_size=600))
def test_any_bytes(data):
    """They are one of what is known, or nothing is said."""
    for begin in (b"", b"MZ", b"<"):
        kind = kind_of(begin + data)
        assert kind == "" or (kind.isascii() and kind.islower() and len(kind) < 12), kind
