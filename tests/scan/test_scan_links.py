"""Hosts of links are found as a reader's program would open them, and looked up in the set."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.domains import Domains
from postweir.mail.message import read
from postweir.runtime.log import quiet
from postweir.scan.links import HOSTS_PER_MESSAGE_MAX, BadSet, Links, read_hosts
from postweir.scan.patterns import url_hosts
from postweir.scan.text import Text

DOMAINS = Domains()


def html(body: bytes) -> bytes:
    return b"Content-Type: text/html; charset=utf-8\r\n\r\n" + body


def hosts(body: bytes) -> list[str]:
    return list(Links("", quiet(), DOMAINS).links(read(html(body))).hosts)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (b"see http://Bad.Example/x", "bad.example"),
        (b"<a href='https://bad.example:8443?x'>", "bad.example"),
        (b"https://paypal.com@bad.example/login", "bad.example"),
        (b"http:\\\\bad.example\\x", "bad.example"),
        (b'<img src="//cdn.bad.example/p.gif">', "cdn.bad.example"),
        (b"go to www.bad.example.", "www.bad.example"),
        (b"http://b%61d.example/", "bad.example"),
        ("http://b\u00fcd.example/".encode(), "xn--bd-xka.example"),
    ],
)
def test_hosts_of_links(text, host):
    """Ports, users, backslashes, missing schemes and encodings hide no host."""
    assert hosts(text) == [host]


def test_no_links():
    """Addresses of people and plain words are no links."""
    assert hosts(b"write to joe@example.com, or come by at example.com") == []


def test_links_are_bounded():
    """A message of a hundred thousand links costs no more than its bound."""
    body = b" ".join(b"http://h%d.example/" % i for i in range(100_000))
    began = time.perf_counter()

    assert len(hosts(body)) == HOSTS_PER_MESSAGE_MAX
    assert time.perf_counter() - began < 5.0


def loaded(tmp_path, text: bytes) -> Links:
    path = tmp_path / "hosts"
    path.write_bytes(text)
    links = Links(str(path), quiet(), DOMAINS)
    links.load(str(path))
    return links


def test_a_listed_host_and_what_is_below_it(tmp_path):
    """An entry stands for its subdomains, not for names that merely end like it."""
    links = loaded(tmp_path, b"# ours\nbad.example\nxn--bd-xka.example # idn\n")

    found = links.scan(
        read(html(b"http://a.b.bad.example/ http://notbad.example/ http://example/"))
    ).findings
    assert [(f.kind, f.what, f.version) for f in found] == [
        ("url_listed", "bad.example", links.version)
    ]
    assert links.scan(read(html("http://büd.example/".encode()))).findings


def test_a_bad_set_is_not_taken(tmp_path):
    """After a reload of a broken file the old set serves on, and its hash says so."""
    links = loaded(tmp_path, b"bad.example\n")
    version = links.version
    (tmp_path / "hosts").write_bytes(b"good.example\n!!\n")

    with pytest.raises(BadSet, match=":2: not a host name"):
        read_hosts(tmp_path / "hosts")
    links.load(str(tmp_path / "hosts"))
    assert links.version == version
    assert links.scan(read(html(b"http://bad.example/"))).findings

    (tmp_path / "hosts").write_bytes(b"other.example\n")
    links.load(str(tmp_path / "hosts"))
    assert links.version != version
    assert not links.scan(read(html(b"http://bad.example/"))).findings


def test_no_set(tmp_path):
    """Without a set there is nothing to find; with one that never loaded, the scanner says so."""
    assert Links("", quiet(), DOMAINS).scan(read(html(b"http://bad.example/"))).findings == []
    missing = Links(str(tmp_path / "none"), quiet(), DOMAINS)
    missing.load(str(tmp_path / "none"))

    seen = missing.scan(read(html(b"http://bad.example/")))
    assert [f.kind for f in seen.findings] == ["unavailable"]
    assert seen.measures["urls.hosts"] == ["bad.example"]


@given(st.binary(max_size=200))
def test_any_text(text):
    """No bytes make it fail, and what it gives is a host name."""
    for host in hosts(b"http://" + text):
        assert host == host.lower()
        assert " " not in host


def test_patterns_take_any_bytes():
    """The engine sees bytes as they are: no encoding hides a link behind a bad one."""
    assert list(url_hosts().firsts(b"\xff\xfe\x00http://a.example\xff")) == [b"a.example\xff"]


def test_links_are_counted_before_they_are_read(tmp_path):
    """A million links cost what ten thousand do, and one repeated is read once."""
    links = loaded(tmp_path, b"bad.example\n")
    same = b"http://" + "ü".encode() * 40 + b".example/ "
    many = read(html(same * 9000 + b"http://bad.example/ "))
    began = time.thread_time()

    assert [f.what for f in links.scan(many).findings] == ["bad.example"]
    assert time.thread_time() - began < 1.0
    assert links.scan(read(html(same * 20_000 + b"http://bad.example/"))).findings == []


def test_a_set_has_long_comments_and_bounds(tmp_path):
    """A comment may be long, a name may not."""
    links = loaded(tmp_path, b"# " + b"x" * 1000 + b"\nbad.example # " + b"y" * 1000 + b"\n")
    assert links.scan(read(html(b"http://bad.example/"))).findings

    (tmp_path / "hosts").write_bytes(b"a." * 200 + b"example\n")
    with pytest.raises(BadSet, match=":1: not a host name"):
        read_hosts(tmp_path / "hosts")


def measures(body: bytes) -> dict:
    message = read(html(body))
    Text().scan(message)
    seen = Links("", quiet(), DOMAINS).scan(message)
    return {n.removeprefix("urls."): v for n, v in seen.measures.items()}


def test_links_are_counted_once():
    """The same link twice, in another text or behind a full stop, is one."""
    found = measures(
        b"http://a.example/x http://a.example/x. <a href='http://a.example/x?a=1&amp;b'>"
        b" http://a.example/x?a=1&b www.b.example"
    )

    assert found["count"] == 3
    assert found["hosts"] == ["a.example", "www.b.example"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("numeric", b"http://192.0.2.1/"), ("numeric", b"http://0xC0.0x00.0x02.1/"),
        ("numeric", b"http://3221225985/"), ("numeric", b"http://[2001:db8::1]/"),
        ("punycode", b"http://xn--bd-xka.example"), ("punycode", "http://büd.example".encode()),
        ("confusable", "http://pаypal.example".encode()),
        ("userinfo", b"https://www.bank.example@evil.example/"),
        ("userinfo", b"https://a:b@c@evil.example/"),
        ("mismatch", b"<a href='http://evil.example/'>www.bank.example</a>"),
        ("mismatch", b"<a href=http://192.0.2.1/>https://bank.com/login</a>"),
        ("mismatch", b"<a href=//evil.example/>bank.com</a>"),
        ("mismatch", b"<a href='ht&#116;p://evil.example'>see http://<b>bank</b>.com now</a>"),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_link(name, text):
    """One oddity each, and none of the others but where a name must have two."""
    found = measures(text)

    assert found[name] is True
    assert not any(measures(b"http://www.example.com/a@b <a href=/x>x</a>")[n] for n in
                   ("numeric", "punycode", "confusable", "userinfo", "mismatch"))  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b"<a href='http://mail.bank.com/'>www.bank.com</a>",
        b"<a href='http://x.com'>Click</a>",
        b"<a href='mailto:joe@x.com'>www.bank.com</a>",
        b"<a href='http://x.com'>joe@bank.com</a>",
        b"<a href='http://x.com/a.pdf'>report.pdf</a>",
        b"<a href='http://x.com'>readme.md</a>",
        b"<a href='http://x.com'>See bank.com for more</a>",
        b"<a href='http://x.com'>e.g.</a>",
        b"<a href='/local'>www.bank.com</a>",
        b"<a>www.bank.com</a>",
    ],
)
def test_no_mismatch(text):
    """The same owner, no host shown, a file's name, an address, a place of no host."""
    assert measures(text)["mismatch"] is False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"<a href='ht\ntp://bad.exa\tmple/'>", ["bad.example"]),
        (b"<a href='&#104;ttp://bad.example/'>", ["bad.example"]),
        (b"http://go.example/?u=http://bad.example/x", ["go.example", "bad.example"]),
        (b"http://go.example/www.bad.example", ["go.example", "www.bad.example"]),
    ],
)
def test_links_that_only_a_browser_sees(text, found):
    """What it skips, what it decodes, and where a redirector would lead."""
    assert measures(text)["hosts"] == found


@pytest.mark.parametrize(
    "text", [b"hxxp://bad.example/x", b"http://bad[.]example/x", b"https://bad(.)example"]
)
def test_links_made_harmless(text):
    """Who writes about a bad host does not link to it."""
    assert measures(text)["hosts"] == []
