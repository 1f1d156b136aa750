"""From what the conditions say to one verdict: the first rule that matches decides."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from postweir.policy.bundle import Rule
from postweir.policy.verdict import Fact, Verdict

ERRORS_MAX = 20  # of one message; more say nothing new
ERROR_CHARS_MAX = 200
SHADOW_MAX = 20  # rules on trial that one message names

# True only where the engine said BOOL and true: an error of the engine is a truthy text.
Outcome = Literal[True, False] | str


class Decided(NamedTuple):
    """The verdict, the errors met on the way to it, and the rules on trial that matched."""

    verdict: Verdict
    errors: list[str]
    shadow: list[str]


def decide(policy: str, said: Iterable[tuple[Rule, Outcome]], facts: Mapping[str, Fact]) -> Decided:
    """Walk over the rules that stand, in order, with what their conditions come to.

    Those that come to False may be left out. A text is an error.
    """
    errors: list[str] = []
    shadow: list[str] = []
    for rule, outcome in said:
        if outcome is False:
            continue
        trial = rule.mode == "shadow"
        if outcome is True:
            if not trial:
                return Decided(verdict_of(rule, policy, facts), errors, shadow)
            if len(shadow) < SHADOW_MAX:
                shadow.append(rule.id)
            continue
        if len(errors) < ERRORS_MAX:
            errors.append(f"{rule.id}: {outcome[:ERROR_CHARS_MAX]}")
        if rule.on_error == "hold" and not trial:
            held = Verdict("hold", rule=rule.id, policy=policy, text="A rule could not be applied.")
            return Decided(held, errors, shadow)
    return Decided(Verdict("accept", policy=policy), errors, shadow)


def verdict_of(rule: Rule, policy: str, facts: Mapping[str, Fact]) -> Verdict:
    """Return what a rule decides."""
    retry_after_s = rule.retry_after_s
    if rule.verb == "throttle":
        wait_s = facts.get(f"throttle.{rule.throttle}", 0)
        retry_after_s = max(1, wait_s) if isinstance(wait_s, int) else 1
    return Verdict(
        rule.verb, rule=rule.id, policy=policy, code=rule.code, text=rule.text,
        retry_after_s=retry_after_s, pool=rule.pool, header=rule.header, hold_s=rule.hold_s,
        lifetime_s=rule.lifetime_s,
    )  # fmt: skip
