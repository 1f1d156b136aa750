"""What a policy's own sets and patterns say of one message: the facts that only its rules have."""

from collections.abc import Iterator, Mapping

from postweir.policy.bundle import Bundle, set_name
from postweir.policy.evaluation import Evaluate, RuleFault
from postweir.policy.facts import Facts
from postweir.scan.patterns import Unusable, Written

KEY_BYTES = 192  # of memory that a key of a set takes, with its share of what finds it
FILE_COPIES = 4  # of a set's bytes while they are read
MEMORY_BYTES_MAX = 2 * 1024 * 1024 * 1024  # for all sets: 64 MiB of ordinary keys take half of it


class Matching:
    """The sets and patterns of one bundle, ready to look things up in."""

    def __init__(self, bundle: Bundle, sets: Mapping[str, bytes]) -> None:
        self.faults: list[RuleFault] = []
        self._sets = list(self._looked_into(bundle, sets))
        self._patterns = list(self._compiled(bundle))

    def derive(self, ask: Evaluate) -> Facts:
        """Return those that are true of a message, but for what is said of them already."""
        true: Facts = {}
        for name, of, keys in self._sets:
            if name not in ask.facts and not keys.isdisjoint(ask.keys.get(of, ())):
                true[name] = True
        for name, of, pattern in self._patterns:
            text = ask.texts.get(of)
            if text is not None and name not in ask.facts and pattern.found(text):
                true[name] = True
        return true

    def _looked_into(
        self, bundle: Bundle, sets: Mapping[str, bytes]
    ) -> Iterator[tuple[str, str, frozenset[str]]]:
        for one in bundle.sets:
            data = sets.get(one.hash)
            if data is None or set_name(data) != one.hash:
                what = "its keys did not come" if data is None else "its keys are damaged"
                self.faults.append(RuleFault("", 1, 1, f"set {one.id}: {what}"))
                continue
            lines = data.decode("utf-8", "replace").removesuffix("\n")
            yield f"set.{one.id}", one.of, frozenset(lines.split("\n") if lines else ())

    def _compiled(self, bundle: Bundle) -> Iterator[tuple[str, str, Written]]:
        for one in bundle.patterns:
            try:
                yield f"pattern.{one.id}", one.of, Written(one.pattern)
            except Unusable as fault:
                self.faults.append(RuleFault("", 1, 1, f"pattern {one.id}: {fault}"))


def memory_bytes(bundle: Bundle, sets: Mapping[str, bytes]) -> int:
    """Return how much memory the sets of a bundle may take, in bytes."""
    need = KEY_BYTES * sum(one.size for one in bundle.sets)
    need += FILE_COPIES * sum(map(len, sets.values()))
    return min(need, MEMORY_BYTES_MAX)
