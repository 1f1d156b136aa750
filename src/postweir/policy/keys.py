"""How the keys of sets are written: one way, in a set's file and of the message it meets."""

import ipaddress
from collections.abc import Iterator

from postweir.mail.address import parse_path

KEY_CHARS_MAX = 512  # a sender's key is 64 and 256 bytes, and its type
LABELS_MAX = 12  # of a host, from the right; deeper ones are looked up by these
NETWORK_SIZE_MAX = 65_536  # addresses of a network in a set: it is spelt out

HOSTS = ("url_hosts", "recipient_domains", "from_domain", "envelope_domain", "reply_to_domain")
_HEX = frozenset("0123456789abcdef")
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_WANTED = {
    **dict.fromkeys(HOSTS, "a host or domain, such as example.com; those below it count too"),
    "recipients": "an address, such as joe@example.com",
    "client": f"an IP address, or a network of at most {NETWORK_SIZE_MAX} such as 192.0.2.0/24",
    "sender": "a sender's key, account|type|identity, as `postweir sender show` prints it",
    "account": "an account's name",
    "attachment_names": "a file name, such as invoice.exe",
    "attachment_hashes": "a SHA-256 as 64 hexadecimal digits",
}


def wanted(of: str) -> str:
    """Return what a key of this kind looks like, in words."""
    return _WANTED[of]


def normal(of: str, text: str) -> str:
    """Return a key as it is compared, "" when it is none of its kind."""
    if of in HOSTS:
        return _host(text)
    if not 0 < len(text) <= KEY_CHARS_MAX or not text.isprintable():
        return ""
    match of:
        case "recipients":
            return parse_path(f"<{text.lower()}>") or ""
        case "client":
            return _address(text)
        case "sender":
            return text if text.count("|") >= 2 else ""
        case "attachment_names":
            return text.lower()
        case "attachment_hashes":
            digits = text.lower()
            return digits if len(digits) == 64 and _HEX.issuperset(digits) else ""
    return text


def network(text: str) -> Iterator[str]:
    """Yield the addresses of a network that is small enough to be spelt out."""
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        return
    if found.num_addresses <= NETWORK_SIZE_MAX:
        yield from map(str, found)


def looked_up(of: str, text: str) -> Iterator[str]:
    """Yield the keys under which a set may have what a message has: of a host, those above it."""
    key = normal(of, text)
    if not key:
        return
    yield key
    if of in HOSTS:
        labels = key.split(".")[-LABELS_MAX:]
        for first in range(1, len(labels) - 1):
            yield ".".join(labels[first:])


def _host(text: str) -> str:
    """Return a host in lower case and in punycode (RFC 3492), without dots around it."""
    text = text.strip(".").lower()
    if not text.isascii() and len(text) <= KEY_CHARS_MAX:
        text = ".".join(map(_punycode, text.split(".")))
    # One label is a typing error: nobody lists all of `com`.
    good = len(text) <= 253 and "." in text and _HOST.issuperset(text) and ".." not in text
    return text if good else ""


def _punycode(label: str) -> str:
    if label.isascii() or len(label) > 63:  # RFC 1035 2.3.4; the encoder is quadratic
        return label
    return "xn--" + label.encode("punycode").decode()


def _address(text: str) -> str:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
