"""What one edge worker counts."""

from postweir.runtime.metrics import Metrics


class Meters:
    """The edge's counters and timers. A label holds a class of outcome, never a name."""

    def __init__(self, metrics: Metrics) -> None:
        self._of_connections(metrics)
        self._of_limits(metrics)
        self._of_messages(metrics)

    def _of_connections(self, metrics: Metrics) -> None:
        self.connections = metrics.gauge("postweir_edge_connections", "Open connections.")
        self.connected = metrics.counter("postweir_edge_connected", "Connections taken.")
        self.turned_away = metrics.counter(
            "postweir_edge_turned_away", "Connections refused at once, before anyone is known."
        )
        self.auth_failures = metrics.counter(
            "postweir_edge_auth_failures",
            "AUTH answered no: wrong, repeated, backed_off, shown_out, or unsure.",
            ["reason"],
        )
        self.auth_held = metrics.counter(
            "postweir_edge_auth_held", "Noes to AUTH that were held back from who guesses."
        )
        self.tls_failures = metrics.counter(
            "postweir_edge_tls_failures", "TLS that broke, most often in the handshake."
        )
        self.certificate_expires_s = metrics.gauge(
            "postweir_edge_certificate_expires_timestamp_seconds",
            "When the certificate in force expires, in Unix time; not a number: there is none.",
        )
        self.certificate_refused = metrics.gauge(
            "postweir_edge_certificate_refused",
            "1 while the certificate's files hold what was not taken in its place.",
        )
        self.relay_denied = metrics.counter(
            "postweir_edge_relay_denied", "Transactions refused because nobody is known."
        )
        self.timeouts = metrics.counter(
            "postweir_edge_timeouts", "Connections closed at a deadline.", ["stage"]
        )

    def _of_limits(self, metrics: Metrics) -> None:
        self.refused = metrics.counter(
            "postweir_edge_refused",
            "Connections and messages refused before their first byte, by the bound they met.",
            ["reason"],
        )
        self.shed = metrics.counter(
            "postweir_edge_shed", "Idle connections ended to make room for others."
        )
        self.stress = metrics.gauge(
            "postweir_edge_stress", "1 while deadlines are tighter, as a bound is near."
        )
        self.share = metrics.gauge(
            "postweir_edge_share", "Connections one account may have just now."
        )
        self.unknown = metrics.gauge(
            "postweir_edge_unknown", "Connections of which nobody knows whose they are."
        )
        self.handshakes = metrics.gauge(
            "postweir_edge_handshakes", "TLS handshakes that are not done."
        )
        self.in_flight = metrics.gauge(
            "postweir_edge_in_flight", "Messages between our 354 and our answer."
        )
        self.places = metrics.gauge(
            "postweir_edge_places", "Messages that may be in flight: fewer while answers are slow."
        )
        self.waiting = metrics.gauge(
            "postweir_edge_waiting", "Messages that wait for a place in flight, at most 0.1 s."
        )
        self.bytes_claimed = metrics.gauge(
            "postweir_edge_bytes_claimed", "Bytes on disk that messages under way may need."
        )

    def _of_messages(self, metrics: Metrics) -> None:
        self.messages = metrics.counter(
            "postweir_edge_messages",
            "Messages answered: accepted, held, pending, refused, deferred, trouble or gone.",
            ["outcome"],
        )
        self.unknown_outcomes = metrics.counter(
            "postweir_edge_unknown_outcomes",
            "Messages that may be ours, and their senders heard no 250: they come again.",
        )
        self.possible_duplicates = metrics.counter(
            "postweir_edge_possible_duplicates",
            "Messages taken that had come before, with an outcome that nobody knows.",
        )
        self.bytes = metrics.counter("postweir_edge_bytes", "Bytes of messages received.")
        self.bytes_held = metrics.gauge(
            "postweir_edge_bytes_held", "Bytes of messages in memory just now."
        )
        self.reply_s = metrics.histogram(
            "postweir_edge_reply_seconds", "From the final dot to our reply."
        )
        self.judge_s = metrics.histogram(
            "postweir_edge_judge_seconds", "How long a message waited for the judge."
        )
        self.pending = metrics.counter(
            "postweir_edge_pending", "Messages accepted without a verdict, by reason.", ["reason"]
        )
