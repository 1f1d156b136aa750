"""From what the conditions say to one verdict: the first rule that matches decides."""

from collections.abc import Callable
from typing import Literal

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.verdict import Verdict

ERRORS_MAX = 20  # of one message; more say nothing new
ERROR_CHARS_MAX = 200

# True only where the engine said BOOL and true: an error of the engine is a truthy text.
Outcome = Literal[True, False] | str


def decide(
    bundle: Bundle, policy: str, outcome: Callable[[int], Outcome]
) -> tuple[Verdict, list[str]]:
    """Return the verdict, and the errors met on the way to it.

    `outcome(n)` is what the condition of rule n comes to: a text is an error.
    """
    errors: list[str] = []
    for index, rule in enumerate(bundle.rules):
        if rule.mode == "off":
            continue
        said = outcome(index)
        if said is True:
            return verdict_of(rule, policy), errors
        if said is False:
            continue
        if len(errors) < ERRORS_MAX:
            errors.append(f"{rule.id}: {said[:ERROR_CHARS_MAX]}")
        if rule.on_error == "hold":
            held = Verdict("hold", rule=rule.id, policy=policy, text="A rule could not be applied.")
            return held, errors
    return Verdict("accept", policy=policy), errors


def verdict_of(rule: Rule, policy: str) -> Verdict:
    """Return what a rule decides."""
    return Verdict(
        rule.verb, rule=rule.id, policy=policy, code=rule.code, text=rule.text,
        retry_after_s=rule.retry_after_s,
    )  # fmt: skip
