"""The loopback page of a process: served on any address, asked without detours."""

import socket
import urllib.request

import pytest

from postweir.runtime import metrics


def answer(path):
    return ("200 OK", "text/plain", b"here\n") if path == "/metrics" else None


@pytest.fixture
def port_file(tmp_path):
    return tmp_path / "edge-1.port"


def test_an_ipv6_address_may_be_listened_on():
    """`metrics.listen = "[::1]:8027"` is what the settings allow."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    port = metrics.serve(("::1", 0), answer)
    with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=5) as page:
        assert page.read() == b"here\n"


def test_a_start_asks_no_name_service(monkeypatch):
    """A name server that does not answer would hold the start for seconds."""
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("looked up our own name"))

    assert metrics.serve(("127.0.0.1", 0), answer) > 0


def test_a_proxy_in_the_environment_is_not_for_our_loopback(port_file, monkeypatch):
    """What asks our own processes never leaves the host."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    metrics.publish(metrics.Metrics(), lambda: {"ok": False, "why": "x"}, port_file)

    assert metrics.asked(port_file, "/health", 5) == b'{"ok":false,"why":"x"}'  # a 503, with words


@pytest.mark.parametrize("text", ["", "no number", "99999", "-1"])
def test_nobody_there_is_no_answer(port_file, text):
    """No file, a torn one, a stale port: None, never an exception."""
    assert metrics.asked(port_file, "/health", 0.2) is None
    port_file.write_text(text)

    assert metrics.asked(port_file, "/health", 0.2) is None


def test_a_page_without_end_is_no_answer(port_file, monkeypatch):
    """A cut page would be a lie."""
    monkeypatch.setattr(metrics, "PAGE_BYTES_MAX", 3)
    port_file.write_text(str(metrics.serve(("127.0.0.1", 0), answer)))

    assert metrics.asked(port_file, "/metrics", 5) is None
