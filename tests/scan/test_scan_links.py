"""Hosts of links are found as a reader's program would open them, and looked up in the set."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.message import read
from postweir.runtime.log import quiet
from postweir.scan.links import HOSTS_PER_MESSAGE_MAX, BadSet, Links, read_hosts
from postweir.scan.patterns import url_hosts


def html(body: bytes) -> bytes:
    return b"Content-Type: text/html; charset=utf-8\r\n\r\n" + body


def hosts(body: bytes) -> list[str]:
    return Links("", quiet()).hosts(read(html(body)))


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
    links = Links(str(path), quiet())
    links.load(str(path))
    return links


def test_a_listed_host_and_what_is_below_it(tmp_path):
    """An entry stands for its subdomains, not for names that merely end like it."""
    links = loaded(tmp_path, b"# ours\nbad.example\nxn--bd-xka.example # idn\n")

    found = links.scan(
        read(html(b"http://a.b.bad.example/ http://notbad.example/ http://example/"))
    )
    assert [(f.kind, f.what, f.version) for f in found] == [
        ("url_listed", "bad.example", links.version)
    ]
    assert links.scan(read(html("http://büd.example/".encode())))


def test_a_bad_set_is_not_taken(tmp_path):
    """After a reload of a broken file the old set serves on, and its hash says so."""
    links = loaded(tmp_path, b"bad.example\n")
    version = links.version
    (tmp_path / "hosts").write_bytes(b"good.example\n!!\n")

    with pytest.raises(BadSet, match=":2: not a host name"):
        read_hosts(tmp_path / "hosts")
    links.load(str(tmp_path / "hosts"))
    assert links.version == version
    assert links.scan(read(html(b"http://bad.example/")))

    (tmp_path / "hosts").write_bytes(b"other.example\n")
    links.load(str(tmp_path / "hosts"))
    assert links.version != version
    assert not links.scan(read(html(b"http://bad.example/")))


def test_no_set(tmp_path):
    """Without a set there is nothing to find; with one that never loaded, the scanner says so."""
    assert Links("", quiet()).scan(read(html(b"http://bad.example/"))) == []
    missing = Links(str(tmp_path / "none"), quiet())
    missing.load(str(tmp_path / "none"))
    with pytest.raises(BadSet):
        missing.scan(read(html(b"")))


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

    assert [f.what for f in links.scan(many)] == ["bad.example"]
    assert time.thread_time() - began < 1.0
    assert links.scan(read(html(same * 20_000 + b"http://bad.example/"))) == []


def test_a_set_has_long_comments_and_bounds(tmp_path):
    """A comment may be long, a name may not."""
    links = loaded(tmp_path, b"# " + b"x" * 1000 + b"\nbad.example # " + b"y" * 1000 + b"\n")
    assert links.scan(read(html(b"http://bad.example/")))

    (tmp_path / "hosts").write_bytes(b"a." * 200 + b"example\n")
    with pytest.raises(BadSet, match=":1: not a host name"):
        read_hosts(tmp_path / "hosts")
