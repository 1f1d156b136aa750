"""The `[[pattern]]` and `[[throttle]]` tables and the `[limits]` of a policy: facts it adds."""

from collections.abc import Sequence

from postweir.policy.bundle import TEXTS, THROTTLE_KEYS, THROTTLE_OF, Pattern, Throttle
from postweir.policy.facts import NUMBER_MAX, SCHEMA
from postweir.policy.table import FACT_ID, Table

PATTERNS_MAX = 100  # each is run over each message, some microseconds a text
PATTERN_CHARS_MAX = 1000  # what it compiles to has a bound of its own, in the worker
THROTTLES_MAX = 50  # the judge keeps a time for each key of each
AMOUNT_MAX = 10**12  # a terabyte; the engine's numbers reach further
PER_S_MAX = 31 * 24 * 3600  # longer, and the state outlives its meaning
LIMITS_MAX = 100


def pattern(table: Table) -> Pattern:
    """Return what a `[[pattern]]` says, and note what is wrong with it."""
    table.only(("id", "of", "pattern"))
    name, of = table.id(FACT_ID, "gift_cards"), table.choice("of", TEXTS)
    written = table.text("pattern")
    if not written:
        table.fault("pattern", "there is no pattern", "write pattern = '(?i)gift ?cards?'")
    elif len(written) > PATTERN_CHARS_MAX:
        do = f"at most {PATTERN_CHARS_MAX} characters: make several patterns of it"
        table.fault("pattern", "the pattern is too long", do)
    return Pattern(name, of, written)


def throttle(table: Table) -> Throttle:
    """Return what a `[[throttle]]` says, and note what is wrong with it."""
    table.only(("id", "key", "of", "rate", "per_s", "burst"))
    return Throttle(
        table.id(FACT_ID, "young"),
        table.choice("key", THROTTLE_KEYS),
        table.choice("of", THROTTLE_OF),
        table.number("rate", 1, AMOUNT_MAX),
        table.number("per_s", 1, PER_S_MAX),
        table.number("burst", 1, AMOUNT_MAX),
    )


def limits(table: Table, names: Sequence[str]) -> dict[str, int]:
    """Return the numbers of `[limits]`, and note what is wrong with them."""
    found: dict[str, int] = {}
    if len(names) > LIMITS_MAX:
        table.fault("", f"has {len(names)} numbers", f"at most {LIMITS_MAX} are taken")
        return found
    for name in names:
        if f"limit.{name}" in SCHEMA:
            do = "choose another name: this one is the account's own setting"
            table.fault(name, f"{name} cannot be set here", do)
        elif table.is_id(name, name):
            found[name] = table.number(name, -NUMBER_MAX, NUMBER_MAX)
    return found
