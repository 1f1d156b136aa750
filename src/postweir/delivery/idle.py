"""Connections with nothing to do, kept for a while: by site, and the longest idle first to go."""

from collections import OrderedDict

from postweir.delivery.schedule import Site
from postweir.delivery.session import Session
from postweir.spool.handing import Handed


class Idle:
    """Who rests, and where."""

    def __init__(self) -> None:
        self._sites: OrderedDict[Session, Site[Handed]] = OrderedDict()  # longest first
        self._sessions: dict[tuple[str, str], list[Session]] = {}  # by site, longest first

    async def rest(self, site: Site[Handed], session: Session, seconds: float) -> bool:
        """Stay connected for a while; False when nothing came."""
        site.idle += 1
        self._sites[session] = site
        self._sessions.setdefault(site.key, []).append(session)
        try:
            return await session.park(seconds)
        finally:
            self._forget(session)

    def wake(self, site: Site[Handed], count: int) -> None:
        """Let up to `count` of a site's go on, those first that worked last."""
        for session in self._sessions.get(site.key, ())[::-1][:count]:
            self._forget(session)
            session.unpark(True)

    def dismiss_one(self) -> None:
        """Let the longest idle end: its descriptor is wanted elsewhere."""
        session = next(iter(self._sites), None)
        if session is not None:
            session.unpark(False)

    def _forget(self, session: Session) -> None:
        site = self._sites.pop(session, None)
        if site is None:
            return
        site.idle -= 1
        sessions = self._sessions[site.key]
        sessions.remove(session)
        if not sessions:
            del self._sessions[site.key]
