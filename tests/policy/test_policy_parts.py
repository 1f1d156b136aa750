"""A condition's parts are those that `&&` and `||` join, and no text or bracket is cut."""

import pytest

from postweir.policy.parts import parts


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("body.known", ["body.known"]),
        ("a.b && !c.d || e.f > 3", ["a.b", "!c.d", "e.f > 3"]),
        ("(a.b && (c.d || e.f))", ["a.b", "c.d", "e.f"]),
        ("(a.b) && (c.d)", ["a.b", "c.d"]),
        ("!(a.b && c.d) && e.f", ["!(a.b && c.d)", "e.f"]),
        ('a.b == \' && \' && c.d == "\\" || "', ["a.b == ' && '", 'c.d == "\\" || "']),
        ("x.exists(d, d == 'a' || d == 'b') && y", ["x.exists(d, d == 'a' || d == 'b')", "y"]),
        ("a.b ? c.d && e.f : g.h", ["a.b ? c.d && e.f : g.h"]),
        ("a.b == '''it's && so''' && c.d", ["a.b == '''it's && so'''", "c.d"]),
        ("a &&\n  b", ["a", "b"]),
        ("((", ["(("]),
        ("", [""]),
        (" || ".join(["a"] * 100), [" || ".join(["a"] * 100)]),
    ],
)
def test_parts(condition, found):
    """In order, without the brackets around them."""
    assert parts(condition) == found
