"""Who and what gets in: every bound has its answer here, and is looked at before our 354.

Pure: numbers in, a refusal or None out. RFC 3463 has 4.3.1 for a full store and 4.3.2 for a
system that takes nothing just now. All of it is said at once: an overloaded server that answers
slowly is what Postweir exists not to be. `docs/admission.md` is the table of it.
"""

import ipaddress
from dataclasses import dataclass

from postweir.mail.reply import Reply
from postweir.runtime.settings import Edge

ACCOUNT_MEMORY_SHARE = 0.5  # of all memory for messages: what is taken cannot be taken back
CROWDED_SHARE = 0.9  # of all connections: the last tenth is for those who hold less than others


@dataclass(frozen=True, slots=True)
class No:
    """Why not, as a metric's label, and what to say."""

    reason: str
    reply: Reply


STOPPING = No("stopping", Reply(421, "4.3.2", "Restarting, try again"))
FULL = No("connections", Reply(421, "4.3.2", "Too many connections, try again later"))
CROWDED = No("client", Reply(421, "4.3.2", "Too many connections from your address"))
OVER_SHARE = No("share", Reply(421, "4.3.2", "Others need your connections, use fewer just now"))
UNKNOWN = No("unknown", Reply(421, "4.3.2", "Too many who have not logged in, try again later"))
GUESSING = No("guessing", Reply(421, "4.7.0", "Too many errors"))
BUSY = No("memory", Reply(421, "4.3.2", "Busy, try again later"))
HANDSHAKES = No("handshakes", Reply(454, "4.7.0", "Too many TLS handshakes, try again later"))
MEMORY = No("memory", Reply(452, "4.3.1", "No memory just now, try again later"))
OWN_MEMORY = No("account_memory", Reply(452, "4.3.1", "Your messages fill our memory, wait a bit"))
DISK = No("disk", Reply(452, "4.3.1", "No room for a message of that size just now"))
IN_FLIGHT = No("in_flight", Reply(451, "4.3.2", "Busy with other messages, try again later"))
OWN_FLIGHT = No("account_in_flight", Reply(451, "4.3.2", "Busy with your messages, wait a bit"))
REASONS = (
    STOPPING, FULL, CROWDED, OVER_SHARE, UNKNOWN, GUESSING, BUSY, HANDSHAKES, MEMORY, OWN_MEMORY,
    DISK, IN_FLIGHT, OWN_FLIGHT,
)  # fmt: skip


def connect(
    limits: Edge,
    *,
    room: int,
    connections: int,
    of_client: int,
    of_holder: int,
    share: int,
    bytes_held: int,
    stopping: bool,
) -> No | None:
    """Return why a new connection does not get in, or None: it may stay.

    It counts for a holder, see `holder`; `share` is what one may have while others want some.
    """
    most = min(limits.connections_max, room)
    if stopping:
        return STOPPING
    if connections >= most:
        return FULL
    if of_client >= limits.connections_per_client_max:
        return CROWDED
    if connections >= most * CROWDED_SHARE and of_holder >= share:
        return OVER_SHARE
    if bytes_held >= limits.memory_bytes_max:
        return BUSY
    return None


def stay(limits: Edge, *, room: int, connections: int, of_holder: int, share: int) -> No | None:
    """Return why a connection that is in has to go, at its next MAIL, or None."""
    most = min(limits.connections_max, room)
    return OVER_SHARE if connections >= most * CROWDED_SHARE and of_holder > share else None


def begin(limits: Edge, *, bytes_held: int, of_account: int) -> No | None:
    """Return why a message does not get in, before its first byte, or None."""
    if bytes_held >= limits.memory_bytes_max:
        return MEMORY
    if of_account >= limits.memory_bytes_max * ACCOUNT_MEMORY_SHARE:
        return OWN_MEMORY
    return None


def go_on(limits: Edge, *, bytes_held: int) -> No | None:
    """Return why a message ends while its header is still coming, or None.

    Later than `begin`, so that what has begun mostly ends well; but a header alone cannot go to
    disk, and ten thousand of them at once are more memory than there is.
    """
    return MEMORY if bytes_held >= 2 * limits.memory_bytes_max else None


def fits(*, free_bytes: int, free_bytes_min: int, claimed: int, size: int) -> No | None:
    """Return why a message of that size does not get in, or None: the disk will hold it.

    What others have claimed is partly written by now, and then counted twice: rather too soon.
    """
    return DISK if free_bytes - claimed - size < free_bytes_min else None


def address(peer: object) -> str:
    """Return a peer's address, the same however it reached us."""
    if not isinstance(peer, tuple) or not peer:
        return ""
    text = str(peer[0]).partition("%")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def neighbourhood(client: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 /64, which is one customer."""
    if ":" not in client:
        return client
    return str(ipaddress.ip_network(f"{client}/64", strict=False))


def holder(account: str, client: str) -> str:
    """Return for whom a connection counts: its account, else its neighbourhood."""
    return account or f"?{client}"
