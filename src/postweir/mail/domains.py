"""Which domains belong together: the registered one above a host, by the public suffix list."""

import functools

from publicsuffixlist import PublicSuffixList

DOMAIN_CHARS_MAX, LABEL_CHARS_MAX = 253, 63  # RFC 1035 2.3.4
CACHED = 4096  # answers, some 1 MiB


class Domains:
    """The public suffix list, as it came with this version; building it takes some 50 ms."""

    def __init__(self) -> None:
        found = PublicSuffixList()
        # A message names the same few domains again and again.
        self._registered = functools.lru_cache(CACHED)(found.privatesuffix)
        self._public = functools.lru_cache(CACHED)(
            functools.partial(found.publicsuffix, accept_unknown=False)
        )

    def registered(self, domain: str) -> str:
        """Return the registered domain that this one is, or is below; itself when there is none.

        `a.b.example.co.uk` gives `example.co.uk`. Lower case, in punycode, without a last dot.
        """
        if len(domain) > DOMAIN_CHARS_MAX:
            return domain
        return self._registered(domain) or domain

    def is_public(self, domain: str) -> bool:
        """True when it ends in a suffix that the list has: `example.com`, not `report.pdf`."""
        end = domain.rpartition(".")[2]
        return len(end) <= LABEL_CHARS_MAX and self._public(end) is not None

    def related(self, one: str, other: str) -> bool:
        """True when both are known and have the same registered domain."""
        return bool(one and other) and self.registered(one) == self.registered(other)
