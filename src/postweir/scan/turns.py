"""Whose message a thread looks at next: nobody has more than half of them, whoever else waits.

A thread that is late cannot be stopped. So one account whose messages are slow to read may hold
two threads of four, for as long as that takes, and the others go on with the rest.
"""

import asyncio
from collections import Counter


class Turns:
    """As many turns at once as there are threads."""

    def __init__(self, threads: int) -> None:
        self._free, self._share = threads, max(1, threads // 2)
        self._held: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}  # in order; who gave up is gone

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def take(self, key: str, wait_s: float) -> bool:
        """Wait for a turn; False when none came in time. Each one taken is given back."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = key
        self._hand_out()
        if turn.done():
            return True
        try:
            await asyncio.wait([turn], timeout=wait_s)
        except asyncio.CancelledError:
            self._leave(turn, key)
            raise
        if turn.done():
            return True
        self._leave(turn, key)
        return False

    def give_back(self, key: str) -> None:
        """End a turn; the first whose share allows it is next."""
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._hand_out()

    def _leave(self, turn: "asyncio.Future[None]", key: str) -> None:
        if self._waiting.pop(turn, None) is None:
            self.give_back(key)

    def _hand_out(self) -> None:
        if not self._free or not self._waiting:
            return
        for turn, key in list(self._waiting.items()):
            if self._held[key] < self._share:
                self._free -= 1
                self._held[key] += 1
                del self._waiting[turn]
                turn.set_result(None)
                if not self._free:
                    return
