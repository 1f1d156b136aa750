"""docs/metrics.md is true: every metric with its type, labels and sentence, and no other."""

import re
from pathlib import Path

from postweir.delivery.meters import Meters as DeliveryMeters
from postweir.edge.meters import Meters as EdgeMeters
from postweir.judge.meters import Meters as JudgeMeters
from postweir.runtime.dns import DnsMetrics
from postweir.runtime.metrics import Metrics
from postweir.spool.meters import SpoolMetrics
from postweir.watch.gather import Gatherer

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "metrics.md").read_text()


class Declared(Metrics):
    """A registry that remembers what was declared."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def counter(self, name, sentence, labels=()):
        self.found[name] = ("counter", tuple(labels), sentence)
        return super().counter(name, sentence, labels)

    def gauge(self, name, sentence, labels=()):
        self.found[name] = ("gauge", tuple(labels), sentence)
        return super().gauge(name, sentence, labels)

    def histogram(self, name, sentence, labels=(), **more):
        self.found[name] = ("histogram", tuple(labels), sentence)
        return super().histogram(name, sentence, labels, **more)


def declared(tmp_path):
    """Return every metric there is: of each room, and what `watch` adds."""
    metrics = Declared()
    EdgeMeters(metrics)
    SpoolMetrics(metrics)
    DeliveryMeters(metrics)
    DnsMetrics(metrics)
    JudgeMeters(metrics, lambda: 0)
    head = Gatherer(tmp_path, [("edge", 1)]).metrics().splitlines()
    name, _, sentence = head[0].removeprefix("# HELP ").partition(" ")
    assert head[1] == f"# TYPE {name} gauge"
    return {**metrics.found, name: ("gauge", ("process",), sentence)}


def told():
    """Return what the page says of each."""
    found = {}
    for line in PAGE.splitlines():
        if line.startswith("| `postweir_"):
            name, kind, labels, sentence, _ = (cell.strip() for cell in line.split("|")[1:-1])
            names = tuple(label.strip("`") for label in labels.split(", ") if label)
            found[name.strip("`")] = (kind, names, sentence)
    return found


def test_the_page_and_the_code_say_the_same(tmp_path):
    """Name by name: type, labels, sentence."""
    code, page = declared(tmp_path), told()

    assert set(page) == set(code)
    assert page == code


def test_no_metric_is_declared_where_this_test_does_not_look(tmp_path):
    """Whatever the source names `postweir_…` is on the page."""
    named = set()
    for path in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r'"(postweir_[a-z_]+)"', path.read_text()))

    assert named <= set(declared(tmp_path))


def test_every_alert_is_on_a_metric_that_is_there(tmp_path):
    """A rule on a name nobody exports never fires."""
    kinds = {name: kind for name, (kind, _, _) in declared(tmp_path).items()}
    rules = PAGE.partition("## What to be woken by")[2].partition("\n## ")[0]
    named = set(re.findall(r"postweir_[a-z_]+", rules))

    for name in named:
        assert kinds.get(name.removesuffix("_total")) is not None, name
        assert name.endswith("_total") == (kinds[name.removesuffix("_total")] == "counter"), name
