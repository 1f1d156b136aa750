"""Envelope addresses: read once, strictly, and written one way ever after."""

import ipaddress

# RFC 5321 4.5.3.1.3 allows a path 256 bytes, brackets counted. The 64 bytes of 4.5.3.1.1 for the
# local part are not held to: SRS and VERP addresses are longer, and the same section asks us to
# be generous.
ADDRESS_BYTES_MAX = 254
ROUTE_BYTES_MAX = 512  # a source route is dropped, but must end somewhere
LABEL_BYTES_MAX = 63  # RFC 1035 2.3.4

_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# Dots stand anywhere: `a..b@` and `a.@` are wrong by RFC 5321, and are real mailboxes in Japan.
_LOCAL = frozenset(_ALPHANUMERIC + "!#$%&'*+-/=?^_`{|}~.")
_DOMAIN = frozenset(_ALPHANUMERIC + "-_.")  # the underscore: many bounce domains have one
_ROUTE = frozenset(_ALPHANUMERIC + "-_.@,")


def parse_path(text: str) -> str | None:
    """Return the address in `<...>` as `local@domain`, domain lower-case; None when malformed.

    `<>` gives "", and `<postmaster>`, alone in needing no domain, "postmaster".
    """
    if text == "<>":
        return ""
    if not (text.startswith("<") and text.endswith(">") and text.isascii() and text.isprintable()):
        return None
    inner = text[1:-1]
    if inner.startswith("@"):
        inner = _without_route(inner)
    return _address(inner)


def domain_of(address: str) -> str:
    """Return what stands after the last `@`, or ""."""
    return address.rpartition("@")[2] if "@" in address else ""


def split_path(text: str) -> tuple[str, str]:
    """Cut `<path> PARAMETERS` behind the bracket that ends the path, quotes respected."""
    end = text.find(">") if '"' not in text else _quoted_end(text)
    return (text[: end + 1], text[end + 1 :]) if end >= 0 else (text, "")


def _quoted_end(text: str) -> int:
    """Return where a `>` stands that is not inside quotes, or -1."""
    quoted = skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quoted and char == "\\":
            skip = True
        elif char == '"':
            quoted = not quoted
        elif char == ">" and not quoted:
            return at
    return -1


def _without_route(inner: str) -> str:
    """Drop `@a,@b:` (RFC 5321 appendix C); return "" when it is no route."""
    route, colon, address = inner.partition(":")
    # An IPv6 literal in a route would have colons of its own; nobody sends one.
    valid = colon and len(route) <= ROUTE_BYTES_MAX and _ROUTE.issuperset(route)
    return address if valid else ""


def _address(text: str) -> str | None:
    if not 0 < len(text) <= ADDRESS_BYTES_MAX:
        return None
    local, at, domain = text.rpartition("@")
    if not at:
        return "postmaster" if domain.lower() == "postmaster" else None  # RFC 5321 4.5.1
    if not local or not (_LOCAL.issuperset(local) or _is_quoted(local)):
        return None
    written = _literal(domain) if domain.startswith("[") else _domain(domain)
    return f"{local}@{written}" if written else None


def _domain(text: str) -> str:
    """Return a domain in lower case, or "" when it is none."""
    if not _DOMAIN.issuperset(text):
        return ""
    for label in text.split("."):
        if not 0 < len(label) <= LABEL_BYTES_MAX or label[0] == "-" or label[-1] == "-":
            return ""
    return text.lower()


def _literal(text: str) -> str:
    """Return an address literal (RFC 5321 4.1.3) as it is best written, or ""."""
    if not text.endswith("]"):
        return ""
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:" and "%" not in inner:
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        return ""


def _is_quoted(local: str) -> bool:
    """True for `"…"` with every quote and backslash inside it escaped."""
    if len(local) < 3 or local[0] != '"' or local[-1] != '"':
        return False
    inner = local[1:-1].replace("\\\\", "").replace('\\"', "")
    # What is left of backslashes escapes an ordinary character, and must have one to escape.
    return '"' not in inner and not inner.endswith("\\")
