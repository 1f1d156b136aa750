"""What the judge counts and times."""

from collections.abc import Callable

from postweir.runtime.metrics import Metrics

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class Meters:
    """The judge's metrics."""

    def __init__(self, metrics: Metrics, open_asks: Callable[[], int]) -> None:
        self._asks = metrics.counter("postweir_judge_asks", "Questions that came in.", ["late"])
        self._answers = metrics.counter(
            "postweir_judge_answers",
            "Answers by verb (pending: none) and, for those, by reason.",
            ["verb", "reason"],
        )
        self._evaluate = metrics.histogram(
            "postweir_judge_evaluate_seconds", "Time in the policy worker.", buckets=BUCKETS
        )
        self._total = metrics.histogram(
            "postweir_judge_answer_seconds", "Time from a question to its answer."
        )
        self._errors = metrics.counter(
            "postweir_judge_rule_errors", "Rules that could not be applied to a message."
        )
        self._deaths = metrics.counter(
            "postweir_judge_worker_deaths", "Policy workers that ended, by cause.", ["cause"]
        )
        metrics.gauge("postweir_judge_open_asks", "Questions without an answer.").set_function(
            open_asks
        )

    def asked(self, late: bool) -> None:
        self._asks.labels("late" if late else "first").inc()

    def answered(self, verb: str, reason: str, took_s: float) -> None:
        self._answers.labels(verb or "pending", reason).inc()
        self._total.observe(took_s)

    def evaluated(self, took_s: float, errors: int) -> None:
        self._evaluate.observe(took_s)
        if errors:
            self._errors.inc(errors)

    def died(self, cause: str) -> None:
        self._deaths.labels(cause).inc()
