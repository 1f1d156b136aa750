"""Routes lately found, and who waits for one that is being looked for."""

from collections import OrderedDict

from postweir.delivery.route import Nowhere, Route, Router
from postweir.mail.address import domain_of
from postweir.spool.handing import Handed

ROUTE_S = 5.0  # how long a route is used without looking: no longer than the shortest TTL
ROUTES_MAX = 20_000


class Ways:
    """Each route is looked for once, however many wait for it."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._found: OrderedDict[str, tuple[float, Route | Nowhere]] = OrderedDict()
        self._waiting: dict[str, list[Handed]] = {}

    def use(self, router: Router) -> None:
        """Go by this router from now on; what was found before is forgotten."""
        self._router = router
        self._found.clear()

    def sort(
        self, handed: list[Handed], now_s: float
    ) -> tuple[list[tuple[Handed, Route | Nowhere]], list[tuple[str, str]]]:
        """Return who has a route, and (key, domain) of what is to be looked for: `find`."""
        routed: list[tuple[Handed, Route | Nowhere]] = []
        unknown: list[tuple[str, str]] = []
        for one in handed:
            domain = domain_of(one.out.address)
            key = self._router.key(domain)
            known = self._found.get(key)
            if known is not None and known[0] > now_s:
                routed.append((one, known[1]))
            elif key in self._waiting:
                self._waiting[key].append(one)
            else:
                self._waiting[key] = [one]
                unknown.append((key, domain))
        return routed, unknown

    async def find(self, domain: str) -> Route | Nowhere:
        """Look for a route; tell `found` whatever comes of it."""
        return await self._router.find(domain)

    def found(self, key: str, route: Route | Nowhere, now_s: float) -> list[Handed]:
        """Keep what was found for a while; return who waited for it."""
        self._found[key] = (now_s + ROUTE_S, route)
        self._found.move_to_end(key)
        if len(self._found) > ROUTES_MAX:
            self._found.popitem(last=False)
        return self._waiting.pop(key)
