"""What delivery counts."""

from postweir.runtime.metrics import Metrics


class Meters:
    """The metrics of one delivery worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._attempts = metrics.counter(
            "postweir_delivery_attempts", "Attempts at one recipient, by outcome.", ["outcome"]
        )
        self._by_outcome = {
            name: self._attempts.labels(name) for name in ("delivered", "deferred", "failed")
        }
        self._seconds = metrics.histogram(
            "postweir_delivery_seconds", "Seconds from MAIL to a recipient's last reply."
        )
        self.connections = metrics.gauge(
            "postweir_delivery_connections", "Connections to remote hosts, greeted."
        )
        self.unreached = metrics.counter(
            "postweir_delivery_unreached", "Times none of a site's hosts could be reached."
        )
        self.duplicates = metrics.counter(
            "postweir_delivery_possible_duplicates",
            "Recipients whose host may have had the message when it was lost.",
        )
        self.unfit = metrics.counter(
            "postweir_delivery_unfit", "Messages whose body was not what we had accepted."
        )
        self.unsent = metrics.counter(
            "postweir_delivery_unsent",
            "Recipients given back unsent, for their shard could not record an outcome.",
        )
        self.pool_unknown = metrics.counter(
            "postweir_delivery_pool_unknown",
            "Recipients whose pool is not in the settings: they left without one.",
        )
        self.pool_unusable = metrics.counter(
            "postweir_delivery_pool_unusable",
            "Connections made from another address, for none of their pool could be used.",
        )
        self.in_hand = metrics.gauge(
            "postweir_delivery_in_hand", "Recipients handed out and not known to be settled."
        )
        self.unsettled = metrics.gauge(
            "postweir_delivery_unsettled", "Outcomes that no shard has confirmed yet."
        )
        self.oldest_s = metrics.gauge(
            "postweir_delivery_oldest_in_hand_seconds", "Age in hand of the oldest recipient there."
        )

    def settled(self, outcome: str, took_s: float | None) -> None:
        """Count one attempt; `took_s` when a host was asked."""
        self._by_outcome[outcome].inc()
        if took_s is not None:
            self._seconds.observe(took_s)
