"""A rule that another one always decides before it is told, and no rule is told wrongly."""

import itertools
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.order import unreached, used


def rules(*conditions, modes=()):
    return [
        Rule(f"r{n}", when, "hold", mode=mode)
        for n, (when, mode) in enumerate(
            itertools.zip_longest(conditions, modes, fillvalue="enforce")
        )
    ]


def told(*conditions, modes=()):
    return [(one.rule, one.what, one.do) for one in unreached(rules(*conditions, modes=modes))]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("body.known", "body.known && text.html"),
        ("body.known && text.html", "text.html && connection.tls && body.known"),
        ("body.parts > 100", "body.parts > 1000"),
        ("body.parts > 100", "body.parts >= 101 && body.known"),
        ("body.parts >= 100", "101 <= body.parts"),
        ("body.parts > 100", "body.parts == 200"),
        ("body.parts != 0", "body.parts > 0"),
        ("findings.spam > 0.5", "findings.spam >= 0.9"),
        ("body.known || text.html", "text.html"),
        ("body.known || text.html", "(text.html && connection.tls) || body.known"),
        ("body.known && (text.html || connection.tls)", "connection.tls && body.known"),
        ("true", "body.known"),
        ("body.known || true", "text.html"),
        ("'a' in urls.hosts", "'a' in  urls.hosts && body.known"),
    ],
)
def test_a_rule_that_is_never_reached(first, second):
    """The later one says only more than the earlier one; turned round, both have work."""
    ((place, what, _),) = told(first, second)

    assert place == 1
    assert what.startswith("is never reached: ")
    assert "r0" in what
    assert told(first, second, modes=("shadow",)) == []
    assert told(first, second, modes=("off",)) == []
    assert told(first, second, modes=("enforce", "off")) == []
    if first != "true" and "true" not in first:
        assert told(second, first) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("body.known && text.html", "body.known"),
        ("body.parts > 1000", "body.parts > 100"),
        ("body.parts > 100", "body.bytes > 1000"),
        ("body.parts > 100", "body.parts < 1000"),
        ("body.parts > 100", "body.parts >= 100"),
        ("body.parts == 100", "body.parts >= 100"),
        ("body.parts > 100", "body.parts != 100"),
        ("body.parts != 1", "body.parts != 0"),
        ("body.known", "!body.known"),
        ("body.known ? text.html : connection.tls", "body.known && text.html"),
        ("size(urls.hosts) > 1", "size(body.anomalies) > 2"),
        ("no condition (", "no condition ("),
        ("urls.hosts.exists(h, h == 'a')", "urls.hosts.exists(h, h == 'b')"),
    ],
)
def test_a_rule_with_work_of_its_own(first, second):
    """Nothing is said where the later one may be true alone."""
    assert told(first, second) == []


COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
           "==": operator.eq, "!=": operator.ne}  # fmt: skip


def test_every_pair_of_bounds():
    """One says more than the other when no number shows that it does not, fractions too."""
    for (op, ask), (wanted, want) in itertools.product(COMPARE.items(), COMPARE.items()):
        for a, b in itertools.product(range(4), range(4)):
            follows = all(want(n / 2, b) for n in range(-9, 18) if ask(n / 2, a))
            found = told(f"findings.spam {wanted} {b}.0", f"findings.spam {op} {a}.0")
            assert bool(found) == follows, (op, a, wanted, b)


def test_what_to_do():
    """The same again, a stricter one behind, one that never is."""
    assert told("body.known", " body.known ")[0][1:] == (
        "is never reached: rule r0 has the same condition", "leave one of them out",
    )  # fmt: skip
    assert told("body.parts > 9", "body.parts > 99")[0][2] == "move it before r0"
    assert told("false") == [(0, "is never true", 'to switch a rule off, write mode = "off"')]


ATOMS = st.sampled_from(
    [f"a.n {op} {n}" for op in ("<", "<=", ">", ">=", "==", "!=") for n in range(4)]
    + [f"{n} {op} a.n" for op in ("<", ">=") for n in range(4)]
    + ["a.x", "!a.x", "a.y", "true"]
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner), st.builds("({} || {})".format, inner, inner)
    ),
    max_leaves=5,
)
FACTS = list(itertools.product((-1, 0, 1, 2, 3, 4), (False, True), (False, True)))


def holds(condition, facts):
    number, x, y = facts
    text = condition.replace("a.n", str(number)).replace("a.x", str(x)).replace("a.y", str(y))
    text = text.replace("true", "True").replace("!T", "not T").replace("!F", "not F")
    return eval(text.replace("&&", "and").replace("||", "or"))


@given(CONDITIONS, CONDITIONS)
def test_no_rule_is_told_wrongly(first, second):
    """Where a rule is said never to be reached, no facts make it true alone."""
    if told(first, second):
        assert not any(holds(second, facts) and not holds(first, facts) for facts in FACTS)


def test_what_rules_look_at():
    """Names of facts, not of a loop's items; nothing is said when one cannot be read."""
    bundle = Bundle(
        (Rule("a", "set.x && urls.hosts.exists(h, h == 'y')", "throttle", throttle="t"),)
    )

    assert used(bundle) == {"set.x", "urls.hosts", "throttle.t"}
    assert used(Bundle((Rule("a", "((", "hold"),))) is None
