"""Encoded words are read as mail programs read them, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.words import VALUE_CHARS_MAX, text_of, words_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"), ("=?utf-8?q?H=C3=B6?= x", "Hö x"), ("=?UTF-8?B?SGk=?=", "Hi"),
        ("=?utf-8?B?SGk?=", "Hi"), ("a =?iso-8859-1?Q?=E9t=E9_x?= b", "a été x b"),
        ("=?utf-8?q?a?= \t=?utf-8?q?b?=", "ab"), ("=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=B6?=", "ö"), ("=?utf-8*de?q?x?=", "x"), ("=?", "=?"),
        ("=?utf-8?q?open", "=?utf-8?q?open"), ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?rot13?q?uryyb?=", "uryyb"), ("caf\xc3\xa9", "café"), ("caf\xe9", "café"),
        ("=?koi8-r?q?=F0=F2?=", "ПР"), ("=?utf-8?b?a?=", "=?utf-8?b?a?="),
    ],
)  # fmt: skip
def test_words(value, text):
    """RFC 2047, with the liberties that programs take."""
    assert words_of(value) == text


def test_a_long_field_is_read_up_to_its_bound():
    """And a field of words up to so many."""
    assert len(words_of("x" * 100_000)) == VALUE_CHARS_MAX
    assert words_of("=?utf-8?q?a?= " * 500).startswith("a" * 200)


@given(st.binary(max_size=200))
def test_any_value(data):
    """Nothing raises, and what is read can be sent on."""
    written = data.decode("latin-1")
    charsets = ("utf-7", "big5", "iso-2022-jp", "no such")
    found = [words_of(written), words_of(f"=?{written}?="), *(text_of(data, c) for c in charsets)]

    assert all(text.encode() is not None and len(text) <= VALUE_CHARS_MAX for text in found)
