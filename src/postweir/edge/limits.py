"""How long and how much one client may, in calm and under stress.

Stress is when more than ENTER of anything that is bounded is taken. Then those who hold a place
without using it are asked to go sooner, by tighter deadlines, as in Postfix's stress-dependent
settings; who sends mail at a normal pace notices nothing. It ends when less than LEAVE has been
taken for CALM_S, so that it does not come and go with each connection.
"""

from dataclasses import dataclass

from postweir.runtime.settings import Edge

ENTER, LEAVE = 0.8, 0.6
CALM_S = 5.0

# A client under stress, or a machine that is busy, answers within a second or two; Postfix's own
# numbers under stress are 10 s for a command and 1 for errors.
COMMAND_S_STRESS = 10.0
DATA_S_STRESS = 20.0
HANDSHAKE_S_STRESS = 5.0
LOGIN_S_STRESS = 10.0
ERRORS_MAX_STRESS = 3
DATA_RATE_MIN = 500  # bytes a second, as Postfix has it: drops of data do not hold a place
DATA_RATE_MIN_STRESS = 4000
# Parts of all connections that may be of clients who have not yet shown who they are, and that
# may be in the middle of a TLS handshake: customers who are in keep the rest.
UNKNOWN_SHARE, UNKNOWN_SHARE_STRESS = 0.5, 0.25
HANDSHAKE_SHARE, HANDSHAKE_SHARE_STRESS = 0.2, 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What is in force."""

    command_s: float
    data_s: float
    handshake_s: float
    login_s: float
    session_s: float
    message_s: float
    data_rate_min: int
    errors_max: int
    unknown_max: int
    handshakes_max: int


def limits(edge: Edge, *, room: int, stressed: bool) -> Limits:
    """Return what is in force for so many connections."""
    connections = min(edge.connections_max, room)
    if not stressed:
        return Limits(
            edge.command_s, edge.data_s, edge.handshake_s, edge.login_s, edge.session_s,
            edge.message_s, DATA_RATE_MIN, edge.errors_max,
            max(int(connections * UNKNOWN_SHARE), 1), max(int(connections * HANDSHAKE_SHARE), 1),
        )  # fmt: skip
    return Limits(
        command_s=min(edge.command_s, COMMAND_S_STRESS),
        data_s=min(edge.data_s, DATA_S_STRESS),
        handshake_s=min(edge.handshake_s, HANDSHAKE_S_STRESS),
        login_s=min(edge.login_s, LOGIN_S_STRESS),
        session_s=edge.session_s,
        message_s=edge.message_s,
        data_rate_min=DATA_RATE_MIN_STRESS,
        errors_max=min(edge.errors_max, ERRORS_MAX_STRESS),
        unknown_max=max(int(connections * UNKNOWN_SHARE_STRESS), 1),
        handshakes_max=max(int(connections * HANDSHAKE_SHARE_STRESS), 1),
    )


class Stress:
    """Whether there is stress; `look` is told the part that is taken of what is scarcest."""

    __slots__ = ("_calm_since", "on")

    def __init__(self) -> None:
        self.on = False
        self._calm_since: float | None = None

    def look(self, now: float, taken: float) -> bool:
        """Take what is so now; True when it began or ended."""
        if not self.on:
            self.on = taken >= ENTER
            self._calm_since = None
            return self.on
        if taken >= LEAVE:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_S:
            self.on = False
            return True
        return False
