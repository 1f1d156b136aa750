"""Where a domain's mail goes: the operator's hop, or what its MX records say.

What DNS alone says against a domain (it does not exist, its hosts stand at addresses no mail can
go to) is believed at the second attempt: a mistake in DNS is mended within minutes, a bounce
never is. Only the null MX, which nobody publishes by mistake, is believed at once.
"""

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from postweir.mail.reply import Reply
from postweir.runtime.dns import Answer, Failed, Found, Mx
from postweir.runtime.frames import Value

HOSTS_MAX = 20  # more MX hosts than the largest provider has; Postfix tries 5
ADDRESSES_MAX = 20  # tried for one attempt
SITE_CHARS_MAX = 255
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


class Hop(Value, frozen=True):
    """One address to try, and the name it was found under."""

    host: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}[{self.address}]:{self.port}"


class Route(Value, frozen=True):
    """Where to go: the site all its domains share, and what to try in order."""

    site: str
    hops: tuple[Hop, ...]
    trusted: bool = False  # the operator chose it: any address is right


class Nowhere(Value, frozen=True):
    """No way there: what that means for a first attempt, and for a later one."""

    first: Reply
    later: Reply


class Names(Protocol):
    """What a route asks of DNS: `runtime.dns.Resolver`."""

    async def mx(self, domain: str) -> Answer:
        """Return the mail hosts of a domain."""
        ...

    async def addresses(self, host: str) -> Answer:
        """Return the addresses of a host."""
        ...

    async def local(self, host: str) -> Answer:
        """Return the addresses of a host of ours."""
        ...


class Router:
    """Finds routes; keeps none (`runtime.dns` caches)."""

    def __init__(
        self,
        names: Names,
        *,
        table: Mapping[str, str],
        port: int,
        private_networks: bool,
        hostnames: Collection[str],
        chance: Callable[[], float],
    ) -> None:
        self._names = names
        self._table, self._port = dict(table), port
        self._private = private_networks
        self._hostnames = {name.lower() for name in hostnames}
        self._chance = chance

    def key(self, domain: str) -> str:
        """Return what domains with one route have in common: the operator's hop, or themselves."""
        return self._table.get(domain) or self._table.get("*") or domain

    async def find(self, domain: str) -> Route | Nowhere:
        """Return where mail for this domain goes."""
        hop = self._table.get(domain) or self._table.get("*")
        if hop:
            return await self._static(hop)
        if domain.startswith("["):
            return self._literal(domain)
        if not domain:
            return _both(Reply(550, "5.1.3", "The address has no domain"))
        return await self._by_mx(domain)

    async def _static(self, hop: str) -> Route | Nowhere:
        host, _, port = hop.rpartition(":")
        answer = await self._names.local(host.strip("[]"))
        if not isinstance(answer, Found):
            why = answer.reason if isinstance(answer, Failed) else "no address"
            return _both(Reply(451, "4.4.4", f"The next hop {host} cannot be resolved: {why}"))
        hops = [Hop(host, address, int(port)) for address in answer.addresses[:ADDRESSES_MAX]]
        return Route(hop.lower(), tuple(hops), trusted=True)

    def _literal(self, domain: str) -> Route | Nowhere:
        """An address literal, RFC 5321 4.1.3: [192.0.2.1] or [IPv6:2001:db8::1]."""
        inside = domain.strip("[]").lower().removeprefix("ipv6:")
        try:
            address = str(ipaddress.ip_address(inside))
        except ValueError:
            return _both(Reply(550, "5.1.3", "The address literal is no IP address"))
        if not self._reachable(address):
            return _both(Reply(550, "5.4.4", "The address literal leads nowhere"))
        return Route(f"[{address}]", (Hop(f"[{address}]", address, self._port),))

    async def _by_mx(self, domain: str) -> Route | Nowhere:
        answer = await self._names.mx(domain)
        if isinstance(answer, Failed):
            return _both(Reply(451, "4.4.3", f"DNS gives no MX answer: {answer.reason}"))
        if isinstance(answer, Found):
            # RFC 7505 3: the null MX stands alone. Beside others it is a mistake, and they count.
            hosts = [each for each in answer.mx if each.host]
            if not hosts:
                return _both(Reply(556, "5.1.10", "The domain accepts no mail (null MX)"))
        else:
            # RFC 5321 5.1: without MX the domain itself is its mail host, also asked when the
            # name seems not to exist: a second answer, before anything is held against it.
            hosts = [Mx(0, domain)]
        mine = [each.preference for each in hosts if each.host in self._hostnames]
        if mine:
            # RFC 5321 5.1: only hosts better than ourselves, or mail runs in a circle.
            hosts = [each for each in hosts if each.preference < min(mine)]
            if not hosts:
                text = "We are the domain's best mail host, and no route says where it goes"
                return _unless_twice(Reply(550, "5.4.6", text))
        site = domain if not isinstance(answer, Found) else site_of(each.host for each in hosts)
        return await self._resolved(site, shuffled(hosts, self._chance)[:HOSTS_MAX])

    async def _resolved(self, site: str, hosts: Sequence[Mx]) -> Route | Nowhere:
        answers = await asyncio.gather(*(self._names.addresses(each.host) for each in hosts))
        found = [
            Hop(mx.host, address, self._port)
            for mx, answer in zip(hosts, answers, strict=True)
            if isinstance(answer, Found)
            for address in answer.addresses
        ]
        hops = [hop for hop in found if self._reachable(hop.address)]
        if hops:
            return Route(site, tuple(hops[:ADDRESSES_MAX]))
        failed = next((a for a in answers if isinstance(a, Failed)), None)
        if failed is not None:
            text = f"DNS gives no address of a mail host: {failed.reason}"
            return _both(Reply(451, "4.4.3", text))
        if found:
            text = f"The domain's mail host {found[0].host} is at {found[0].address}: nowhere"
            return _unless_twice(Reply(550, "5.4.4", text))
        return _unless_twice(Reply(550, "5.1.2", "The domain or its mail hosts do not exist"))

    def _reachable(self, address: str) -> bool:
        """False for addresses that the internet does not lead to, unless private ones may be."""
        ip = _innermost(ipaddress.ip_address(address))
        if ip.is_unspecified or ip.is_multicast:
            return False
        # Or any domain's owner could make us talk to services inside our own network. Not global
        # are also the shared addresses of RFC 6598, where clouds keep theirs.
        site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
        return self._private or (ip.is_global and not ip.is_reserved and not site_local)


def _innermost(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, if it is one of those that do."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def site_of(hosts: Iterable[str]) -> str:
    """Return the name of a set of mail hosts, the same in whatever order DNS gave them."""
    text = ",".join(sorted(set(hosts)))
    if len(text) <= SITE_CHARS_MAX:
        return text
    return f"{text[:200]}+{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def shuffled(hosts: Sequence[Mx], chance: Callable[[], float]) -> list[Mx]:
    """Return hosts by preference; equal ones in an order that chance decides, RFC 5321 5.1."""
    return sorted(hosts, key=lambda mx: (mx.preference, chance()))


def _both(reply: Reply) -> Nowhere:
    return Nowhere(reply, reply)


def _unless_twice(reply: Reply) -> Nowhere:
    """Transient at a first attempt, for good at a later one."""
    assert reply.code >= 500
    soft = Reply(450, "4" + reply.status[1:], reply.text)
    return Nowhere(soft, reply)
