"""Counters and timers of one process, and the loopback page that shows them with its health."""

import http.client
import socket
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

from postweir.runtime import frames

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

PAGE_BYTES_MAX = 4 * 1024 * 1024  # a process with ten thousand series stays below

Health = Callable[[], dict[str, Any]]  # must have "ok": bool; cheap, called on another thread


class Metrics:
    """The metrics of one process. Labels never hold an address, account or domain."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    def counter(self, name: str, sentence: str, labels: Sequence[str] = ()) -> Counter:
        """Declare a counter; Prometheus adds `_total`."""
        return Counter(name, sentence, labels, registry=self._registry)

    def gauge(self, name: str, sentence: str, labels: Sequence[str] = ()) -> Gauge:
        """Declare a gauge; `.set_function` reads it when it is asked for."""
        return Gauge(name, sentence, labels, registry=self._registry)

    def histogram(
        self,
        name: str,
        sentence: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = SECONDS,
    ) -> Histogram:
        """Declare a histogram, of seconds unless `buckets` say otherwise."""
        return Histogram(name, sentence, labels, registry=self._registry, buckets=buckets)

    def page(self) -> bytes:
        """Return the text exposition format."""
        return generate_latest(self._registry)


class _Threads(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name service for our name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]
        self.setup_environ()


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    timeout = 2  # a client that says nothing holds its thread no longer

    def log_message(self, *_: Any) -> None:
        return


def serve(address: tuple[str, int], answer: Callable[[str], tuple[str, str, bytes] | None]) -> int:
    """Serve GET requests from a daemon thread; returns the port. Raises OSError.

    `answer` takes a path and returns (status line, content type, body), or None: 404.
    """

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        found = (
            answer(environ.get("PATH_INFO", "/")) if environ["REQUEST_METHOD"] == "GET" else None
        )
        status, kind, body = found or ("404 Not Found", "text/plain", b"not found\n")
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    server = wsgiref.simple_server.make_server(
        *address, app, server_class=_Threads, handler_class=_Quiet
    )
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)


TEXT = "text/plain; version=0.0.4; charset=utf-8"


def asked(port_file: Path, path: str, wait_s: float) -> bytes | None:
    """Return what a process answers on its loopback port; None when it does not in time.

    A process that is not well answers 503, and its words are an answer too.
    """
    connection: http.client.HTTPConnection | None = None
    try:
        # No urllib: a proxy in the environment is not for our own loopback.
        port = int(port_file.read_text())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait_s)
        connection.request("GET", path)
        body = connection.getresponse().read(PAGE_BYTES_MAX + 1)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        if connection is not None:
            connection.close()
    return body if len(body) <= PAGE_BYTES_MAX else None


def publish(metrics: Metrics, health: Health, port_file: Path) -> int:
    """Show this process on a loopback port the kernel picks, named in `port_file`."""

    def answer(path: str) -> tuple[str, str, bytes] | None:
        if path == "/metrics":
            return "200 OK", TEXT, metrics.page()
        if path == "/health":
            now = health()
            status = "200 OK" if now["ok"] else "503 Service Unavailable"
            return status, "application/json", frames.json(now)
        return None

    port = serve(("127.0.0.1", 0), answer)
    fresh = port_file.with_suffix(".new")
    fresh.write_text(str(port))
    fresh.rename(port_file)
    return port
