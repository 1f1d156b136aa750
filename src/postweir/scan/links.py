"""Finds the hosts of a message's links and looks them up in a set of hosts."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from urllib.parse import unquote_to_bytes

from postweir.mail.message import Message
from postweir.runtime.frames import Value
from postweir.runtime.log import Log
from postweir.scan.finding import Finding, tame
from postweir.scan.patterns import url_hosts

LINKS_MAX = 10_000  # of a message, before it is known which are the same; a digest has hundreds
HOSTS_PER_MESSAGE_MAX = 200  # distinct ones; more are counted no further
LABELS_MAX = 12  # of a host, from the right; deeper ones are looked up by these
SET_BYTES_MAX = 64 * 1024 * 1024  # a million hosts are 20 MB
LINE_BYTES_MAX = 64 * 1024  # with its comment
HOST_BYTES_MAX = 255  # RFC 1035 2.3.4


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

    def __init__(self, path: str, log: Log) -> None:
        self._log = log
        self._pattern = url_hosts()
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

    def scan(self, message: Message) -> Sequence[Finding]:
        """Return a finding for each linked host that is in the set."""
        found = self._set
        if found is None:
            if self._path:
                raise BadSet("no set of hosts could be loaded")
            return []
        return [
            Finding(self.name, "url_listed", tame(listed), 1.0, found.version)
            for host in self.hosts(message)
            if (listed := _listed(host, found.hosts))
        ]

    def hosts(self, message: Message) -> list[str]:
        """Return the distinct hosts that the message links to, lower-case, in order."""
        hosts: dict[str, None] = {}
        for raw in dict.fromkeys(itertools.islice(self._links(message), LINKS_MAX)):
            host = _host(raw)
            if host:
                hosts[host] = None
            if len(hosts) >= HOSTS_PER_MESSAGE_MAX:
                break
        return list(hosts)

    def _links(self, message: Message) -> Iterator[bytes]:
        for text in _texts(message):
            for raw in self._pattern.firsts(text):
                yield raw[:HOST_BYTES_MAX]


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
            host = _host(entry) if len(entry) <= HOST_BYTES_MAX else ""
            if entry and "." not in host:
                raise BadSet(f"{path}:{number}: not a host name")
            if entry:
                hosts.add(host)
    return HostSet(hosts, seen.hexdigest()[:12])


def _texts(message: Message) -> Iterator[bytes]:
    for part in message.parts:
        if not part.container and part.content_type.startswith("text/"):
            yield part.text
    if message.anomalies:  # the tree may have missed what a reader's program would show
        yield message.data[message.start :]


def _host(raw: bytes) -> str:
    """Return a host as sets spell it: lower-case, in punycode, without trailing dots; "" if bad."""
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    text = raw.decode("utf-8", "replace").strip(".-_").lower()
    if not text.isascii():
        text = ".".join(map(_punycode, text.split(".")[-LABELS_MAX:]))
    good = text and all(c.isalnum() or c in "-._" for c in text) and ".." not in text
    return text if good else ""


def _punycode(label: str) -> str:
    if label.isascii() or len(label) > 63:  # RFC 1035 2.3.4; the encoder is quadratic
        return label
    return "xn--" + label.encode("punycode").decode()


def _listed(host: str, hosts: Set[str]) -> str:
    """Return the entry that this host is, or is below; "" when there is none."""
    labels = host.split(".")[-LABELS_MAX:]
    for first in range(len(labels) - 1):
        suffix = ".".join(labels[first:])
        if suffix in hosts:
            return suffix
    return ""
