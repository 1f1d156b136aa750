"""Domains that belong together are found by the public suffix list."""

from postweir.mail.domains import Domains


def test_the_registered_domain():
    """One label below a public suffix, however deep the host."""
    domains = Domains()

    assert domains.registered("a.b.example.co.uk") == "example.co.uk"
    assert domains.registered("example.com") == "example.com"
    assert domains.registered("localhost") == "localhost"
    assert domains.registered("co.uk") == "co.uk"
    assert domains.registered("") == ""
    assert domains.registered("x." * 200 + "com") == "x." * 200 + "com"


def test_related():
    """Two hosts of one owner, and never two unknown ones."""
    domains = Domains()

    assert domains.related("mail.example.com", "example.com")
    assert not domains.related("a.github.io", "b.github.io")
    assert not domains.related("", "")
