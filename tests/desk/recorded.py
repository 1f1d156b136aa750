"""Mail of the past for tests: judged by a real policy, and recorded as a judge does."""

from tests.desk.office import NOW_US, accept, name, refusal

from postweir.identity.sender import Sender
from postweir.judge.ports import Loadable
from postweir.policy.document import parse
from postweir.policy.evaluation import Evaluate
from postweir.policy.facts import SCHEMA_HASH
from postweir.policy.worker import Engine
from postweir.runtime import frames

POLICY = """
[limits]
links = 3

[[set]]
id = "bad"
of = "url_hosts"
items = ["bad.example"]

[[pattern]]
id = "cards"
of = "subject"
pattern = "gift ?cards?"

[[rule]]
id = "trial"
when = "body.parts > 1"
then = { verb = "refuse", code = "CS", text = "Parts." }
mode = "shadow"

[[rule]]
id = "listed"
when = "set.bad"
then = { verb = "refuse", code = "RBL", text = "It links to a listed host." }
help = "Take the link out."

[[rule]]
id = "links"
when = "urls.count > limit.links && !connection.tls"
then = { verb = "hold", code = "CS", text = "Many links." }

[[rule]]
id = "cards"
when = "pattern.cards"
then = { verb = "defer", code = "SS", text = "Gift cards.", retry_after_s = 60 }
"""


class Past:
    """What an installation recorded: messages judged by one policy, some time ago."""

    def __init__(self, office, policy=POLICY):
        parsed = parse(policy, "then.toml")
        self.office, self.policy = office, Loadable(parsed.bundle, dict(parsed.sets))
        self._engine = Engine(parsed.bundle, self.policy.policy, parsed.sets)
        assert self._engine.faults == []
        self.count = 0
        keep(office, self.policy)

    def came(
        self, facts, who="joe", shard=1, minutes_ago=60, texts=None, keys=None, more=None, **changed
    ):
        """Judge and record one message; returns its id."""
        self.count += 1
        sender = Sender("acme", "sasl", who)
        facts = {"account.name": "acme", "sender.key": sender.key, **facts}
        keys = keys or {"url_hosts": list(facts.get("urls.hosts", []))}
        self._engine.mask((more or {}).get("killed", ()))
        said = self._engine.evaluate(Evaluate(0, facts, texts or {}, keys))
        packed = frames.pack({
            "schema": SCHEMA_HASH, "facts": facts, "findings": [["content", "spam", "x", 0.7, "1"]],
            "derived": said.derived, "shadow": said.shadow, **(more or {}),
        })  # fmt: skip
        values = {"facts": packed, "verdict": said.verdict, "sender": sender, **changed}
        made = accept if said.verdict.takes_mail else refusal
        store = self.office.shards.stores[shard]
        store._now_us = lambda: NOW_US - minutes_ago * 60_000_000
        store.commit([made(self.count, **values)])
        return name(self.count)


def keep(office, policy):
    """Let this policy be found by its name, and be promoted."""
    folder = office.settings.data / "policy" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / policy.policy).write_bytes(policy.canonical)
    for each, data in policy.sets.items():
        (folder / each).write_bytes(data)
    link = folder / "promoted"
    link.unlink(missing_ok=True)
    link.symlink_to(policy.policy)
