"""Which account a client's address belongs to: the longest prefix wins."""

import ipaddress
from collections.abc import Iterable

from postweir.identity.sender import Account


class Networks:
    """The trusted networks of all accounts, looked up by address."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, str | None]] = {}
        self.unreadable: list[str] = []  # what is no network; the rest still counts
        for account in accounts:
            for text in account.networks:
                self._add(text, account.name)
        self._prefixes = {
            version: sorted((p for v, p in self._by_prefix if v == version), reverse=True)
            for version in (4, 6)
        }

    def _add(self, text: str, account: str) -> None:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            self.unreadable.append(text)
            return
        owners = self._by_prefix.setdefault((network.version, network.prefixlen), {})
        number = int(network.network_address)
        # A network that two accounts claim is nobody's: mail must not land on the wrong bill.
        owners[number] = account if owners.get(number, account) == account else None

    def owner(self, address: str) -> str | None:
        """Return the name of the account that mail from this address belongs to, or None."""
        if not self._by_prefix:
            return None
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return None
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        number, bits = int(found), found.max_prefixlen
        for prefix in self._prefixes[found.version]:
            owners = self._by_prefix[found.version, prefix]
            start = number >> bits - prefix << bits - prefix
            if start in owners:
                return owners[start]
        return None
