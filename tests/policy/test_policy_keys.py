"""A key of a set and what a message has are written the same way, whoever wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import KEYS
from postweir.policy.keys import looked_up, network, normal, wanted


@pytest.mark.parametrize(
    ("of", "text", "key"),
    [
        ("url_hosts", "WWW.Example.COM.", "www.example.com"),
        ("from_domain", "b\u00fccher.example", "xn--bcher-kva.example"),
        ("from_domain", ".example.com", "example.com"),
        ("from_domain", "*.example.com", ""),
        ("from_domain", "com", ""),
        ("from_domain", "a..example", ""),
        ("url_hosts", "http://a.example/", ""),
        ("recipients", "Joe@Example.com", "joe@example.com"),
        ("recipients", "example.com", ""),
        ("client", "::ffff:192.0.2.1", "192.0.2.1"),
        ("client", "2001:DB8::0:1", "2001:db8::1"),
        ("client", "192.0.2.300", ""),
        ("sender", "acme|sasl|Joe", "acme|sasl|Joe"),
        ("sender", "joe", ""),
        ("account", "acme", "acme"),
        ("attachment_names", "Invoice.EXE", "invoice.exe"),
        ("attachment_hashes", "AB" * 32, "ab" * 32),
        ("attachment_hashes", "ab" * 31, ""),
    ],
)
def test_a_key_is_written_one_way(of, text, key):
    """Lower case, punycode, the shortest address; what is none of its kind is none."""
    assert normal(of, text) == key


def test_a_host_is_looked_up_below_others():
    """A set that names a domain has all below it; the last label alone is never asked for."""
    assert list(looked_up("url_hosts", "a.b.Example.com")) == [
        "a.b.example.com", "b.example.com", "example.com",
    ]  # fmt: skip
    assert list(looked_up("recipients", "a@b.example.com")) == ["a@b.example.com"]
    assert list(looked_up("url_hosts", "not a host")) == []
    assert len(list(looked_up("url_hosts", "a." * 100 + "example"))) <= 12


def test_a_network_is_spelt_out_when_it_is_small():
    """A set has addresses only; a large network would be millions of them."""
    assert list(network("192.0.2.4/31")) == ["192.0.2.4", "192.0.2.5"]
    assert list(network("10.0.0.0/8")) == []
    assert list(network("2001:db8::/64")) == []
    assert list(network("192.0.2.5/31")) == []  # which of the two was meant?


@given(st.sampled_from(KEYS), st.text(max_size=600))
def test_any_text(of, text):
    """A key is one printable line, and stays what it is."""
    key = normal(of, text)

    assert wanted(of)
    assert key.isprintable()
    assert normal(of, key) == key or not key
    assert all(normal(of, one) == one for one in looked_up(of, text))
