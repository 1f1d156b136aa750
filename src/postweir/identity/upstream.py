"""What a mail server wrote in its Received line, taken apart without trusting a byte of it.

A line's frame is written by the server that added it, but a stranger chose parts of what stands
in it (the HELO name, a reverse DNS name). So words and comments are kept apart, only comments
of the exact shape count, and what stands after `by` never speaks about the client.
"""

import ipaddress
from dataclasses import dataclass

LINE_CHARS_MAX = 4096  # a longer Received line is read this far
COMMENT_DEPTH_MAX = 8  # RFC 5322 lets comments nest; nobody nests deeper
ID_CHARS_MAX = 64
_AUTHENTICATED = "authenticated sender: "  # Postfix: smtpd_sasl_authenticated_header = yes

_INTERNAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.168.0.0/16", "::/128", "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hop:
    """One Received line, as far as it can be read."""

    client: str = ""  # the address that handed the message over; "" when made on the spot
    authenticated: bool = False  # the client had logged in there
    user: str = ""  # as whom, where the line says so
    users: int = 0  # how many comments claim to say so: more than one is forgery
    id: str = ""  # the server's own queue id

    @property
    def internal(self) -> bool:
        """True when the client has a private address: a step inside one house."""
        return is_internal(self.client)


def read_hop(line: str) -> Hop:
    """Return what an unfolded Received value says."""
    words, comments = _split(line[:LINE_CHARS_MAX])
    by = next((at for at, word in enumerate(words) if word.lower() == "by"), len(words))
    before = [text for at, text in comments if at <= by]
    users = [text[len(_AUTHENTICATED) :].strip() for text in before if _names_user(text)]
    protocol = _after(words[by:], "with").upper()
    return Hop(
        client=_client(words[:by], before),
        authenticated=bool(users) or ("SMTP" in protocol and protocol.endswith("A")),
        # Postfix writes it last before `by`, after all that a stranger could choose.
        user=users[-1] if users else "",
        users=len(users),
        id=_printable(_after(words[by:], "id"))[:ID_CHARS_MAX],
    )


def is_internal(address: str) -> bool:
    """True for loopback, private, shared and link-local addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found.version == net.version and found in net for net in _INTERNAL)


def _names_user(comment: str) -> bool:
    return comment[: len(_AUTHENTICATED)].lower() == _AUTHENTICATED


def _client(words: list[str], comments: list[str]) -> str:
    """Return the address in `from name (rdns [address])` or in Exim's `from [address] (…)`."""
    if not words or words[0].lower() != "from":
        return ""
    for text in comments:
        # A word of its own: `helo=[192.0.2.1]` is what the client said, not where it was.
        for word in text.split():
            if word.startswith("[") and (address := _literal(word)):
                return address
    return _literal(words[1]) if len(words) > 1 and words[1].startswith("[") else ""


def _literal(word: str) -> str:
    inside = word[1:].partition("]")[0]
    if inside[:5].lower() == "ipv6:":
        inside = inside[5:]
    try:
        found = ipaddress.ip_address(inside)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def _after(words: list[str], name: str) -> str:
    """Return the word after `name`, "" when there is none."""
    for at, word in enumerate(words[:-1]):
        if word.lower() == name:
            return words[at + 1]
    return ""


def _printable(text: str) -> str:
    return "".join(c for c in text if "!" <= c <= "~")


def _split(line: str) -> tuple[list[str], list[tuple[int, str]]]:
    """Return words, and comments with the number of words before each; stops at the date."""
    if "\\" in line:
        return _split_slowly(line)
    words: list[str] = []
    comments: list[tuple[int, str]] = []
    at = 0
    while True:
        start = line.find("(", at)
        plain = line[at : start if start >= 0 else len(line)]
        before, date, _ = plain.partition(";")
        words += before.split()
        if date or start < 0:
            return words, comments
        end = line.find(")", start)
        if end < 0 or line.find("(", start + 1, end) >= 0:
            return _split_slowly(line)
        comments.append((len(words), line[start + 1 : end].strip()))
        at = end + 1


def _split_slowly(line: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The same where comments nest, are not closed, or characters are quoted."""
    words: list[str] = []
    comments: list[tuple[int, str]] = []
    plain = comment = ""
    depth = 0
    escaped = False
    for c in line:
        if not depth:
            if c in "(;":
                words += plain.split()
                plain = ""
                if c == ";":
                    return words, comments
                depth, comment, escaped = 1, "", False
            else:
                plain += c
            continue
        depth += 0 if escaped else (c == "(") - (c == ")")
        if depth > COMMENT_DEPTH_MAX:
            return words, comments
        if depth:
            comment += c
        else:
            comments.append((len(words), comment.strip()))
        escaped = c == "\\" and not escaped
    return words + plain.split(), comments
