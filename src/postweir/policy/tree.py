"""A condition as a tree, read from its text: what it asks of which facts.

The engine's parser is the authority on what a condition means; this one reads the part of CEL
that `dialect` lets through, so that facts can be looked for that make a condition true or false.
Whatever is found that way is then judged by the engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

DEPTH_MAX = 100  # of a tree: it is walked by calls in calls, and Python takes some hundreds
LOOPS = ("exists", "all", "exists_one", "existsOne")
_TIGHTER = (  # from loose to tight
    ("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip
_MANY = ("||", "&&")  # chains of these are one node
_SIGNS = ("&&", "||", "==", "!=", "<=", ">=", *"<>+-*/%!?:.,()[]{}")
_ESCAPES = dict(zip("abfnrtv\\'\"`?", "\a\b\f\n\r\t\v\\'\"`?", strict=True))
_HEX = {"x": 2, "X": 2, "u": 4, "U": 8}


class Unread(Exception):
    """The text is not of the part of CEL that is read here."""


@dataclass(frozen=True, slots=True)
class Const:
    """A written bool, number or text."""

    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Name:
    """A fact, or what a loop calls its item."""

    name: str


@dataclass(frozen=True, slots=True)
class Items:
    """A written list."""

    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function, by the sign or name it is written with; `-x` is `neg`."""

    op: str
    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """`over.exists(item, body)`, or `all`, or `exists_one`."""

    kind: str
    over: "Node"
    item: str
    body: "Node"


Node = Const | Name | Items | Call | Loop


def read(text: str) -> Node:
    """Return the tree of a condition. Raises `Unread`."""
    reader = _Reader(list(_tokens(text)))
    try:
        tree = reader.choice()
    except RecursionError:
        raise Unread("nested too deep") from None
    if reader.at < len(reader.tokens) - 1:
        raise Unread(f"what is {reader.tokens[reader.at].text!r}")
    if _too_deep(tree):
        raise Unread("nested too deep")
    return tree


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        yield here
        waiting += reversed(below(here))


def below(node: Node) -> tuple[Node, ...]:
    """Return what a node is made of."""
    if isinstance(node, Call | Items):
        return node.args
    return (node.over, node.body) if isinstance(node, Loop) else ()


def put(node: Node, old: Node, new: Node) -> Node:
    """Return the tree with `new` wherever it had `old`; a loop's own item is another's."""
    if node == old:
        return new
    if isinstance(node, Call | Items):
        args = tuple(put(arg, old, new) for arg in node.args)
        return node if args == node.args else replace(node, args=args)
    if isinstance(node, Loop):
        own = isinstance(old, Name) and old.name == node.item
        body = node.body if own else put(node.body, old, new)
        return replace(node, over=put(node.over, old, new), body=body)
    return node


def names(node: Node) -> set[str]:
    """Return the facts that a condition looks at."""
    if isinstance(node, Name):
        return {node.name}
    if isinstance(node, Loop):
        return names(node.over) | (names(node.body) - {node.item})
    return {name for arg in below(node) for name in names(arg)}


def _too_deep(tree: Node) -> bool:
    level: list[Node] = [tree]
    for _ in range(DEPTH_MAX):
        level = [arg for node in level for arg in below(node)]
        if not level:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # word, value, sign, end
    text: str
    value: bool | int | float | str = ""


class _Reader:
    """Reads one condition from the left."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.at = tokens, 0

    def choice(self) -> Node:
        condition = self._chain(0)
        if not self._took("?"):
            return condition
        yes = self._chain(0)
        self._need(":")
        return Call("?:", (condition, yes, self.choice()))

    def _chain(self, level: int) -> Node:
        if level == len(_TIGHTER):
            return self._unary()
        left = self._chain(level + 1)
        while (sign := self.tokens[self.at].text) in _TIGHTER[level] and self._is_sign():
            self.at += 1
            right = self._chain(level + 1)
            if sign in _MANY and isinstance(left, Call) and left.op == sign:
                left = Call(sign, (*left.args, right))
            else:
                left = Call(sign, (left, right))
        return left

    def _unary(self) -> Node:
        if self._took("!"):
            return Call("!", (self._unary(),))
        if self._took("-"):
            inner = self._unary()
            if isinstance(inner, Const) and type(inner.value) in (int, float):
                return Const(-inner.value)  # type: ignore[operator]
            return Call("neg", (inner,))
        return self._member(self._primary())

    def _member(self, node: Node) -> Node:
        while True:
            if self._took("["):
                node = Call("[]", (node, self.choice()))
                self._need("]")
            elif self._took("."):
                word = self._word()
                if self._took("("):
                    node = _said_of(node, word, self._arguments(")"))
                elif isinstance(node, Name):
                    node = Name(f"{node.name}.{word}")
                else:
                    raise Unread("a field of no fact")
            else:
                return node

    def _primary(self) -> Node:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "value":
            return Const(token.value)
        if token.kind == "word":
            if self._took("("):
                return Call(token.text, self._arguments(")"))
            return Name(token.text)
        if token.kind == "sign" and token.text == "(":
            inner = self.choice()
            self._need(")")
            return inner
        if token.kind == "sign" and token.text == "[":
            return Items(self._arguments("]"))
        raise Unread(f"what is {token.text!r}")

    def _arguments(self, end: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self._took(end):
            found.append(self.choice())
            if not self._took(","):
                self._need(end)
                break
        return tuple(found)

    def _is_sign(self) -> bool:
        return self.tokens[self.at].kind == "sign"

    def _took(self, sign: str) -> bool:
        took = self._is_sign() and self.tokens[self.at].text == sign
        self.at += took
        return took

    def _need(self, sign: str) -> None:
        if not self._took(sign):
            raise Unread(f"no {sign}")

    def _word(self) -> str:
        token = self.tokens[self.at]
        self.at += 1
        if token.kind != "word":
            raise Unread(f"what is {token.text!r}")
        return token.text


def _said_of(node: Node, word: str, arguments: tuple[Node, ...]) -> Node:
    if word in LOOPS and len(arguments) == 2 and isinstance(arguments[0], Name):
        kind = "exists_one" if word == "existsOne" else word
        return Loop(kind, node, arguments[0].name, arguments[1])
    return Call(word, (node, *arguments))


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        c = text[at]
        if c.isspace():
            at += 1
        elif text.startswith("//", at):
            at = (text.find("\n", at) + 1) or len(text)
        elif quoted := _opening(text, at):
            value, at = _quoted(text, at + len(quoted), quoted)
            yield _Token("value", "", value)
        elif c.isdigit() or (c == "." and text[at + 1 : at + 2].isdigit()):
            number, at = _number(text, at)
            yield _Token("value", "", number)
        elif c.isalpha() or c == "_":
            end = at
            while end < len(text) and (text[end].isalnum() or text[end] == "_"):
                end += 1
            yield _named(text[at:end])
            at = end
        else:
            sign = next((sign for sign in _SIGNS if text.startswith(sign, at)), None)
            if sign is None:
                raise Unread(f"what is {c!r}")
            yield _Token("sign", sign)
            at += len(sign)
    yield _Token("end", "")


def _named(word: str) -> _Token:
    if word in ("true", "false"):
        return _Token("value", word, word == "true")
    if word == "null":
        raise Unread("null")
    return _Token("sign" if word == "in" else "word", word)


def _opening(text: str, at: int) -> str:
    """Return how a text begins here: its quotes, with an r before them when it is raw; or ""."""
    raw = text[at] if text[at] in "rR" else ""
    start = at + len(raw)
    quote = text[start : start + 1]
    if not quote or quote not in "'\"":
        return ""
    return raw + (quote * 3 if text.startswith(quote * 3, start) else quote)


def _quoted(text: str, at: int, opening: str) -> tuple[str, int]:
    raw, quotes = opening[0] in "rR", opening.lstrip("rR")
    kept: list[str] = []
    while not text.startswith(quotes, at):
        if at >= len(text):
            raise Unread("a quote is not closed")
        if text[at] != "\\" or raw:
            kept.append(text[at])
            at += 1
            continue
        c, at = _escape(text, at + 1)
        kept.append(c)
    return "".join(kept), at + len(quotes)


def _escape(text: str, at: int) -> tuple[str, int]:
    c = text[at : at + 1]
    if c in _ESCAPES:
        return _ESCAPES[c], at + 1
    digits, base, start = (_HEX[c], 16, at + 1) if c in _HEX else (3, 8, at)
    try:
        return chr(int(text[start : start + digits], base)), start + digits
    except (ValueError, OverflowError):
        raise Unread("what escape") from None


def _number(text: str, at: int) -> tuple[int | float, int]:
    end = at
    if text.startswith(("0x", "0X"), at):
        end += 2
        while end < len(text) and text[end] in "0123456789abcdefABCDEF":
            end += 1
    else:
        while end < len(text) and (
            text[end].isdigit() or text[end] in ".eE"
            or (text[end] in "+-" and text[end - 1] in "eE")
        ):  # fmt: skip
            end += 1
    word = text[at:end]
    if text[end : end + 1] in ("u", "U"):
        raise Unread("unsigned numbers")
    try:
        return (int(word, 0) if word.startswith(("0x", "0X")) else int(word)), end
    except ValueError:
        pass
    try:
        return float(word), end
    except ValueError:
        raise Unread(f"what is {word!r}") from None
