"""Received lines of the mail servers there are, and of those who would like to be them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.identity.upstream import Hop, _split, _split_slowly, is_internal, read_hop


@pytest.mark.parametrize(
    ("line", "hop"),
    [
        (  # Postfix
            "from a (rdns.example [192.0.2.7]) (Authenticated sender: joe@x) by m (Postfix)"
            " with ESMTPSA id 4X; Tue",
            Hop("192.0.2.7", True, "joe@x", 1, "4X"),
        ),
        ("by m (Postfix, from userid 33) id 4X; Tue", Hop(id="4X")),
        ("from u (unknown [IPv6:2001:db8::7]) by m with ESMTP id 1; x", Hop("2001:db8::7", id="1")),
        (  # Exim, without and with reverse DNS
            "from [192.0.2.7] (helo=[198.51.100.1]) by m with esmtpsa (TLS1.3) tls X (Exim 4.96)"
            " (envelope-from <a@b>) id 1abC-0; Tue",
            Hop("192.0.2.7", True, id="1abC-0"),
        ),
        (
            "from r.example ([192.0.2.7]:4711 helo=x) by m with esmtp (Exim 4.96) id 1abC; T",
            Hop("192.0.2.7", id="1abC"),
        ),
        ("from joe by m with local (Exim 4.96) id 1abC; T", Hop(id="1abC")),
        (  # Sendmail
            "from h (h.example [192.0.2.7]) (authenticated bits=0) by m (8.17/8.17) with ESMTPSA"
            " id 0AO; T",
            Hop("192.0.2.7", True, id="0AO"),
        ),
        # A HELO name that is an address is not where the client was.
        ("from [198.51.100.1] (r [192.0.2.7]) by m with SMTP id 1; T", Hop("192.0.2.7", id="1")),
        # What stands after `by` does not speak about the client.
        ("from a (r [192.0.2.7]) by m (Authenticated sender: x) with SMTP; T", Hop("192.0.2.7")),
        ("from a (r [::ffff:192.0.2.7]) by m; T", Hop("192.0.2.7")),
        ("", Hop()),
        ("from", Hop()),
        ("from (((((((((((", Hop()),
        ("from x (a \\) [192.0.2.7]) by y; T", Hop("192.0.2.7")),
    ],
)
def test_lines(line, hop):
    """Each server's line gives client, user and id."""
    assert read_hop(line) == hop


@given(st.text(max_size=300))
def test_any_line(text):
    """Any text is a line, of which perhaps nothing can be read."""
    hop = read_hop(text)

    assert len(hop.id) <= 64
    assert hop.id.isascii()


def test_internal():
    """Private, shared, link-local and loopback addresses are inside a house."""
    inside = ("10.1.2.3", "127.0.0.1", "192.168.0.1", "100.64.1.1", "::1", "fe80::1", "fd00::1")
    outside = ("203.0.113.7", "8.8.8.8", "2001:db8::1", "172.32.0.1", "", "x")

    assert [a for a in inside if not is_internal(a)] == []
    assert [a for a in outside if is_internal(a)] == []


@given(st.text(alphabet="ab[] ();\\\t", max_size=60))
def test_the_quick_way_is_the_slow_way(text):
    """Lines without nesting or quotes are split by searching; the result is the same."""
    assert _split(text) == _split_slowly(text)
