"""The door to DNS: MX and addresses as values, cached within their TTL, asked once at a time.

When nobody answers any more, what was found last serves for some hours longer (RFC 8767).
Answers are hostile: bounded in count, and only names that can be host names come through. What
dnspython raises is translated here. A CNAME chain is bounded by dnspython (16).
"""

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.resolver

from postweir.runtime import settings
from postweir.runtime.frames import Value
from postweir.runtime.metrics import Metrics

QUERY_S = 5.0  # one question to one resolver
TOTAL_S = 10.0  # all questions for one answer; a mail server may wait, a queue need not
TTL_S_MIN = 5.0  # a TTL of 0 must not make each message ask
TTL_S_MAX = 86400.0
NEGATIVE_S_MAX = 60.0  # a mistake of theirs is soon forgotten
FAILED_S = 5.0  # a broken zone is not asked for each message
STALE_S = 6 * 3600.0  # past its TTL, while no resolver answers; an outage of DNS is over by then
ENTRIES_MAX = 50_000  # about 50 MB at a few hundred bytes each
RECORDS_MAX = 100  # more than any honest answer has
NAME_CHARS_MAX = 253  # RFC 1035 2.3.4, without the root's dot
FLIGHTS_MAX = 500  # questions on the way at once, each a socket

_HOST_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class Mx(Value, frozen=True):
    """One mail host of a domain; the host "" is RFC 7505's null MX."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Found:
    """What stands under a name: mail hosts (best first), or addresses."""

    mx: tuple[Mx, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing of the kind is there; `domain`: the whole name does not exist."""

    domain: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """Nobody could say: why, in a few words."""

    reason: str


Answer = Found | Missing | Failed


class DnsMetrics:
    """How asking goes."""

    def __init__(self, metrics: Metrics) -> None:
        self.answers = metrics.counter(
            "postweir_dns_answers", "DNS answers by kind, without those from the cache.", ["kind"]
        )
        self.cached = metrics.counter("postweir_dns_cached", "DNS questions the cache answered.")
        self.seconds = metrics.histogram("postweir_dns_seconds", "Seconds until a DNS answer.")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One answer: until when it is used, and until when in need."""

    answer: Answer
    until: float
    stale_until: float

    def serves_stale(self, now: float) -> bool:
        """True for what was found; that nothing was there is no reason to bounce later."""
        return isinstance(self.answer, Found) and now < self.stale_until


@dataclass(slots=True)
class _Cache:
    """Answers until their time, the longest unused going first."""

    entries: OrderedDict[tuple[str, str], _Entry] = field(default_factory=OrderedDict)

    def get(self, key: tuple[str, str], now: float) -> Answer | None:
        found = self.entries.get(key)
        if found is None or found.until <= now:
            return None
        self.entries.move_to_end(key)
        return found.answer

    def put(self, key: tuple[str, str], now: float, ttl_s: float, answer: Answer) -> Answer:
        """Keep an answer; return what is to be used: in need that is an older one."""
        fresh = _Entry(answer, now + ttl_s, now + ttl_s + STALE_S)
        old = self.entries.get(key)
        if isinstance(answer, Failed) and old is not None and old.serves_stale(now):
            fresh = _Entry(old.answer, now + ttl_s, old.stale_until)
        self.entries[key] = fresh
        self.entries.move_to_end(key)
        if len(self.entries) > ENTRIES_MAX:
            self.entries.popitem(last=False)
        return fresh.answer


class Resolver:
    """Asks the resolvers of the settings, or those of /etc/resolv.conf."""

    def __init__(self, resolvers: Sequence[str], metrics: Metrics) -> None:
        self._metrics = DnsMetrics(metrics)
        self._asked = tuple(resolvers)
        self._resolver = _resolver(resolvers)
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._cache = _Cache()
        self._flights: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._room = asyncio.Semaphore(FLIGHTS_MAX)

    def ask(self, resolvers: Sequence[str]) -> None:
        """Ask these from now on; what others said is forgotten."""
        if tuple(resolvers) != self._asked:
            self._asked = tuple(resolvers)
            self._resolver = _resolver(resolvers)
            self._cache = _Cache()

    async def mx(self, domain: str) -> Answer:
        """Return the mail hosts of a domain, best first."""
        return await self._once("MX", domain, self._ask)

    async def addresses(self, host: str) -> Answer:
        """Return the addresses of a host, IPv4 first."""
        v4, v6 = await asyncio.gather(
            self._once("A", host, self._ask), self._once("AAAA", host, self._ask)
        )
        # IPv4 first: a host without reverse DNS for its IPv6 address is refused by the large
        # providers, and far more machines are set up so than the other way round.
        found = [a for each in (v4, v6) if isinstance(each, Found) for a in each.addresses]
        if found:
            return Found(addresses=tuple(found[:RECORDS_MAX]))
        if isinstance(v4, Failed):
            return v4
        if isinstance(v6, Failed):
            return v6
        return v4

    async def local(self, host: str) -> Answer:
        """Return the addresses of a host of the operator's own: /etc/hosts counts too."""
        return await self._once("local", host, _ask_system)

    async def close(self) -> None:
        """Give up what is on the way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _once(
        self, kind: str, name: str, ask: Callable[[str, str], Awaitable[tuple[float, Answer]]]
    ) -> Answer:
        """Answer from the cache, or with whoever asks the same already."""
        key = (kind, name.lower().removesuffix("."))
        loop = asyncio.get_running_loop()
        known = self._cache.get(key, loop.time())
        if known is not None:
            self._metrics.cached.inc()
            return known
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = loop.create_task(self._fly(key, ask))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        # Shielded: one who gives up must not take the answer from the others.
        return await asyncio.shield(flight)

    async def _fly(
        self,
        key: tuple[str, str],
        ask: Callable[[str, str], Awaitable[tuple[float, Answer]]],
    ) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._room:
            began = loop.time()
            try:
                async with asyncio.timeout(TOTAL_S):
                    ttl_s, answer = await ask(*key)
            except TimeoutError:
                ttl_s, answer = FAILED_S, Failed("no answer in time")
        self._metrics.answers.labels(type(answer).__name__.lower()).inc()
        self._metrics.seconds.observe(loop.time() - began)
        return self._cache.put(key, loop.time(), max(ttl_s, TTL_S_MIN), answer)

    async def _ask(self, kind: str, name: str) -> tuple[float, Answer]:
        """Return seconds to live, and the answer."""
        if not _is_host(name):
            return NEGATIVE_S_MAX, Missing(domain=True)
        try:
            found = await self._resolver.resolve(
                name + ".", kind, raise_on_no_answer=False, search=False,
                lifetime=TOTAL_S, backend=self._backend,
            )  # fmt: skip
        except dns.resolver.NXDOMAIN:
            return NEGATIVE_S_MAX, Missing(domain=True)
        except dns.resolver.NoNameservers as fault:
            return FAILED_S, Failed(_why(fault))
        except dns.exception.Timeout:
            return FAILED_S, Failed("no answer in time")
        except (dns.exception.DNSException, OSError, ValueError, EOFError) as fault:
            return FAILED_S, Failed(type(fault).__name__)
        ttl_s = float(found.chaining_result.minimum_ttl)
        if found.rrset is None:
            return min(ttl_s, NEGATIVE_S_MAX), Missing(domain=False)
        answer = _read(kind, found)
        if not isinstance(answer, Found):
            ttl_s = min(ttl_s, NEGATIVE_S_MAX)
        return min(ttl_s, TTL_S_MAX), answer


def _resolver(resolvers: Sequence[str]) -> dns.asyncresolver.Resolver:
    try:
        made = dns.asyncresolver.Resolver(configure=not resolvers)
    except dns.resolver.NoResolverConfiguration:
        made = dns.asyncresolver.Resolver(configure=False)
        made.nameservers = ["127.0.0.1"]  # resolv.conf(5): what an empty file means
    if resolvers:
        servers = map(settings.nameserver, resolvers)
        made.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in servers]
    made.timeout, made.lifetime = QUERY_S, TOTAL_S
    made.use_edns(0, 0, 1232)  # the size that crosses every network (DNS flag day 2020)
    return made


def _read(kind: str, found: dns.resolver.Answer) -> Answer:
    records = list(found)[:1000]
    if kind == "MX":
        mx = sorted(
            (Mx(each.preference, host) for each in records if (host := _host(each)) is not None),
            key=lambda each: (each.preference, each.host),
        )
        # Records that are no host names are as good as a domain without mail hosts would be
        # wrong: somebody wanted mail there. The null MX says nobody does.
        return Found(mx=tuple(mx[:RECORDS_MAX])) if mx else Failed("no usable host in the MX")
    addresses = [each.address for each in records[:RECORDS_MAX]]
    return Found(addresses=tuple(addresses)) if addresses else Missing(domain=False)


def _host(record: dns.rdtypes.ANY.MX.MX) -> str | None:
    """Return the host of an MX record: "" for the root, None when it is no host name."""
    text = record.exchange.to_text(omit_final_dot=True).lower()
    if text in ("", "."):
        return ""
    return text if _is_host(text) else None


def _is_host(text: str) -> bool:
    """True for what may be a host name: bounded, letters, digits, hyphens, underscores, dots."""
    labels = text.split(".")
    return (
        0 < len(text) <= NAME_CHARS_MAX
        and _HOST_CHARS.issuperset(text)
        and all(0 < len(label) <= 63 for label in labels)
    )


def _why(fault: dns.resolver.NoNameservers) -> str:
    """Say what the resolvers answered, in one word where it is one."""
    errors = fault.kwargs.get("errors") or ()
    words = [str(error[3]) for error in errors if len(error) > 3]
    rcodes = [w for w in words if w.isalpha() and w.isupper()]
    return rcodes[-1] if rcodes else "no resolver gave a usable answer"


async def _ask_system(_: str, host: str) -> tuple[float, Answer]:
    try:
        return NEGATIVE_S_MAX, Found(addresses=(str(ipaddress.ip_address(host)),))
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as fault:
        return FAILED_S, Failed(fault.strerror or "cannot be resolved")
    addresses = dict.fromkeys(str(each[4][0]) for each in found)
    return NEGATIVE_S_MAX, Found(addresses=tuple(addresses)[:RECORDS_MAX])
