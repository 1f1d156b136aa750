"""Hosts are read as browsers do, and disguises are seen through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.scan.hosts import host_of, is_confusable, is_numeric, is_punycode


@pytest.mark.parametrize(
    ("raw", "host"),
    [("Example.COM.", "example.com"), ("b%61d.example", "bad.example"), ("a..b", ""), ("", ""),
     ("büd.example", "xn--bd-xka.example"), ("ｅxample。com", "example.com"), ("[::1]", "[::1]")],
)  # fmt: skip
def test_spelling(raw, host):
    """Lower case, punycode, no dots around; full-width letters are plain ones."""
    assert host_of(raw.encode()) == host


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "3232235777", "0xC0A80101".lower(), "0300.0250.1.1", "[2001:db8::1]",
             "0x7f.1", "1.2.0x"],
)  # fmt: skip
def test_addresses(host):
    """In each form that a browser takes."""
    assert is_numeric(host)


@pytest.mark.parametrize("host", ["example.com", "1.example", "0x.example", "a1", "", "7-zip.org"])
def test_names(host):
    """Digits within do not make a name an address."""
    assert not is_numeric(host)


@pytest.mark.parametrize(
    "name", ["аррӏе.example", "pаypal.example", "gοogle.example", "ρayρal.example"]
)
def test_disguises(name):
    """Alphabets mixed in one label, or one of letters that only look like Latin ones."""
    assert is_confusable(host_of(name.encode()))


@pytest.mark.parametrize(
    "name", ["bücher.example", "пример.example", "例え.example", "東京タワー.example",
             "한국.example", "παράδειγμα.example", "example.com", "bücher.пример",
             "xn--.example", "xn--999999.x"],
)  # fmt: skip
def test_honest_names(name):
    """A language's own letters, and labels in different ones, are no disguise."""
    assert not is_confusable(host_of(name.encode()))


def test_punycode():
    """In any label."""
    assert is_punycode("xn--a.example")
    assert is_punycode("a.xn--b.example")
    assert not is_punycode("axn--b.example")


@given(st.binary(max_size=100) | st.text(max_size=40).map(str.encode))
def test_any_host(raw):
    """None raises; what is no host is ""."""
    host = host_of(raw)

    assert host == host.lower()
    is_numeric(host)
    is_confusable("xn--" + host)
    is_confusable(host)
