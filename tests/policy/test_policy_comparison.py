"""What one policy has otherwise than another, told by what a person would have edited."""

from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Bundle, Pattern, Rule, Set, Throttle, set_bytes, set_name
from postweir.policy.comparison import compare


def rules(ids, **more):
    return tuple(Rule(id, f"urls.count > {ord(id)}", "refuse", "CS", "No.", **more) for id in ids)


def diff(before, after, sets_before=None, sets_after=None):
    return compare(before, after, sets_before or {}, sets_after or {})


def test_a_rule_that_was_moved_is_one_change():
    """And those that it passed stand where they were."""
    found = diff(Bundle(rules("abcde")), Bundle(rules("bcdae")))

    assert [(c.what, c.id, c.place_before, c.place) for c in found] == [("moved", "a", 1, 4)]


def test_rules_added_removed_and_changed():
    """With each key, how it was and how it is."""
    after = (*rules("a", mode="shadow"), *rules("c"))
    found = diff(Bundle(rules("ab")), Bundle(after))

    assert [(c.what, c.id) for c in found] == [("changed", "a"), ("added", "c"), ("removed", "b")]
    assert [(c.key, c.before, c.after) for c in found[0].changes] == [("mode", "enforce", "shadow")]
    assert {c.key for c in found[1].changes} == {"when", "verb", "code", "text"}


def test_a_set_is_told_by_its_keys():
    """How many came and went, and some of them; not by a hash."""
    before, after = (
        set_bytes(frozenset(keys)) for keys in (["a", "b"], ["b", *map(str, range(30))])
    )
    sides = [Bundle((), sets=(Set("s", "client", set_name(data), data.count(b"\n")),))
             for data in (before, after)]  # fmt: skip
    (found,) = diff(*sides, {set_name(before): before}, {set_name(after): after})

    assert (found.keys_added, found.keys_removed, found.removed) == (30, 1, ["a"])
    assert len(found.added) == 20
    assert [(c.key, c.before, c.after) for c in found.changes] == [("size", "2", "31")]


def test_patterns_throttles_and_limits():
    """All that a policy is made of."""
    before = Bundle((), patterns=(Pattern("p", "text", "x"),), limits={"n": 3, "gone": 1})
    after = Bundle((), patterns=(Pattern("p", "text", "y"),), limits={"n": 4},
                   throttles=(Throttle("t", "sender", "messages", 1, 60, 5),))  # fmt: skip

    assert [(c.kind, c.id, c.what) for c in diff(before, after)] == [
        ("pattern", "p", "changed"), ("throttle", "t", "added"), ("limit", "gone", "removed"),
        ("limit", "n", "changed"),
    ]  # fmt: skip


@given(st.permutations("abcdefg"), st.permutations("abcdefg"))
def test_a_policy_is_the_same_only_as_itself(one, other):
    """Any other order is told, with the fewest rules moved."""
    found = diff(Bundle(rules(one)), Bundle(rules(other)))

    assert (found == []) == (one == other)
    stay = [id for id in other if id not in {c.id for c in found}]
    assert stay == [id for id in one if id in stay]
