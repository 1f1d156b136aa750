"""Conditions of every shape that the dialect takes, and facts that they may meet."""

from hypothesis import strategies as st

INTS = ("usage.messages_1h", "usage.recipients_1d", "body.bytes")
DOUBLES = ("findings.spam", "text.capitals")
TEXTS = ("header.from_domain", "envelope.from_domain", "sender.state")
LISTS = ("urls.hosts", "envelope.recipient_domains")
BOOLS = ("body.known", "connection.tls", "findings.virus")
WORDS = ("", "a", "ab", "a.example", "b.example", ".example", "b", "\u00e9", "'\"\\")

COMPARE = ("==", "!=", "<", "<=", ">", ">=")


def quoted(text: str) -> str:
    """Return a text as a condition has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


words = st.sampled_from(WORDS).map(quoted)
whole = st.sampled_from([0, 1, 2, 3, 10, 100, 1000, -1]).map(str)
shares = st.sampled_from(["0.0", "0.25", "0.5", "0.9", "1.0"])
lists = st.sampled_from(LISTS)
written = st.lists(words, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]")
comparing = st.sampled_from(COMPARE)


def joined(*parts: object) -> st.SearchStrategy[str]:
    """Return the parts, one after the other; those that are strategies drawn."""
    drawn = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(*drawn).map(lambda texts: " ".join(map(str, texts)))


numbers = st.recursive(
    st.sampled_from(INTS) | whole | lists.map(lambda name: f"size({name})"),
    lambda inner: (
        joined("(", inner, st.sampled_from(["+", "-", "*"]), inner, ")")
        | joined("(", inner, st.sampled_from(["/ 3", "% 7", "/ 10"]), ")")
        | joined("(", st.sampled_from(BOOLS), "?", inner, ":", inner, ")")
    ),
    max_leaves=3,
)
fractions = (
    st.sampled_from(DOUBLES) | shares | joined("double(", numbers, ") * 0.5")
)  # fmt: skip


def said_of(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return questions about a text."""
    functions = st.sampled_from(["startsWith", "endsWith", "contains"])
    other = words | st.sampled_from(TEXTS)
    return (
        joined(text, comparing, words)
        | joined(text, st.sampled_from(["==", "!="]), other)
        | st.tuples(text, functions, other).map(lambda t: f"{t[0]}.{t[1]}({t[2]})")
        | joined(text, "in", written | lists)
        | joined("size(", text, ")", comparing, whole)
    )


loops = st.tuples(
    lists | written, st.sampled_from(["exists", "all", "exists_one"]), said_of(st.just("x"))
).map(lambda t: f"{t[0]}.{t[1]}(x, {t[2]})")

atoms = (
    st.sampled_from(BOOLS)
    | joined(numbers, comparing, numbers)
    | joined(fractions, comparing, fractions)
    | said_of(st.sampled_from(TEXTS))
    | loops
    | joined(lists, st.sampled_from(["== []", "!= []"]))
)

conditions = st.recursive(
    atoms,
    lambda inner: (
        joined("(", inner, "&&", inner, ")")
        | joined("(", inner, "||", inner, ")")
        | joined("!(", inner, ")")
        | joined("(", inner, "?", inner, ":", inner, ")")
    ),
    max_leaves=6,
)

some_facts = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from([0, 1, 2, 3, 9, 10, 11, 99, 100, 1000, 2**40]) for name in INTS},
        **{name: st.sampled_from([0.0, 0.25, 0.5, 0.89, 0.9, 1.0]) for name in DOUBLES},
        **{name: st.sampled_from(WORDS) for name in TEXTS},
        **{name: st.lists(st.sampled_from(WORDS), max_size=4) for name in LISTS},
        **{name: st.booleans() for name in BOOLS},
    },
)
