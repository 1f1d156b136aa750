"""Finds the hosts of a message's links and looks them up in a set of hosts."""

import hashlib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from postweir.mail.domains import Domains
from postweir.mail.message import Message
from postweir.runtime.frames import Value
from postweir.runtime.log import Log
from postweir.scan.finding import Finding, Seen, tame
from postweir.scan.hosts import (
    HOST_BYTES_MAX,
    LABELS_MAX,
    host_of,
    is_confusable,
    is_numeric,
    is_punycode,
)
from postweir.scan.page import unescaped
from postweir.scan.patterns import url_hosts, urls

LINKS_MAX = 10_000  # of a message, before it is known which are the same; a digest has hundreds
LINK_BYTES_MAX = 2000  # by which two are the same
HOSTS_PER_MESSAGE_MAX = 200  # distinct ones; more are counted no further
SET_BYTES_MAX = 64 * 1024 * 1024  # a million hosts are 20 MB
LINE_BYTES_MAX = 64 * 1024  # with its comment

# Ends of hosts that are more often those of files: `readme.md`, `install.sh`.
_OF_FILES = frozenset(
    ("ai", "app", "cc", "md", "mov", "pl", "pm", "ps", "py", "rs", "sh", "so", "zip")
)


class HostSet(Value, frozen=True):
    """Hosts nobody should link to, and the hash of the file they came from."""

    hosts: Set[str]
    version: str


class BadSet(Exception):
    """The file is no set of hosts; the message says where and why."""


class Links:
    """The link scanner. `load` may be called at any time, on any thread."""

    name = "links"
    instant = True
    facts: Mapping[str, type] = {
        "urls.known": bool, "urls.count": int, "urls.hosts": list, "urls.mismatch": bool,
        "urls.punycode": bool, "urls.confusable": bool, "urls.numeric": bool,
        "urls.userinfo": bool,
    }  # fmt: skip

    def __init__(self, path: str, log: Log, domains: Domains) -> None:
        self._log, self._domains = log, domains
        self._urls, self._hosts = urls(), url_hosts()
        self._set: HostSet | None = None
        self._path = path

    @property
    def version(self) -> str:
        """The hash of the set in use; "" when none is."""
        return self._set.version if self._set else ""

    def load(self, path: str) -> None:
        """Take the set of this file; when it is bad, say so and keep the one there is."""
        if not path:
            self._path, self._set = path, None
            return
        try:
            fresh = read_hosts(Path(path))
        except (OSError, BadSet) as fault:
            self._path = path
            self._log.error("scan.hosts_bad", fault=str(fault), kept=self.version)
            return
        self._path, self._set = path, fresh
        self._log.info("scan.hosts_loaded", hosts=len(fresh.hosts), version=fresh.version)

    def scan(self, message: Message) -> Seen:
        """Return the hosts that are linked to, and a finding for each that is in the set."""
        links = self.links(message)
        hosts = list(links.hosts)
        findings = []
        if self._set is not None:
            listed = (_listed(host, self._set.hosts) for host in hosts)
            findings = [
                Finding(self.name, "url_listed", tame(entry), 1.0, self._set.version)
                for entry in listed
                if entry
            ]
        elif self._path:  # what became of the file stands in the log
            findings = [Finding(self.name, "unavailable", "no set of hosts", 1.0, "")]
        return Seen(
            findings,
            measures={
                "urls.known": True,
                "urls.count": len(links.wholes),
                "urls.hosts": hosts,
                "urls.mismatch": self._mismatches(message),
                "urls.punycode": any(map(is_punycode, hosts)),
                "urls.confusable": any(map(is_confusable, hosts)),
                "urls.numeric": any(map(is_numeric, hosts)),
                "urls.userinfo": links.userinfo,
            },
            keys={"url_hosts": hosts},
        )

    def links(self, message: Message) -> "Found":
        """Return what the message links to, up to the bounds."""
        found = Found()
        for text in _texts(message):
            for whole, raw, at in self._urls.wholes(text):
                if found.links >= LINKS_MAX:
                    return found
                found.take(whole, raw, at)
                behind = at + len(raw)
                if whole.find(b"http", behind) > 0 or whole.find(b"www.", behind) > 0:
                    for inner in self._hosts.firsts(whole[behind:]):  # a redirector names the next
                        found.take(inner, inner, 0)
        return found

    def _mismatches(self, message: Message) -> bool:
        """True when an anchor shows a host of one site and leads to another."""
        for page in message.kept.get("pages", ()):
            for href, text in page.anchors:
                if b"." not in text or b"@" in text:
                    continue
                shown = self._shown(text)
                target = (
                    next(self._hosts.firsts(_disguised(href) or b"href=" + href), b"")
                    if shown
                    else b""
                )
                host = host_of(target[:HOST_BYTES_MAX])
                if host and not self._domains.related(shown, host):
                    return True
        return False

    def _shown(self, text: bytes) -> str:
        """Return the host that this text shows a reader, "" when it shows none."""
        raw = next(self._hosts.firsts(text), b"")
        if raw:
            return host_of(raw[:HOST_BYTES_MAX])
        # A name alone: of a host, when it ends like one and not like a file's.
        words = text.split(None, 2)
        raw = words[0].partition(b"/")[0] if len(words) == 1 else b""
        host = host_of(raw[:HOST_BYTES_MAX])
        begin, _, end = host.rpartition(".")
        return host if begin and end not in _OF_FILES and self._domains.is_public(host) else ""


class Found:
    """Links as they are found, each once."""

    def __init__(self) -> None:
        self.links = 0
        self.wholes: dict[bytes, None] = {}
        self.hosts: dict[str, None] = {}
        self.userinfo = False
        self._raws: set[bytes] = set()

    def take(self, whole: bytes, raw: bytes, at: int) -> None:
        """Take one; `raw` is its host, which begins there."""
        self.links += 1
        after = whole[at + len(raw) : at + len(raw) + 3]
        if after in (b"[.]", b"(.)", b"{.}"):
            return  # made harmless by who writes about it
        link = whole.replace(b"&amp;", b"&").rstrip(b".,;:!?)]}")[:LINK_BYTES_MAX]
        if link in self.wholes:
            return
        self.wholes[link] = None
        self.userinfo = self.userinfo or whole[at - 1 : at] == b"@"
        raw = raw[:HOST_BYTES_MAX]
        if raw in self._raws or len(self.hosts) >= HOSTS_PER_MESSAGE_MAX:
            return
        self._raws.add(raw)
        if host := host_of(raw):
            self.hosts[host] = None


def read_hosts(path: Path) -> HostSet:
    """Return the hosts of a file, one a line, `#` begins a comment. Raises OSError, BadSet."""
    hosts: set[str] = set()
    seen, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX):  # one by one: the judge goes on meanwhile
            number += 1
            size += len(line)
            if size > SET_BYTES_MAX:
                raise BadSet(f"{path}: more than {SET_BYTES_MAX} bytes")
            seen.update(line)
            entry = line.partition(b"#")[0].strip()
            host = host_of(entry) if len(entry) <= HOST_BYTES_MAX else ""
            if entry and "." not in host:
                raise BadSet(f"{path}:{number}: not a host name")
            if entry:
                hosts.add(host)
    return HostSet(hosts, seen.hexdigest()[:12])


def _texts(message: Message) -> Iterator[bytes]:
    for part in message.parts:
        if not part.container and part.content_type.startswith("text/"):
            yield part.text
    for page in message.kept.get("pages", ()):
        yield from filter(None, (_disguised(href) for href, _ in page.anchors))
    if message.anomalies:  # the tree may have missed what a reader's program would show
        yield message.data[message.start :]


def _disguised(href: bytes) -> bytes:
    """Return where an anchor leads when a browser reads more in it than stands there, else b""."""
    plain = href.translate(None, b"\t\r\n")  # WHATWG URL, 4.4
    if plain.count(b"&") > plain.count(b"&amp;"):
        plain = unescaped(plain.decode("latin-1")).encode("utf-8", "replace")
    return b"href=" + plain if plain != href else b""


def _listed(host: str, hosts: Set[str]) -> str:
    """Return the entry that this host is, or is below; "" when there is none."""
    labels = host.split(".")[-LABELS_MAX:]
    for first in range(len(labels) - 1):
        suffix = ".".join(labels[first:])
        if suffix in hosts:
            return suffix
    return ""
