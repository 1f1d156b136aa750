"""No condition that is taken can fail on any facts, and what can fail is refused with a remedy."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.facts import NUMBER_MAX
from postweir.policy.risks import ranges_of
from postweir.policy.schema import Declared
from postweir.policy.worker import Engine


def engine(condition):
    return Engine(Bundle((Rule("r", condition, "hold"),)), "pol_x", {})


def many(conditions):
    rules = [Rule(f"r{n}", when, "hold", mode="shadow") for n, when in conditions.items()]
    return Engine(Bundle(tuple(rules)), "pol_x", {})


BY_ZERO = "a division that may be by zero is not taken: ask first, as in body.bytes != 0 && ..."
TOO_LARGE = "a number that may pass 64 bits is not taken: write double(...) of each"


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("1 / body.bytes > 0", BY_ZERO),
        ("body.bytes % body.bytes == 1", BY_ZERO),
        ("body.bytes > 0 || 1 / body.bytes > 0", BY_ZERO),
        ("body.bytes > 0 ? body.known : 1 / body.bytes > 0", BY_ZERO),
        ("1 / body.bytes > 0 && body.bytes > 0", BY_ZERO),
        ("body.bytes > -1 && 1 / body.bytes > 0", BY_ZERO),
        ("(body.bytes > 0 || body.known) && 1 / body.bytes > 0", BY_ZERO),
        ("body.parts > 0 && 1 / body.bytes > 0", BY_ZERO),
        ("1 / size(body.anomalies) > 0", "a division that may be by zero"),
        ("body.bytes / 0 > 3", "a division that may be by zero"),
        ("[0, 2].all(a, body.bytes / a > 0)", "as in a != 0"),
        ("body.bytes * body.parts > 3", TOO_LARGE),
        ("9223372036854775807 + body.bytes > 0", TOO_LARGE),
        ("-9223372036854775807 - body.bytes > 0", TOO_LARGE),
        ("-(-9223372036854775807 - 1) > 0", TOO_LARGE),
        ("body.anomalies[0] == 'cut'", "an item by its number is not taken"),
        ("1u - 2u == 3u", "- is not taken here"),
    ],
)
def test_what_could_fail_is_refused(condition, what):
    """CEL would hide some of these errors, and take others for a match of none."""
    (fault,) = engine(condition).faults

    assert fault.what.startswith(what) or what in fault.what


@pytest.mark.parametrize(
    "condition",
    [
        "body.bytes != 0 && 1 / body.bytes > 0",
        "body.known && body.bytes >= 1 && body.parts > 1 && body.parts / body.bytes > 2",
        "body.bytes == 0 || 7 % body.bytes > 2",
        "0 < body.bytes ? 1 / body.bytes > 0 : false",
        "!(body.bytes > 0) || 1 / body.bytes > 0",
        "body.bytes > 0 && body.anomalies.exists(a, 7 / body.bytes > 1)",
        "[1, 2].all(a, body.bytes / a > 0)",
        "body.bytes / 1024 > 3 && body.bytes * 1000 > 7 && -body.bytes < 3",
        "double(body.bytes) / double(body.parts) > 2.0",
        "double(body.bytes) * double(usage.bytes_1d) > 3.0",
        "usage.messages_1h - usage.messages_1d > 3",
        "body.anomalies.exists_one(a, a == 'x')",
    ],
)
def test_what_cannot_fail_is_taken(condition):
    """A guard, a bound or a fraction is enough."""
    assert engine(condition).faults == []


NAMES = ("body.bytes", "body.parts")
EDGES = [-1, 0, 1, 2, NUMBER_MAX, -NUMBER_MAX]

# Sums and products of these stand on both sides of 64 bits.
LEAVES = (*NAMES, "1023", "1024", "-1025", "0", str(2**62), str(-(2**62)))
ARITHMETIC = [
    shape.format(f"{one} {sign} {other}") + " > 3"
    for one, sign, other in itertools.product(LEAVES, "+-*", LEAVES)
    for shape in ("{}", "-({})", "({}) / (-1)", "({}) - body.parts * 1023")
]


def test_no_arithmetic_that_is_taken_passes_64_bits():
    """Every sum, difference and product of edges: those that are taken have an answer."""
    refused = {fault.rule for fault in many(dict(enumerate(ARITHMETIC))).faults}
    taken = {n: each for n, each in enumerate(ARITHMETIC) if f"r{n}" not in refused}
    made = many(taken)

    assert made.faults == []
    assert 200 < len(taken) < len(ARITHMETIC) - 200
    for bytes_, parts in itertools.product(EDGES[-2:], EDGES[-2:]):
        facts = {"body.bytes": bytes_, "body.parts": parts}
        assert made.evaluate(Evaluate(1, facts)).errors == [], facts


GUARDS = st.recursive(
    st.one_of(
        st.builds("body.bytes {} {}".format, st.sampled_from(["==", "!=", "<", ">", "<=", ">="]),
                  st.sampled_from([-1, 0, 1])),
        st.builds("{} {} body.bytes".format, st.sampled_from([-1, 0, 1]),
                  st.sampled_from(["==", "!=", "<", ">", "<=", ">="])),
        st.sampled_from(["body.known", "body.parts > 0"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=3,
)  # fmt: skip
DIVISIONS = st.sampled_from(["7 / body.bytes > 2", "7 % body.bytes == 1"])
GUARDED = st.one_of(
    st.builds("{} && {}".format, GUARDS, DIVISIONS),
    st.builds("{} || {}".format, GUARDS, DIVISIONS),
    st.builds("{} ? {} : body.known".format, GUARDS, DIVISIONS),
    st.builds("{} ? body.known : {}".format, GUARDS, DIVISIONS),
)


@given(GUARDED)
def test_a_division_that_is_taken_has_an_answer(condition):
    """Whatever guards it, no facts within their bounds make it an error."""
    made = engine(condition)
    if made.faults:
        return
    for bytes_, parts, known in itertools.product(EDGES, EDGES, (True, False)):
        facts = {"body.bytes": bytes_, "body.parts": parts, "body.known": known}
        assert made.evaluate(Evaluate(1, facts)).errors == [], facts


def test_a_policys_own_limits_are_what_they_are():
    """A limit is a number like one that is written down: small ones multiply, large ones do not."""
    with_limits = Bundle(
        tuple(
            Rule(f"r{n}", when, "hold", mode="shadow")
            for n, when in enumerate([
                "usage.messages_1h > history.peak_messages_1h * limit.four",
                "usage.messages_1h > history.peak_messages_1h * limit.large",
                "body.bytes / limit.four > 3 && body.bytes % limit.minus < 2",
                "body.bytes / limit.zero > 3",
                "limit.sender_messages_1h * limit.four > body.bytes",
                "limit.sender_messages_1h * body.bytes > 3",
                "limit.large * limit.minus < body.bytes - limit.four",
            ])
        ),
        limits={"four": 4, "large": 2**11, "minus": -3, "zero": 0},
    )  # fmt: skip
    refused = {fault.rule for fault in Engine(with_limits, "pol_x", {}).faults}

    assert refused == {"r1", "r3", "r5"}


def test_a_fact_with_a_smaller_bound_has_a_smaller_range():
    """A day has 24 hours; what is not whole has no range, and a limit is exactly itself."""
    hours = Declared("x.hours", "int", 0, "", "hours", 24)
    share = Declared("x.share", "double", 0.0, "", "", 1)

    assert ranges_of([hours, share], {"a": 7}) == {"x.hours": (-24, 24), "limit.a": (7, 7)}
