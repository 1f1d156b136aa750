"""Where a domain's mail goes, by the operator's table or by MX."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.delivery.route import Hop, Nowhere, Route, Router, shuffled, site_of
from postweir.runtime.dns import Failed, Found, Missing, Mx

NXDOMAIN = Missing(domain=True)


class Names:
    """A zone: names to mail hosts and addresses."""

    def __init__(self, mx=None, addresses=None):
        self._mx, self._addresses = mx or {}, addresses or {}

    async def mx(self, domain):
        found = self._mx.get(domain, NXDOMAIN)
        return Found(mx=tuple(found)) if isinstance(found, list) else found

    async def addresses(self, host):
        found = self._addresses.get(host, NXDOMAIN)
        return Found(addresses=tuple(found)) if isinstance(found, list) else found

    local = addresses


def router(names, *, table=None, private=False, chance=lambda: 0.5):
    return Router(
        names, table=table or {}, port=25, private_networks=private,
        hostnames=("relay.us.example", "MX.us.example"), chance=chance,
    )  # fmt: skip


async def test_the_operators_hop():
    """An exact domain goes before the star; any address is right there."""
    names = Names(addresses={"127.0.0.1": ["127.0.0.1"], "hub": ["10.0.0.1", "10.0.0.2"]})
    found = router(names, table={"b.example": "hub:2600", "*": "127.0.0.1:2601"})

    assert await found.find("b.example") == Route(
        "hub:2600", (Hop("hub", "10.0.0.1", 2600), Hop("hub", "10.0.0.2", 2600)), trusted=True
    )
    assert await found.find("other.example") == Route(
        "127.0.0.1:2601", (Hop("127.0.0.1", "127.0.0.1", 2601),), trusted=True
    )
    assert found.key("b.example") == "hub:2600"
    assert found.key("other.example") == found.key("third.example") == "127.0.0.1:2601"
    assert router(names).key("b.example") == "b.example"


async def test_a_hop_that_cannot_be_resolved_is_waited_for():
    """The operator's mistake bounces nothing."""
    found = await router(Names(), table={"*": "hub:25"}).find("b.example")

    assert isinstance(found, Nowhere)
    assert found.later.transient


async def test_mx_by_preference():
    """Best host first; the site is the set of hosts, whatever their order."""
    names = Names(
        {"b.example": [Mx(10, "mx1.p.example"), Mx(20, "mx2.p.example")],
         "c.example": [Mx(5, "mx2.p.example"), Mx(50, "mx1.p.example")]},
        {"mx1.p.example": ["9.9.9.1", "2620:fe::1"], "mx2.p.example": ["9.9.9.2"]},
    )  # fmt: skip
    b, c = [await router(names).find(d) for d in ("b.example", "c.example")]

    assert [hop.address for hop in b.hops] == ["9.9.9.1", "2620:fe::1", "9.9.9.2"]
    assert [hop.address for hop in c.hops] == ["9.9.9.2", "9.9.9.1", "2620:fe::1"]
    assert b.site == c.site == "mx1.p.example,mx2.p.example"
    assert str(b.hops[0]) == "mx1.p.example[9.9.9.1]:25"


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab", min_size=1)), unique=True), st.randoms())
def test_equal_hosts_in_any_order(pairs, random):
    """Chance decides between equal preferences only, and loses nobody."""
    hosts = [Mx(*pair) for pair in pairs]
    found = shuffled(hosts, random.random)

    assert sorted(found, key=str) == sorted(hosts, key=str)
    assert [mx.preference for mx in found] == sorted(mx.preference for mx in hosts)


def test_a_sites_name_is_bounded():
    """Many long names: a digest, still the same for the same set."""
    hosts = [f"mx{n}.{'x' * 50}.example" for n in range(20)]

    assert len(site_of(hosts)) <= 255
    assert site_of(hosts) == site_of(reversed(hosts))
    assert site_of(hosts) != site_of(hosts[1:])


@pytest.mark.parametrize("no_mx", [Missing(domain=False), NXDOMAIN])
async def test_without_mx_the_domain_is_its_host(no_mx):
    """RFC 5321 5.1; an NXDOMAIN for the MX is not believed alone."""
    names = Names({"b.example": no_mx}, {"b.example": ["9.9.9.1"]})
    found = await router(names).find("b.example")

    assert found == Route("b.example", (Hop("b.example", "9.9.9.1", 25),))


@pytest.mark.parametrize(
    ("mx", "addresses", "first", "later"),
    [
        # What a domain's owner said on purpose.
        ([Mx(0, "")], None, "5.1.10", "5.1.10"),
        # What nobody could say.
        (Failed("SERVFAIL"), None, "4.4.3", "4.4.3"),
        ([Mx(0, "h")], Failed("no answer in time"), "4.4.3", "4.4.3"),
        # What DNS says against the domain: believed when it says so twice.
        (NXDOMAIN, None, "4.1.2", "5.1.2"),
        (Missing(domain=False), None, "4.1.2", "5.1.2"),
        ([Mx(0, "h")], NXDOMAIN, "4.1.2", "5.1.2"),
        ([Mx(0, "h")], ["127.0.0.1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["10.1.2.3", "192.168.1.1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["169.254.169.254"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["0.0.0.0"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["224.0.0.1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["::1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["::ffff:127.0.0.1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["fe80::1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["fd00::1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["100.100.100.200"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["255.255.255.255"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["64:ff9b::7f00:1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["2002:7f00:1::1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["::7f00:1"], "4.4.4", "5.4.4"),
        ([Mx(0, "h")], ["fec0::1"], "4.4.4", "5.4.4"),
        # We are its best host, and nobody says where to go from here.
        ([Mx(10, "relay.us.example"), Mx(20, "h")], ["9.9.9.1"], "4.4.6", "5.4.6"),
        ([Mx(10, "mx.us.example"), Mx(20, "h")], ["9.9.9.1"], "4.4.6", "5.4.6"),
    ],
)
async def test_the_right_class_each_time(mx, addresses, first, later):
    """No bounce for a passing fault, no endless tries for what will never be."""
    found = await router(Names({"b.example": mx}, {"h": addresses or NXDOMAIN})).find("b.example")

    assert isinstance(found, Nowhere)
    assert (found.first.status, found.later.status) == (first, later)
    for reply in (found.first, found.later):
        assert reply.status[0] == str(reply.code)[0]


async def test_good_addresses_among_bad_ones_are_used():
    """One private address does not spoil the rest; a better host that is us cuts what is worse."""
    names = Names(
        {"b.example": [Mx(5, "h1"), Mx(10, "relay.us.example"), Mx(20, "h2")]},
        {"h1": ["127.0.0.1", "9.9.9.1"], "h2": ["9.9.9.2"]},
    )
    found = await router(names).find("b.example")

    assert [hop.address for hop in found.hops] == ["9.9.9.1"]


async def test_a_null_mx_beside_others_is_a_mistake():
    """RFC 7505 3: it stands alone; where it does not, nothing is bounced for it."""
    names = Names({"b.example": [Mx(0, ""), Mx(10, "h")]}, {"h": ["9.9.9.1"]})
    found = await router(names).find("b.example")

    assert [hop.address for hop in found.hops] == ["9.9.9.1"]


async def test_a_host_with_ipv6_only():
    """It is as good as any."""
    names = Names({"b.example": [Mx(0, "h")]}, {"h": ["2620:fe::9"]})
    found = await router(names).find("b.example")

    assert [hop.address for hop in found.hops] == ["2620:fe::9"]


async def test_private_networks_by_setting():
    """An operator whose world is private says so."""
    names = Names({"b.example": [Mx(0, "h")]}, {"h": ["10.1.2.3"]})
    found = await router(names, private=True).find("b.example")

    assert [hop.address for hop in found.hops] == ["10.1.2.3"]


async def test_no_more_than_twenty_are_tried():
    """However many hosts and addresses a domain claims to have."""
    hosts = [Mx(0, f"h{n}") for n in range(100)]
    names = Names({"b.example": hosts}, {mx.host: ["9.9.9.1", "9.9.9.2"] for mx in hosts})
    found = await router(names).find("b.example")

    assert len(found.hops) == 20


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("[9.9.9.9]", Route("[9.9.9.9]", (Hop("[9.9.9.9]", "9.9.9.9", 25),))),
        ("[IPv6:2620:fe::9]", Route("[2620:fe::9]", (Hop("[2620:fe::9]", "2620:fe::9", 25),))),
        ("[127.0.0.1]", "5.4.4"),
        ("[nonsense]", "5.1.3"),
        ("", "5.1.3"),
    ],
)
async def test_address_literals(domain, found):
    """RFC 5321 4.1.3, and no way into our own network."""
    answer = await router(Names()).find(domain)

    assert (answer.later.status if isinstance(answer, Nowhere) else answer) == found
