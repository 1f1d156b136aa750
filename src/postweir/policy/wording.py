"""A condition's tree as text again, so that a part of it can be shown, and asked by itself."""

from postweir.policy.tree import Call, Const, Items, Loop, Name, Node, Unread, read

_LOOSE_TO_TIGHT = (
    ("?:",), ("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"),
    ("*", "/", "%"), ("!", "neg"),
)  # fmt: skip
_LEVEL = {op: level for level, ops in enumerate(_LOOSE_TO_TIGHT) for op in ops}
_TIGHTEST = len(_LOOSE_TO_TIGHT)
_METHODS = ("contains", "startsWith", "endsWith")
PARTS_MAX = 20  # of one condition; a worker names as many shadow rules


def parts(condition: str) -> tuple[str, list[str]]:
    """Return how a condition is joined, `&&` or `||`, and what of; "": it is one part."""
    try:
        tree = read(condition)
    except Unread:
        return "", [condition]
    if isinstance(tree, Call) and tree.op in ("&&", "||") and len(tree.args) <= PARTS_MAX:
        return tree.op, [said(arg) for arg in tree.args]
    return "", [condition]


def said(node: Node, level: int = 0) -> str:
    """Return the text of a node, in brackets where it binds more loosely than `level`."""
    match node:
        case Const(value):
            return _constant(value)
        case Name(name):
            return name
        case Items(args):
            return f"[{', '.join(map(said, args))}]"
        case Loop(kind, over, item, body):
            return f"{said(over, _TIGHTEST)}.{kind}({item}, {said(body)})"
        case Call(op, args) if op in _LEVEL:
            text = _operated(op, args, _LEVEL[op])
            return f"({text})" if _LEVEL[op] < level else text
        case Call("[]", (inner, at)):
            return f"{said(inner, _TIGHTEST)}[{said(at)}]"
        case Call(op, (first, *rest)) if op in _METHODS:
            return f"{said(first, _TIGHTEST)}.{op}({', '.join(map(said, rest))})"
        case Call(op, args):
            return f"{op}({', '.join(map(said, args))})"


def _operated(op: str, args: tuple[Node, ...], level: int) -> str:
    if op in ("!", "neg"):
        return ("!" if op == "!" else "-") + said(args[0], level)
    if op == "?:":
        yes, no = said(args[1], level + 1), said(args[2], level)
        return f"{said(args[0], level + 1)} ? {yes} : {no}"
    left, *rest = args
    return f" {op} ".join([said(left, level), *(said(arg, level + 1) for arg in rest)])


def _constant(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        inner = value.replace("\\", "\\\\").replace('"', '\\"')
        shown = (c if c.isprintable() else f"\\U{ord(c):08x}" for c in inner)
        return f'"{"".join(shown)}"'
    return repr(value)
