"""What waits to be judged, an account at a time: who sends a flood waits behind itself."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Fair(Generic[T]):
    """First in, first out for each key, and the keys in turn."""

    def __init__(self, each_max: int) -> None:
        self._each_max = each_max
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def push(self, key: str, item: T) -> bool:
        """Have it wait; False when too much of this key waits already."""
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= self._each_max:
            return False
        queue.append(item)
        return True

    def pop(self) -> T:
        """Return what is next; there must be something."""
        key, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        if queue:
            self._queues.move_to_end(key)
        else:
            del self._queues[key]
        return item
