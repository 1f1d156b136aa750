"""A policy's throttles over mail of the past: from empty, and nothing of the present is touched.

The same GCRA as the judge's (`judge.throttles`; a test holds them together), without what gives
tokens back: here a guess of what was taken is tried, and taken for good when it proves right.
"""

from collections.abc import Mapping, Sequence

from postweir.policy.bundle import Bundle, Throttle
from postweir.policy.facts import NUMBER_MAX, Facts
from postweir.policy.verdict import Fact

KEYS_MAX = 200_000  # of all throttles: some 40 MB; those with a full bucket go first

_KEYED_BY: Mapping[str, str] = {
    "sender": "sender.key", "account": "account.name", "from_domain": "header.from_domain",
    "client": "connection.client", "recipient_domain": "envelope.recipient_domains",
}  # fmt: skip
_COSTS: Mapping[str, str] = {"recipients": "envelope.recipients", "bytes": "body.bytes"}
_Key = tuple[str, str]

# Of a message: its time in microseconds, how many it stands for, and its facts.
Mail = tuple[int, int, Facts]


class Simulation:
    """All throttles of one policy."""

    def __init__(self, bundle: Bundle) -> None:
        self.throttles = bundle.throttles
        self._full_at: dict[_Key, int] = {}  # when a bucket is full again, microseconds times rate

    def levels(self, mail: Sequence[Mail], taken: Sequence[bool]) -> list[Facts]:
        """Return `throttle.ID` for each of these, in order of time, if those were `taken`."""
        return self._through(mail, taken, {})

    def take(self, mail: Sequence[Mail], taken: Sequence[bool]) -> None:
        """Take the tokens of those that were `taken`."""
        here: dict[_Key, int] = {}
        self._through(mail, taken, here)
        self._full_at |= here
        if len(self._full_at) > KEYS_MAX and mail:
            self._forget(mail[-1][0])

    def _through(
        self, mail: Sequence[Mail], taken: Sequence[bool], here: dict[_Key, int]
    ) -> list[Facts]:
        found = []
        for (at_us, stands_for, facts), took in zip(mail, taken, strict=True):
            levels: Facts = {}
            for throttle in self.throttles:
                now, unit = at_us * throttle.rate, throttle.per_s * 1_000_000
                wait = 0
                for key, cost in costs(throttle, facts).items():
                    place = (throttle.id, key)
                    full_at = max(here.get(place, self._full_at.get(place, 0)), now)
                    room = (throttle.burst - min(cost, throttle.burst)) * unit
                    wait = max(wait, full_at - now - room)
                    if took:
                        # What was not kept took its tokens too, but never more than there are.
                        most = max(cost, throttle.burst)
                        here[place] = full_at + min(cost * stands_for, most) * unit
                levels[f"throttle.{throttle.id}"] = min(
                    -(-wait // (1_000_000 * throttle.rate)), NUMBER_MAX
                )
            found.append(levels)
        return found

    def _forget(self, now_us: int) -> None:
        rates = {throttle.id: throttle.rate for throttle in self.throttles}
        left = {key: at // rates[key[0]] for key, at in self._full_at.items()}
        last = sorted((at, key) for key, at in left.items() if at > now_us)[-KEYS_MAX // 2 :]
        self._full_at = {key: self._full_at[key] for _, key in last}


def costs(throttle: Throttle, facts: Mapping[str, Fact]) -> dict[str, int]:
    """Return what a message costs each key, as far as its facts still say."""
    value = facts.get(_KEYED_BY[throttle.key], "")
    keys = [key for key in (value if isinstance(value, list) else [value]) if isinstance(key, str)]
    cost = facts.get(_COSTS.get(throttle.of, ""), 1)
    cost = cost if type(cost) is int else 1
    if throttle.of == "recipients" and len(keys) > 1:
        cost = -(-cost // len(keys))  # how many are in which domain is not kept
    return {key: max(cost, 1) for key in keys if key}
