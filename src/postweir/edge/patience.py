"""How long we wait for one client: for each thing it may be at, a moment that nothing prolongs.

Only what we say, or a message that is accepted, moves a deadline on; a byte now and then does
not. Inside those, three bounds are absolute: to log in, for a message, and for a session that has
no message accepted.
"""

from postweir.edge.limits import Limits

CLOSING_S = 10.0  # for our last words to be read
WORK_S = 60.0  # beyond every bound that our own work has: only a bug of ours gets here


class Patience:
    """What one client is at, since when; `late` says when that is too long."""

    __slots__ = ("_at", "_begun_at", "_heard_at", "_received", "_since", "_useful_at", "known")

    def __init__(self, now: float) -> None:
        self._at = "command"
        self._begun_at = self._since = self._useful_at = self._heard_at = now
        self._received = 0
        self.known = False  # whose mail it is; until then it has `login_s`

    @property
    def since(self) -> float:
        """When it began with what it is at."""
        return self._since

    def at(self, what: str, now: float) -> None:
        """It is at this now: command, handshake, data, unread, work or closing."""
        self._at, self._since = what, now
        self._heard_at, self._received = now, 0

    def received(self, size: int, now: float) -> None:
        """So much of its message is here."""
        self._received, self._heard_at = size, now

    def accepted(self, now: float) -> None:
        """It brought a message that was accepted: the session is worth its place."""
        self._useful_at = now

    def late(self, now: float, limits: Limits) -> str:
        """Return what took too long, "" when nothing did."""
        match self._at:
            case "data":
                slowest = self._since + self._received / limits.data_rate_min
                stalled = now >= min(self._heard_at, slowest) + limits.data_s
                return "data" if stalled or now >= self._since + limits.message_s else ""
            case "closing":
                return "closing" if now >= self._since + CLOSING_S else ""
            case "work":
                return "work" if now >= self._since + WORK_S else ""
            case "handshake":
                wait_s = limits.handshake_s
            case _:
                wait_s = limits.command_s
        if now >= self._since + wait_s:
            return self._at
        if not self.known and now >= self._begun_at + limits.login_s:
            return "login"
        return "session" if now >= self._useful_at + limits.session_s else ""
