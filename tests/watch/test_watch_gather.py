"""Every process's numbers on one page, and the silent ones named."""

import socket

from postweir.runtime import metrics
from postweir.watch.gather import Gatherer


def publish(tmp_path, kind, ok=True):
    made = metrics.Metrics()
    made.counter("postweir_test_mail", "Mail seen.", ["verdict"]).labels("accept").inc(3)
    metrics.publish(made, lambda: {"ok": ok, "process": kind}, tmp_path / f"{kind}-1.port")


def test_pages_are_joined_and_labelled(tmp_path):
    """A sample says whose it is; a family's samples stand together under one HELP and TYPE."""
    publish(tmp_path, "edge")
    publish(tmp_path, "judge")
    page = Gatherer(tmp_path, [("edge", 1), ("judge", 1)]).metrics()
    lines = page.splitlines()
    at = lines.index("# TYPE postweir_test_mail_total counter")

    assert lines[at + 1 : at + 3] == [
        'postweir_test_mail_total{process="edge 1",verdict="accept"} 3.0',
        'postweir_test_mail_total{process="judge 1",verdict="accept"} 3.0',
    ]
    assert page.count("# HELP postweir_test_mail_total ") == 1
    assert 'postweir_up{process="judge 1"} 1' in lines


def test_a_silent_process_is_down_and_the_rest_is_shown(tmp_path):
    """One that accepts and never answers costs 0.2 s, not the page."""
    publish(tmp_path, "edge")
    stopped = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "spool-1.port").write_text(str(stopped.getsockname()[1]))
    gatherer = Gatherer(tmp_path, [("edge", 1), ("spool", 1), ("judge", 1)])
    health = gatherer.health()

    assert not health["ok"]
    assert {n: p["ok"] for n, p in health["processes"].items()} == {
        "edge 1": True, "spool 1": False, "judge 1": False,
    }  # fmt: skip
    assert 'postweir_up{process="spool 1"} 0' in gatherer.metrics()
    stopped.close()


def test_a_process_that_is_not_well_is_heard(tmp_path):
    """503 carries the reason."""
    publish(tmp_path, "edge", ok=False)

    assert Gatherer(tmp_path, [("edge", 1)]).health()["processes"]["edge 1"] == {
        "ok": False, "process": "edge",
    }  # fmt: skip


def test_whatever_a_process_answers_the_page_stands(tmp_path):
    """No JSON, no `ok`, bytes that are no text: not well, and the others are shown."""
    pages = {"/metrics": b"\xff\xfe 1\n", "/health": b'{"up": true}'}
    port = metrics.serve(("127.0.0.1", 0), lambda path: ("200 OK", "text/plain", pages[path]))
    (tmp_path / "spool-1.port").write_text(str(port))
    publish(tmp_path, "edge")
    gatherer = Gatherer(tmp_path, [("edge", 1), ("spool", 1)])
    health = gatherer.health()

    assert (health["ok"], health["processes"]["edge 1"]["ok"]) == (False, True)
    assert health["processes"]["spool 1"] == {"ok": False, "up": True}
    assert "postweir_test_mail_total{" in gatherer.metrics()
