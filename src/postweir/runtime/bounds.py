"""What each setting's value may be, and what to do when it is something else."""

import ipaddress
import math
import typing
import urllib.parse
from collections.abc import Callable

CHOICES = {
    "edge.received_client": ("address", "hashed", "omit"),
    "spool.late_refusal": ("hold", "bounce"),
    "delivery.tls": ("opportunistic", "off"),
    "log.level": ("debug", "info", "warning", "error"),
}
AT_LEAST = {
    "edge.workers": 1, "edge.connections_max": 1, "edge.connections_per_client_max": 1,
    "edge.recipients_max": 1, "edge.message_bytes_max": 1024, "edge.header_bytes_max": 1024,
    "edge.memory_bytes_max": 1024 * 1024, "edge.command_s": 1, "edge.data_s": 1,
    "edge.handshake_s": 1, "edge.errors_max": 1, "edge.login_s": 1,
    "edge.message_s": 1, "edge.session_s": 1, "edge.in_flight_max": 1,
    "spool.shards": 1, "spool.inline_bytes_max": 0,
    "spool.queued_max": 1, "spool.free_bytes_min": 0, "spool.journal_days": 1,
    "spool.hold_days": 1, "spool.facts_hours": 1, "judge.workers": 1, "judge.wait_ms": 1,
    "spool.facts_bytes_max": 1024 * 1024,
    "judge.evaluate_ms": 1, "judge.scan_ms": 1, "delivery.workers": 1, "delivery.port": 1,
    "delivery.in_hand_max": 128, "delivery.connections_per_site_max": 1,
    "delivery.messages_per_connection_max": 1, "delivery.connect_s": 1, "delivery.reply_s": 1,
    "delivery.final_reply_s": 1, "delivery.idle_s": 0, "supervisor.silence_s": 0.2,
    "supervisor.drain_s": 0, "supervisor.ready_s": 0,
}  # fmt: skip
AT_MOST = {
    "edge.workers": 64, "spool.shards": 64, "judge.workers": 64, "delivery.workers": 64,
    "edge.recipients_max": 1000, "spool.inline_bytes_max": 1024 * 1024,
    "edge.message_bytes_max": 1024**3, "edge.header_bytes_max": 4 * 1024**2,
    "delivery.port": 65535, "judge.wait_ms": 30_000, "delivery.in_hand_max": 100_000,
}  # fmt: skip
# What has no bound of its own in AT_MOST, by the unit at its end: a slip of the keyboard, or a
# number that no clock can wait for.
UNIT_MOST = {"_s": 30 * 86_400, "_ms": 3_600_000, "_days": 36_500, "_hours": 876_000}
NUMBER_MOST = 2**53  # exact in every language that reads our JSON
HELP_URL_MAX = 150  # a reply line has 512 bytes, RFC 5321 4.5.3.1.5
POOL_CHARS_MAX = 64
SOURCES_MAX = 256  # of one pool: a /24
_POOL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
HOSTNAMES = ("edge.hostname", "delivery.hostname")
_HOSTNAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.[]:")
ADDRESSES = ("edge.listen", "edge.listen_tls", "metrics.listen", "web.listen", "status.listen")


def wrong(key: str, value: object) -> tuple[str, str] | None:
    """Return what is wrong with one value, and what to do; None when nothing is."""
    if isinstance(value, str) and not value.isprintable():
        return f"is {value!r}", "leave out what cannot be printed"
    if type(value) in (int, float):
        return _wrong_number(key, typing.cast(float, value))
    if key in HOSTNAMES and not _HOSTNAME.issuperset(typing.cast(str, value)):
        return f"is {value!r}", "write a host name, such as relay.example.net"
    if key == "edge.help_url" and len(typing.cast(str, value)) > HELP_URL_MAX:
        return "is too long", f"use at most {HELP_URL_MAX} characters: it is part of one reply line"
    if key in ("edge.hostname", "storage.data") and not value:
        return "is empty", "give it a value, or leave the key out"
    if key == "judge.rspamd":
        return _wrong_url(typing.cast(str, value))
    if key in CHOICES and value not in CHOICES[key]:
        return f"is {value!r}", "choose one of: " + ", ".join(CHOICES[key])
    if key in ADDRESSES or key == "delivery.resolvers":
        texts = (value,) if isinstance(value, str) else typing.cast(tuple[str, ...], value)
        return _wrong_address(texts, nameserver if key == "delivery.resolvers" else address)
    return _wrong_delivery(key, value)


def _wrong_route(route: dict[str, str]) -> tuple[str, str] | None:
    for domain, hop in route.items():
        host, _, port = hop.rpartition(":")
        if not domain or not host or not port.isdecimal() or not 0 < int(port) <= 65535:
            return f"sends {domain!r} to {hop!r}", 'write HOST:PORT for each domain, or for "*"'
    return None


def address(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:25` or `[::1]:25`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(text)
    return str(ipaddress.ip_address(host.strip("[]"))), int(port)


def nameserver(text: str) -> tuple[str, int]:
    """Return address and port of `127.0.0.1:5353` or `127.0.0.1`. Raises ValueError."""
    try:
        return address(text)
    except ValueError:
        return str(ipaddress.ip_address(text)), 53


def _wrong_delivery(key: str, value: object) -> tuple[str, str] | None:
    if key == "delivery.route":
        return _wrong_route(typing.cast(dict[str, str], value))
    if key == "delivery.pools":
        return _wrong_pools(typing.cast(dict[str, tuple[str, ...]], value))
    if key == "delivery.retry_s":
        waits = typing.cast(tuple[float, ...], value)
        if not waits or not all(0 < wait <= UNIT_MOST["_s"] for wait in waits):
            return f"is {waits}", "name at least one wait in seconds, all above 0, at most a month"
    return None


def _wrong_pools(pools: dict[str, tuple[str, ...]]) -> tuple[str, str] | None:
    for name, addresses in pools.items():
        if not 0 < len(name) <= POOL_CHARS_MAX or not _POOL.issuperset(name):
            return f"has a pool {name!r}", "use a-z, 0-9, - and _, at most 64"
        if not addresses or len(addresses) > SOURCES_MAX:
            return f"gives {name} {len(addresses)} addresses", f"name 1 to {SOURCES_MAX}"
        for text in addresses:
            if not _is_source(text):
                return f"has {text!r} in {name}", "write addresses, such as 192.0.2.10"
        if len({ipaddress.ip_address(text) for text in addresses}) < len(addresses):
            return f"has an address twice in {name}", "name each once"
    return None


def _is_source(text: str) -> bool:
    """True for an address that a connection may come from."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not found.is_unspecified and not found.is_multicast


def _wrong_number(key: str, value: float) -> tuple[str, str] | None:
    unit = "_" + key.rpartition("_")[2]
    most = AT_MOST.get(key, UNIT_MOST.get(unit, NUMBER_MOST))
    if not math.isfinite(value):
        return f"is {value}", "write a number that ends"
    if key in AT_LEAST and value < AT_LEAST[key]:
        return f"is {value}", f"it must be at least {AT_LEAST[key]}"
    if value > most:
        return f"is {value}", f"it must be at most {most}"
    return None


def _wrong_address(
    texts: tuple[str, ...], read: Callable[[str], tuple[str, int]]
) -> tuple[str, str] | None:
    for text in texts:
        try:
            read(text)
        except ValueError:
            return f"has {text!r}", "write ADDRESS:PORT, such as 127.0.0.1:2525 or [::1]:2525"
    return None


def _wrong_url(text: str) -> tuple[str, str] | None:
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good or not text:
        return None
    return f"is {text!r}", 'write a URL, such as "http://127.0.0.1:11333"'
