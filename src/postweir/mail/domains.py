"""Which domains belong together: the registered one above a host, by the public suffix list."""

from publicsuffixlist import PublicSuffixList

DOMAIN_CHARS_MAX = 253  # RFC 1035 2.3.4


class Domains:
    """The public suffix list, as it came with this version; building it takes some 50 ms."""

    def __init__(self) -> None:
        self._list = PublicSuffixList()

    def registered(self, domain: str) -> str:
        """Return the registered domain that this one is, or is below; itself when there is none.

        `a.b.example.co.uk` gives `example.co.uk`. Lower case, in punycode, without a last dot.
        """
        if len(domain) > DOMAIN_CHARS_MAX:
            return domain
        return self._list.privatesuffix(domain) or domain

    def related(self, one: str, other: str) -> bool:
        """True when both are known and have the same registered domain."""
        return bool(one and other) and self.registered(one) == self.registered(other)
