"""A condition read as a tree means what the engine says that it means."""

import pytest
from hypothesis import given, settings
from tests.effort import THOROUGH
from tests.policy.conditions import conditions, some_facts

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.tree import (
    Call,
    Const,
    Items,
    Loop,
    Name,
    Node,
    Unread,
    names,
    put,
    read,
    walk,
)
from postweir.policy.worker import Engine


def written(node: Node) -> str:
    """Return a tree as a condition, with brackets around everything."""
    if isinstance(node, Const):
        if isinstance(node.value, str):
            return '"' + node.value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return str(node.value).lower() if isinstance(node.value, bool) else f"({node.value})"
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Items):
        return f"[{', '.join(map(written, node.args))}]"
    if isinstance(node, Loop):
        return f"{written(node.over)}.{node.kind}({node.item}, {written(node.body)})"
    args = [written(arg) for arg in node.args]
    if node.op == "?:":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    if node.op in ("!", "neg"):
        return f"({'!' if node.op == '!' else '-'}{args[0]})"
    if node.op in ("startsWith", "endsWith", "contains"):
        return f"{args[0]}.{node.op}({args[1]})"
    if node.op in ("size", "double"):
        return f"{node.op}({args[0]})"
    return f"{args[0]}[{args[1]}]" if node.op == "[]" else f"({f' {node.op} '.join(args)})"


@settings(max_examples=500 if THOROUGH else 60, deadline=None)
@given(conditions, some_facts)
def test_what_is_read_is_what_is_meant(condition, facts):
    """Written out with all its brackets, a tree decides as the condition does."""
    tree = read(condition)
    again = written(tree)
    rules = (
        Rule("a", condition, "hold", mode="shadow"), Rule("b", again, "hold", mode="shadow"),
    )  # fmt: skip
    engine = Engine(Bundle(rules), "p")
    if engine.faults:
        return

    said = engine.evaluate(Evaluate(1, facts))
    assert read(again) == tree
    assert said.shadow in ([], ["a", "b"])


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a.b > 1 + 2 * 3",
         Call(">", (Name("a.b"), Call("+", (Const(1), Call("*", (Const(2), Const(3)))))))),
        ("!a.b && true && false",
         Call("&&", (Call("!", (Name("a.b"),)), Const(True), Const(False)))),
        ("a.b || a.c && a.d", Call("||", (Name("a.b"), Call("&&", (Name("a.c"), Name("a.d")))))),
        ("a.b - 1 - 2 == 0",
         Call("==", (Call("-", (Call("-", (Name("a.b"), Const(1))), Const(2))), Const(0)))),
        ("a.b.exists(x, x == 'q')",
         Loop("exists", Name("a.b"), "x", Call("==", (Name("x"), Const("q"))))),
        ("a.b[0] in ['x']",
         Call("in", (Call("[]", (Name("a.b"), Const(0))), Items((Const("x"),))))),
        ("-3 < .5e1 // why", Call("<", (Const(-3), Const(5.0)))),
        (r"a.b == '\x41\u00e9\101\n' ", Call("==", (Name("a.b"), Const("AéA\n")))),
        (r"""a.b == r'\d' || a.b == '''it's''' """,
         Call("||", (Call("==", (Name("a.b"), Const("\\d"))),
                     Call("==", (Name("a.b"), Const("it's")))))),
        ("a.b == 0x1F", Call("==", (Name("a.b"), Const(31)))),
    ],
)  # fmt: skip
def test_how_conditions_are_read(text, tree):
    """Operators bind as in C, texts have their escapes."""
    assert read(text) == tree


@pytest.mark.parametrize(
    "text",
    ["", "a.b >", "(a.b", "a.b)", "'open", "a.b == 1u", "a.b @ 3", "{'a': 1}", "null == a.b",
     "'\\q' == a.b", "(" * 5000 + "true",
     "!" * 800 + "true", "1" + " + 1" * 1900 + " > 0", "a.b" + "[0]" * 1300 + " == 'x'"],
)  # fmt: skip
def test_what_is_not_read(text):
    """Anything else is said to be unread: no crash, no guess."""
    with pytest.raises(Unread):
        read(text)


def test_a_loop_has_names_of_its_own():
    """What a loop calls its item is no fact, and is not replaced from outside."""
    tree = read("x.y.exists(d, d == z.w) && size(x.y) > 3")

    assert names(tree) == {"x.y", "z.w"}
    assert put(tree, Name("d"), Const("q")) == tree
    assert Const("q") in walk(put(tree, Name("z.w"), Const("q")))
