"""What one shard counts, for whoever watches it."""

from postweir.runtime.metrics import Metrics


class SpoolMetrics:
    """What one shard counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.accepts = metrics.counter(
            "postweir_spool_accepts", "Messages offered, by what came of it.", ["result"]
        )
        self.changes = metrics.counter(
            "postweir_spool_changes", "Committed changes of what is ours, by kind.", ["kind"]
        )
        self.commit_s = metrics.histogram(
            "postweir_spool_commit_seconds", "From the first statement to the synced commit."
        )
        self.commit_changes = metrics.histogram(
            "postweir_spool_commit_changes",
            "Changes that shared one commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 20000),
        )
        self.queued = metrics.gauge("postweir_spool_queued", "Recipients that have not ended.")
        self.ready = metrics.gauge("postweir_spool_ready", "Recipients in memory, not handed out.")
        self.in_hand = metrics.gauge("postweir_spool_in_hand", "Recipients that delivery has.")
        self.free = metrics.gauge("postweir_spool_free_bytes", "Free bytes where the file is.")
        self.possible_duplicates = metrics.gauge(
            "postweir_spool_possible_duplicates",
            "Recipients handed out again after a worker died with them, since the start.",
        )
        self.records_lost = metrics.gauge(
            "postweir_spool_records_lost", "Refusals not recorded, for the disk was behind."
        )
        self.latched = metrics.gauge(
            "postweir_spool_latched",
            "1 while nothing is taken or handed out, for no write can be shown to last.",
        )
        self.outcomes_waiting = metrics.gauge(
            "postweir_spool_outcomes_waiting", "Outcomes of attempts on their way to the disk."
        )
