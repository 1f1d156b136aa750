"""What the judge counts and times."""

import functools
from collections.abc import Callable

from postweir.judge.levels import Levels
from postweir.judge.promotions import Promotions
from postweir.policy.evaluation import Evaluated
from postweir.runtime.metrics import Metrics

ANSWERS_MAX = 100  # kinds of them: a verb, or a reason for none
RULES_MAX = 500  # that have a series of their own: those of the largest policy
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class Meters:
    """The judge's metrics."""

    def __init__(self, metrics: Metrics, open_asks: Callable[[], int]) -> None:
        asks = metrics.counter("postweir_judge_asks", "Questions that came in.", ["late"])
        self._first, self._late = asks.labels("first"), asks.labels("late")
        answers = metrics.counter(
            "postweir_judge_answers",
            "Answers by verb (pending: none) and, for those, by reason.",
            ["verb", "reason"],
        )
        # Asked for every message: to find the series anew takes four times as long.
        self._answers = functools.lru_cache(ANSWERS_MAX)(answers.labels)
        self._evaluate = metrics.histogram(
            "postweir_judge_evaluate_seconds", "Time in the policy worker.", buckets=BUCKETS
        )
        self._total = metrics.histogram(
            "postweir_judge_answer_seconds", "Time from a question to its answer."
        )
        self._errors = metrics.counter(
            "postweir_judge_rule_errors", "Rules that could not be applied to a message.", ["rule"]
        )
        self._matches = metrics.counter(
            "postweir_judge_rule_matches",
            "Rules that were true of a message: they decided, or are on trial (mode shadow).",
            ["rule", "mode"],
        )
        self._rules: set[str] = set()
        self._policy = metrics.gauge(
            "postweir_judge_policy", "1 for the policy that judges.", ["policy"]
        )
        self._deaths = metrics.counter(
            "postweir_judge_worker_deaths", "Policy workers that ended, by cause.", ["cause"]
        )
        self._refused = metrics.gauge(
            "postweir_judge_policy_refused", "1 while the deployed policy is not taken."
        )
        self._kills = metrics.gauge("postweir_judge_kills", "Things that `policy kill` keeps off.")
        self._kill_fault = metrics.gauge(
            "postweir_judge_kill_file_damaged", "1 while `kill.toml` cannot be read or understood."
        )
        self._usage_known = metrics.gauge(
            "postweir_judge_usage_known", "1 while the levels of all senders are complete."
        )
        self._senders = metrics.gauge(
            "postweir_judge_senders", "Senders whose levels and history are remembered."
        )
        self._met = metrics.gauge(
            "postweir_judge_met_ratio", "How full the filter of who was written to is, 0 to 1."
        )
        self._saved = metrics.gauge(
            "postweir_judge_levels_saved_timestamp_seconds",
            "When the levels were written to disk last, in Unix time; 0: not yet.",
        )
        self._saved_bytes = metrics.gauge(
            "postweir_judge_levels_bytes", "Size of that file, without the filter."
        )
        metrics.gauge("postweir_judge_open_asks", "Questions without an answer.").set_function(
            open_asks
        )

    def watch(self, promotions: Promotions) -> None:
        """Show what this judge runs by whose word."""
        self._refused.set_function(lambda: float(bool(promotions.told()["refused"])))
        self._kills.set_function(lambda: float(len(promotions.kills.kills)))
        self._kill_fault.set_function(lambda: float(bool(promotions.kill_fault)))

    def follow(self, levels: Levels) -> None:
        """Show what is known of senders."""
        counters, keeping = levels.counters, levels.keeping
        self._usage_known.set_function(lambda: float(levels.known))
        self._senders.set_function(lambda: float(counters.senders_total))
        self._met.set_function(lambda: counters.met.share(levels.now_s()))
        self._saved.set_function(lambda: keeping.saved_us / 1e6)
        self._saved_bytes.set_function(lambda: float(keeping.bytes))

    def asked(self, late: bool) -> None:
        (self._late if late else self._first).inc()

    def answered(self, verb: str, reason: str, took_s: float) -> None:
        self._answers(verb or "pending", reason).inc()
        self._total.observe(took_s)

    def evaluated(self, evaluated: Evaluated) -> None:
        self._evaluate.observe(evaluated.took_us / 1e6)
        if evaluated.verdict is not None and evaluated.verdict.rule:
            self._matches.labels(self._label(evaluated.verdict.rule), "enforce").inc()
        for rule in evaluated.shadow:
            self._matches.labels(self._label(rule), "shadow").inc()
        for error in evaluated.errors:
            self._errors.labels(self._label(error.partition(":")[0])).inc()

    def _label(self, rule: str) -> str:
        """Return the rule, or `other`: a year of policies is not to be a year of series."""
        if len(self._rules) < RULES_MAX:
            self._rules.add(rule)
        return rule if rule in self._rules else "other"

    def judges_by(self, policy: str) -> None:
        self._policy.clear()
        self._policy.labels(policy).set(1)

    def died(self, cause: str) -> None:
        self._deaths.labels(cause).inc()
