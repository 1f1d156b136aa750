"""Promoted policy, then baseline, then pending: our own failure never refuses and never lets go."""

from postweir.policy import baseline
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import Facts
from postweir.policy.verdict import Verdict

POISON = "poison"


def climb(
    evaluated: Evaluated | None, facts: Facts, *, policy: str, poison: bool, unseen: bool = False
) -> tuple[Verdict | None, str]:
    """Return the verdict, or None (pending) and why.

    `evaluated` is None when the promoted policy gave no answer in time. `poison`: this message
    has cost two workers already; a person looks at it. `unseen`: not all of it could be looked at
    in the time of one who waits on a line; what was seen may refuse it, and nothing lets it go yet.
    """
    if poison:
        text = "The message could not be judged."
        return Verdict("hold", rule=POISON, policy=policy, text=text), ""
    if evaluated is not None and evaluated.verdict is not None:
        if unseen and evaluated.verdict.takes_mail:
            return None, "scan"
        return evaluated.verdict, ""
    objection = baseline.judge(facts)
    if objection is not None:
        return objection, ""
    return None, "engine" if policy else "loading"
