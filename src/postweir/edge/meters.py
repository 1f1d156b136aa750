"""What one edge worker counts."""

from postweir.runtime.metrics import Metrics


class Meters:
    """The edge's counters and timers. A label holds a class of outcome, never a name."""

    def __init__(self, metrics: Metrics) -> None:
        self.connections = metrics.gauge("postweir_edge_connections", "Open connections.")
        self.connected = metrics.counter("postweir_edge_connected", "Connections taken.")
        self.turned_away = metrics.counter(
            "postweir_edge_turned_away", "Connections refused at once, before anyone is known."
        )
        self.auth_failures = metrics.counter(
            "postweir_edge_auth_failures", "AUTH with a wrong name or secret."
        )
        self.tls_failures = metrics.counter(
            "postweir_edge_tls_failures", "TLS that broke, most often in the handshake."
        )
        self.relay_denied = metrics.counter(
            "postweir_edge_relay_denied", "Transactions refused because nobody is known."
        )
        self.timeouts = metrics.counter(
            "postweir_edge_timeouts", "Connections closed at a deadline.", ["stage"]
        )
        self.messages = metrics.counter(
            "postweir_edge_messages",
            "Messages answered: accepted, held, pending, refused, deferred, trouble or gone.",
            ["outcome"],
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
