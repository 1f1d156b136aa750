"""Which of our addresses mail leaves by: a pool has some, and a sender has one of them at a site.

By sender, and neither in turn nor by site: a second try comes from the same address, as greylisting
wants it; a large provider sees all of a pool; and a bad sender spoils one address only.
"""

import socket
import zlib
from collections.abc import Mapping, Sequence

from postweir.delivery.meters import Meters
from postweir.runtime.frames import Value
from postweir.runtime.log import Log
from postweir.runtime.net import bound

TOLD_MAX = 1000  # pools and addresses that the log has named; beyond, nothing new is


class Sources(Value, frozen=True):
    """What a connection may come from, first choice first; none: what the host chooses."""

    name: str = ""  # another one, another connection
    addresses: tuple[str, ...] = ()

    def facing(self, peer: str) -> tuple[str, ...]:
        """Return those of a peer's kind, IPv4 or IPv6."""
        return tuple(one for one in self.addresses if (":" in one) == (":" in peer))


ANY = Sources()


class Pools:
    """The pools of the settings. One that is missing there keeps no mail: it leaves without."""

    def __init__(self, pools: Mapping[str, Sequence[str]], *, meters: Meters, log: Log) -> None:
        self._pools = {name: _sources(name, addresses) for name, addresses in pools.items()}
        self._meters, self._log = meters, log
        self._told: set[tuple[str, str]] = set()

    def sources(self, pool: str, sender: str) -> Sources:
        """Return what mail of a sender leaves by."""
        if not pool:
            return ANY
        choices = self._pools.get(pool)
        if choices is None:
            self._meters.pool_unknown.inc()
            self._tell("delivery.pool_unknown", pool, "not in delivery.pools")
            return ANY
        return choices[zlib.crc32(sender.encode("utf-8", "replace")) % len(choices)]

    def bind(self, sources: Sources, peer: str) -> socket.socket | None:
        """Return a socket that connects from there; None: from what the host chooses."""
        for address in sources.facing(peer):
            try:
                return bound(address)
            except OSError as fault:
                self._tell("delivery.source_unusable", address, fault.strerror or str(fault))
        if sources.addresses:
            self._meters.pool_unusable.inc()
            kind = "IPv6" if ":" in peer else "IPv4"
            self._tell("delivery.pool_unusable", f"{sources.name} {kind}", "no address to use")
        return None

    def _tell(self, event: str, what: str, why: str) -> None:
        """Say it once, until the settings are read anew."""
        if (event, what) not in self._told and len(self._told) < TOLD_MAX:
            self._told.add((event, what))
            self._log.warning(event, what=what, why=why)


def _sources(name: str, addresses: Sequence[str]) -> tuple[Sources, ...]:
    """Return the choices of a pool: each of its addresses once the first, the rest behind it."""
    four, six = ([one for one in addresses if (":" in one) is kind] for kind in (False, True))
    choices = []
    for n in range(max(len(four), len(six))):
        turned = [_from(four, n), _from(six, n)]
        # The first ones are in the name: after a reload no connection of the old is used.
        firsts = " ".join([name, *(kind[0] for kind in turned if kind)])
        choices.append(Sources(firsts, tuple(turned[0] + turned[1])))
    return tuple(choices)


def _from(addresses: list[str], n: int) -> list[str]:
    at = n % len(addresses) if addresses else 0
    return addresses[at:] + addresses[:at]
