"""Messages on their way in: as many as are answered in good time, and a short, fair queue.

A place is held from our 354 to our answer. While there are places anyone may have as many as they
can use; once there are none, the next that comes free goes to the account that holds fewest. So a
flood waits behind itself, and who sends little is served next. Nobody waits longer than WAIT_S: a
later answer would be a slow one, which is worse than a no.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from postweir.edge.share import Tally

WAIT_S = 0.1  # so much a reply may be late for the sake of the others (design.md, promise 2)
SLOW_S = 0.75  # beside the judge's time; a shard begins nothing after twice this (`intake`)
PLACES_MIN = 50  # so that what was slow once can be seen to be quick again
LATELY = 0.25  # the weight of the last look in the rate: about a second counts


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Do not call."""
        ...


class Waiting:
    """One who waits for a place; hears True once it has one, or False when it will have none."""

    __slots__ = ("account", "answer", "timer")

    def __init__(self, account: str, answer: Callable[[bool], None]) -> None:
        self.account, self.answer = account, answer
        self.timer: Timer | None = None


class Flights:
    """The places of one worker, who holds them, and who waits."""

    def __init__(
        self,
        places: Callable[[], int],
        later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._places, self._later = places, later
        self.held = Tally()
        self.waiting = Tally()
        self._queues: dict[str, deque[Waiting]] = {}  # in turn: who was served goes to the end
        self._passing_on = False

    def take(self, account: str) -> bool:
        """Take a place, if one is free now."""
        if self.held.total >= self._places():
            return False
        self.held.enter(account)
        return True

    def take_again(self, account: str) -> bool:
        """Take a place back, for one who had stepped aside; False when far too many came back."""
        if self.held.total >= 2 * self._places():
            return False
        self.held.enter(account)
        return True

    def leave(self, account: str) -> None:
        """Give a place back; who waits and holds fewest has it next."""
        self.held.leave(account)
        if self._passing_on:
            return  # who was just given one gave it back at once: the loop below goes on
        self._passing_on = True
        try:
            while self._queues and self.held.total < self._places():
                self._pass_on()
        finally:
            self._passing_on = False

    def wait(self, account: str, answer: Callable[[bool], None]) -> Waiting | None:
        """Wait for a place; None when more wait than can be served, and this account has its part.

        In a full queue the account that waits most makes room: its last hears no at once.
        """
        if self.waiting.total >= self._places():
            if self.waiting.of(account) + 1 >= self.waiting.most:
                return None
            self._refuse(self._queues[self.waiting.largest()][-1])
        waiting = Waiting(account, answer)
        self._queues.setdefault(account, deque()).append(waiting)
        self.waiting.enter(account)
        waiting.timer = self._later(WAIT_S, lambda: self._refuse(waiting))
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """It is gone, and hears nothing."""
        if waiting.timer is None:
            return
        waiting.timer.cancel()
        waiting.timer = None
        queue = self._queues[waiting.account]
        queue.remove(waiting)
        if not queue:
            del self._queues[waiting.account]
        self.waiting.leave(waiting.account)

    def _refuse(self, waiting: Waiting) -> None:
        self.forget(waiting)
        waiting.answer(False)

    def _pass_on(self) -> None:
        account = min(self._queues, key=self.held.of)  # of equals, who waits longest for a turn
        waiting = self._queues[account][0]
        self.forget(waiting)
        if account in self._queues:
            self._queues[account] = self._queues.pop(account)
        self.held.enter(account)
        waiting.answer(True)


class Pace:
    """How many places there are; told of each answer, and asked four times a second to look back.

    A message that is answered too late has cost all that one in time costs, and a shard does not
    begin what it gets too late: so when answers become slow there are fewer places, and more hear
    no before their first byte. By Little's law what is in flight, over what is answered in a
    second, is how long an answer takes.
    """

    __slots__ = ("_answered", "_rate", "_took_s", "places")

    def __init__(self, most: int) -> None:
        self.places = most
        self._answered, self._took_s, self._rate = 0, 0.0, 0.0

    def answered(self, took_s: float) -> None:
        """One message was answered, so long after its dot."""
        self._answered += 1
        self._took_s += took_s

    def look(self, most: int, *, since_s: float, judge_s: float) -> None:
        """Look back at the time since the last look; there are `most` places at best."""
        answered, took_s = self._answered, self._took_s
        self._answered, self._took_s = 0, 0.0
        self._rate += LATELY * (answered / max(since_s, 0.001) - self._rate)
        slow_s = SLOW_S + judge_s
        if answered and took_s / answered > slow_s:
            self.places = max(min(int(self._rate * slow_s), self.places), PLACES_MIN)
        else:
            self.places += self.places // 8 + 1
        self.places = min(self.places, most)
