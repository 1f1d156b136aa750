"""What one policy has otherwise than another: rules, sets, patterns, throttles and limits."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from postweir.policy.bundle import Bundle, Rule
from postweir.runtime.frames import Struct, Value

KEYS_SHOWN_MAX = 20  # of a set, added and removed


class Change(Struct, frozen=True):
    """One key of a rule or table, and how it was."""

    key: str
    before: str
    after: str


class Changed(Struct, frozen=True):
    """One rule, set, pattern, throttle or limit that is not as it was."""

    kind: str  # rule, set, pattern, throttle, limit
    id: str
    what: str  # added, removed, changed, moved
    changes: list[Change] = []
    place: int = 0  # of a rule, from 1: where it is, or was
    place_before: int = 0
    keys_added: int = 0  # of a set
    keys_removed: int = 0
    added: list[str] = []  # some of them
    removed: list[str] = []


def compare(
    before: Bundle, after: Bundle, sets_before: Mapping[str, bytes], sets_after: Mapping[str, bytes]
) -> list[Changed]:
    """Return all that is otherwise, rules first, in the order in which they are looked at."""
    found = [*_rules(before.rules, after.rules)]
    found += _tables("set", before.sets, after.sets)
    for n, one in enumerate(found):
        if one.kind == "set":
            found[n] = _with_keys(one, before, after, sets_before, sets_after)
    found += _tables("pattern", before.patterns, after.patterns)
    found += _tables("throttle", before.throttles, after.throttles)
    for name in sorted({*before.limits, *after.limits}):
        old, new = before.limits.get(name), after.limits.get(name)
        if old != new:
            change = Change("value", _said(old), _said(new))
            found.append(Changed("limit", name, _what(old, new), [change]))
    return found


def _rules(before: Sequence[Rule], after: Sequence[Rule]) -> list[Changed]:
    old = {rule.id: (place, rule) for place, rule in enumerate(before, 1)}
    new = {rule.id: (place, rule) for place, rule in enumerate(after, 1)}
    stay = _in_order([name for name in new if name in old], {n: p for n, (p, _) in old.items()})
    found = []
    for name, (place, rule) in new.items():
        if name not in old:
            found.append(Changed("rule", name, "added", _changes(None, rule), place=place))
            continue
        place_before, rule_before = old[name]
        changes = _changes(rule_before, rule)
        if changes or name not in stay:
            what = "changed" if changes else "moved"
            was = 0 if name in stay else place_before
            found.append(Changed("rule", name, what, changes, place=place, place_before=was))
    for name, (place, rule) in old.items():
        if name not in new:
            found.append(Changed("rule", name, "removed", _changes(rule, None), place=place))
    return found


def _in_order(names: Sequence[str], place: Mapping[str, int]) -> set[str]:
    """Return the most rules that stand in the same order as before: the others were moved."""
    best: list[list[str]] = []  # by length, the sequence of that length that ends earliest
    for name in names:
        at = next((n for n, one in enumerate(best) if place[one[-1]] >= place[name]), len(best))
        longer = [*(best[at - 1] if at else []), name]
        best[at : at + 1] = [longer]
    assert all(len(a) < len(b) for a, b in pairwise(best))
    return set(best[-1]) if best else set()


def _tables(kind: str, before: Iterable[Value], after: Iterable[Value]) -> list[Changed]:
    old = {_id(one): one for one in before}
    new = {_id(one): one for one in after}
    return [
        Changed(kind, name, _what(old.get(name), new.get(name)), changes)
        for name in {**old, **new}
        if (changes := _changes(old.get(name), new.get(name)))
    ]


def _with_keys(
    one: Changed, before: Bundle, after: Bundle, sets_before: Mapping[str, bytes],
    sets_after: Mapping[str, bytes],
) -> Changed:  # fmt: skip
    """Return a change of a set with the keys that came and went."""
    old, new = (
        {
            line
            for each in bundle.sets
            if each.id == one.id
            for line in sets.get(each.hash, b"").decode("utf-8", "replace").splitlines()
        }
        for bundle, sets in ((before, sets_before), (after, sets_after))
    )
    came, went = sorted(new - old), sorted(old - new)
    return Changed(
        one.kind, one.id, one.what, [c for c in one.changes if c.key != "hash"],
        keys_added=len(came), keys_removed=len(went), added=came[:KEYS_SHOWN_MAX],
        removed=went[:KEYS_SHOWN_MAX],
    )  # fmt: skip


def _changes(before: Value | None, after: Value | None) -> list[Change]:
    """Return the keys in which two values differ; of one alone, those that say something."""
    one = after if after is not None else before
    assert one is not None
    defaults = dict(zip(reversed(one.__struct_fields__), reversed(one.__struct_defaults__),
                        strict=False))  # fmt: skip
    found = []
    for key in one.__struct_fields__:
        old = defaults.get(key) if before is None else getattr(before, key)
        new = defaults.get(key) if after is None else getattr(after, key)
        if old != new and key != "id":
            found.append(Change(key, _said(old), _said(new)))
    return found


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} tests" if value else ""
    return "" if value is None else str(value)


def _what(before: object, after: object) -> str:
    return "added" if before is None else "removed" if after is None else "changed"


def _id(one: Value) -> str:
    return str(getattr(one, "id"))  # noqa: B009 all tables have one
