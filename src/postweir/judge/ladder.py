"""Promoted policy, then baseline, then pending: our own failure never refuses and never lets go."""

from postweir.policy import baseline
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import SCHEMA, Facts, total
from postweir.policy.verdict import Verdict

POISON = "poison"


def climb(
    evaluated: Evaluated | None,
    facts: Facts,
    *,
    policy: str,
    poison: bool,
    unseen: bool = False,
    off: bool = False,
) -> tuple[Verdict | None, str]:
    """Return the verdict, or None (pending) and why.

    `evaluated` is None when the promoted policy gave no answer in time. `poison`: this message
    has cost two workers already; a person looks at it. `unseen`: not all of it could be looked at
    in the time of one who waits on a line; what was seen may refuse it, and nothing lets it go yet.
    `off`: an operator wants no engine asked. Facts that are left out are neutral.
    """
    if poison:
        text = "The message could not be judged."
        return Verdict("hold", rule=POISON, policy=policy, text=text), ""
    if evaluated is not None and evaluated.verdict is not None:
        if unseen and evaluated.verdict.takes_mail:
            return None, "scan"
        return evaluated.verdict, ""
    # The levels of throttles are facts of the policy that has them.
    objection = baseline.judge(total({name: facts[name] for name in facts.keys() & SCHEMA.keys()}))
    if objection is not None:
        return objection, ""
    if off:
        return None, "off"
    return None, "engine" if policy else "loading"
