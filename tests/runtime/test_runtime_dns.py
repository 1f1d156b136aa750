"""DNS answers as values, from a server of our own on loopback."""

import asyncio
import contextlib

import pytest
from tests.runtime.nameserver import SILENT, Nameserver

from postweir.runtime import dns, settings
from postweir.runtime.dns import Failed, Found, Missing, Mx, Resolver
from postweir.runtime.metrics import Metrics


@contextlib.asynccontextmanager
async def asking(zone, **changes):
    async with Nameserver(zone, **changes) as server:
        resolver = Resolver((server.address,), Metrics())
        try:
            yield resolver, server
        finally:
            await resolver.close()


ZONE = {
    ("b.example", "MX"): ["20 mx2.b.example.", "10 MX1.b.example."],
    ("mx1.b.example", "A"): ["192.0.2.1"],
    ("mx1.b.example", "AAAA"): ["2001:db8::1"],
    ("null.example", "MX"): ["0 ."],
    ("broken.example", "MX"): "SERVFAIL",
    ("no-mx.example", "A"): ["192.0.2.2"],
    ("alias.example", "MX"): [("alias.example", "CNAME", "b.example."),
                              ("b.example", "MX", "10 mx1.b.example.")],
    ("odd.example", "MX"): ["10 a\\032b.example.", "20 ok.example."],
    ("onlyodd.example", "MX"): ["10 a\\000b.example."],
}  # fmt: skip


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("b.example", Found(mx=(Mx(10, "mx1.b.example"), Mx(20, "mx2.b.example")))),
        ("B.Example.", Found(mx=(Mx(10, "mx1.b.example"), Mx(20, "mx2.b.example")))),
        ("null.example", Found(mx=(Mx(0, ""),))),
        ("broken.example", Failed("SERVFAIL")),
        ("no-mx.example", Missing(domain=False)),
        ("none.example", Missing(domain=True)),
        ("alias.example", Found(mx=(Mx(10, "mx1.b.example"),))),
        ("odd.example", Found(mx=(Mx(20, "ok.example"),))),
        ("onlyodd.example", Failed("no usable host in the MX")),
        ("x" * 64 + ".example", Missing(domain=True)),
        ("a..example", Missing(domain=True)),
        ("", Missing(domain=True)),
        ("sp ace.example", Missing(domain=True)),
    ],
)
async def test_mx(domain, answer):
    """Each kind of answer is a value, best host first, and never an exception."""
    async with asking(ZONE) as (resolver, _):
        assert await resolver.mx(domain) == answer


async def test_addresses():
    """Both families, IPv4 first."""
    async with asking(ZONE) as (resolver, _):
        assert await resolver.addresses("mx1.b.example") == Found(
            addresses=("192.0.2.1", "2001:db8::1")
        )
        assert await resolver.addresses("no-mx.example") == Found(addresses=("192.0.2.2",))
        assert await resolver.addresses("none.example") == Missing(domain=True)


async def test_a_cname_loop_ends():
    """A chain that bites its tail is a failure, and soon."""
    loop = [("l.example", "CNAME", "m.example."), ("m.example", "CNAME", "l.example.")]
    async with asking({("l.example", "A"): loop, ("l.example", "AAAA"): loop}) as (resolver, _):
        assert not isinstance(await resolver.addresses("l.example"), Found)


async def test_asked_once_and_kept():
    """A hundred who ask at once cost one question; later ones within the TTL cost none."""
    async with asking(ZONE) as (resolver, server):
        answers = await asyncio.gather(*(resolver.mx("b.example") for _ in range(100)))
        answers.append(await resolver.mx("b.example"))
        await resolver.mx("none.example")
        await resolver.mx("none.example")

        assert len(set(answers)) == 1
        assert server.asked["b.example", "MX"] == 1
        assert server.asked["none.example", "MX"] == 1


async def test_answers_age(monkeypatch):
    """An answer is kept for its TTL: not for ever, and not for no time at all."""
    async with asking(ZONE, ttl_s=0) as (resolver, server):
        await resolver.mx("b.example")
        await resolver.mx("b.example")
        assert server.asked["b.example", "MX"] == 1

        monkeypatch.setattr(dns, "TTL_S_MIN", 0.0)
        await resolver.mx("mx1.b.example")
        await resolver.mx("null.example")
        await resolver.mx("null.example")
        assert server.asked["null.example", "MX"] == 2


async def test_silence_ends(monkeypatch):
    """A resolver that never answers costs a bounded time, once."""
    monkeypatch.setattr(dns, "TOTAL_S", 0.2)
    async with asking({("s.example", "MX"): SILENT}) as (resolver, server):
        async with asyncio.timeout(2):
            answers = await asyncio.gather(*(resolver.mx("s.example") for _ in range(10)))

        assert set(answers) == {Failed("no answer in time")}
        assert server.asked["s.example", "MX"] <= 2


async def test_what_was_found_serves_while_nobody_answers(monkeypatch):
    """In an outage of DNS the last answer is used past its TTL; that nothing was there is not."""
    monkeypatch.setattr(dns, "TTL_S_MIN", 0.0)
    monkeypatch.setattr(dns, "FAILED_S", 0.0)
    zone = dict(ZONE)
    async with asking(zone, ttl_s=0) as (resolver, server):
        found = await resolver.mx("b.example")
        monkeypatch.setattr(dns, "NEGATIVE_S_MAX", 0.0)
        assert await resolver.mx("none.example") == Missing(domain=True)
        zone["b.example", "MX"] = zone["none.example", "MX"] = "SERVFAIL"

        assert isinstance(found, Found)
        assert await resolver.mx("b.example") == found
        assert await resolver.mx("none.example") == Failed("SERVFAIL")
        assert server.asked["b.example", "MX"] > 1

        monkeypatch.setattr(dns, "STALE_S", -1.0)
        zone["b.example", "MX"] = ["5 mx1.b.example."]
        assert isinstance(await resolver.mx("b.example"), Found)
        zone["b.example", "MX"] = "SERVFAIL"
        assert await resolver.mx("b.example") == Failed("SERVFAIL")


async def test_a_mistake_of_theirs_is_soon_forgotten():
    """MX records that name no host are looked at again within a minute, whatever their TTL."""
    async with asking(ZONE, ttl_s=86400) as (resolver, _):
        assert isinstance(await resolver.mx("onlyodd.example"), Failed)

        (entry,) = resolver._cache.entries.values()
        left_s = entry.until - asyncio.get_running_loop().time()
        assert left_s <= dns.NEGATIVE_S_MAX


async def test_who_gives_up_takes_nothing_from_the_others():
    """One caller's cancellation leaves the question on its way."""
    async with asking(ZONE) as (resolver, server):
        first = asyncio.create_task(resolver.mx("b.example"))
        second = asyncio.create_task(resolver.mx("b.example"))
        await asyncio.sleep(0)
        first.cancel()

        assert isinstance(await second, Found)
        assert server.asked["b.example", "MX"] == 1


async def test_a_thousand_records_are_cut():
    """An answer of absurd size (over TCP) is bounded, and the best of it kept."""
    many = [f"{n} mx{n}.big.example." for n in range(1000, 0, -1)]
    async with asking({("big.example", "MX"): many}) as (resolver, server):
        answer = await resolver.mx("big.example")

        assert isinstance(answer, Found)
        assert len(answer.mx) == dns.RECORDS_MAX
        assert answer.mx[0] == Mx(1, "mx1.big.example")
        assert server.asked["big.example", "MX"] == 2  # cut short, then over TCP


async def test_the_cache_is_bounded(monkeypatch):
    """The longest unused goes first."""
    monkeypatch.setattr(dns, "ENTRIES_MAX", 3)
    async with asking({}) as (resolver, server):
        for n in range(5):
            await resolver.mx(f"d{n}.example")
        await resolver.mx("d4.example")
        await resolver.mx("d0.example")

        assert server.asked["d4.example", "MX"] == 1
        assert server.asked["d0.example", "MX"] == 2


async def test_other_resolvers_after_a_reload():
    """New resolvers are asked at once, and what the old said is forgotten."""
    async with asking(ZONE) as (resolver, _), Nameserver({}) as other:
        assert isinstance(await resolver.mx("b.example"), Found)
        resolver.ask((other.address,))

        assert await resolver.mx("b.example") == Missing(domain=True)


async def test_hosts_of_our_own():
    """Addresses stand for themselves, and /etc/hosts counts."""
    async with asking({}) as (resolver, _):
        assert await resolver.local("127.0.0.1") == Found(addresses=("127.0.0.1",))
        assert await resolver.local("::1") == Found(addresses=("::1",))
        found = await resolver.local("localhost")
        assert isinstance(found, Found)
        assert set(found.addresses) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("text", "server"),
    [("127.0.0.1:5353", ("127.0.0.1", 5353)), ("127.0.0.1", ("127.0.0.1", 53)),
     ("[::1]:5353", ("::1", 5353)), ("::1", ("::1", 53))],
)  # fmt: skip
def test_resolvers_are_addresses(text, server):
    """With a port or without."""
    assert settings.nameserver(text) == server
