"""One installation, one policy: every verb, from the reply at the door to what the world sees.

One test with all assertions in it, for each start of an installation takes seconds.
"""

import asyncio
import contextlib
import io
import json

import pytest
from demo.sink import Sink, Site, World
from tests.harness import free_port, letter, scene, token_of, wait_for

from postweir.desk.ports import Note
from postweir.judge.ports import Loadable
from postweir.policy import facts
from postweir.policy.bundle import Bundle, Rule, Throttle
from postweir.processes import command
from postweir.runtime import frames
from postweir.runtime.metrics import asked
from postweir.storage.sqlite_policies import SqlitePolicies
from postweir.storage.sqlite_tables import SqliteTables

pytestmark = pytest.mark.real

TAG = b"X-Class: newsletter\r\n"
POOLS = {"bulk": ["127.0.0.2"], "other": ["127.0.0.3"]}
FROM = {"tag": "127.0.0.2", "late": "127.0.0.2", "route": "127.0.0.3", "gone": "127.0.0.1",
        "plain": "127.0.0.1", "room": "127.0.0.1"}  # fmt: skip


def rule(name, verb, more="", **then):
    when = f'"{name}.example" in envelope.recipient_domains{more}'
    return Rule(f"{name}-rule", when, verb, **then)


POLICY = Bundle(
    (
        rule("tag", "tag", header="X-Class: newsletter", pool="bulk", lifetime_s=3600),
        rule("late", "tag", header="X-Class: newsletter", pool="bulk", lifetime_s=3600),
        rule("route", "route", pool="other"),
        rule("gone", "route", pool="gone"),
        rule("hold", "hold", hold_s=2),
        rule("defer", "defer", code="STF", text="Not now.", retry_after_s=77),
        rule("room", "throttle", " && throttle.room > 0", throttle="room", code="STF",
             text="Too much."),
        rule("refuse", "refuse", code="SS", text="Never."),
    ),
    throttles=(Throttle("room", "recipient_domain", "messages", 1, 3600, 1),),
)  # fmt: skip


class Seen(Site):
    """One connection, which knows the address that it comes from."""

    def __init__(self, host):
        super().__init__(host.world)
        self._host = host

    def connection_made(self, transport):
        self._peer = transport.get_extra_info("peername")[0]
        super().connection_made(transport)

    def _answer(self, event):
        before = len(self._world.arrived)
        reply = super()._answer(event)
        for one in self._world.arrived[before:]:
            self._host.peers.setdefault(token_of(one.content), []).append(self._peer)
        return reply


class Host(Sink):
    """The world, which notes where each message came from."""

    def __init__(self, port):
        super().__init__(World())
        self.peers = {}
        made = self._loop.create_server(lambda: Seen(self), "127.0.0.1", port)
        self._servers[port] = asyncio.run_coroutine_threadsafe(made, self._loop).result(10)


class Verbs:
    """The installation, its policy and its commands, run here."""

    def __init__(self, on):
        self.here, self.data = on.here, on.here.folder / "var"

    def run(self, *words):
        """Run a command without a process of its own; returns what it printed."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            command.run([*words, "-c", str(self.here.config)])
        return said.getvalue()

    def show(self, message):
        return json.loads(self.run("message", "show", message, "--json"))

    def ledger(self):
        return json.loads(self.run("audit", "--json"))

    def deploy(self, bundle):
        """Put a policy in force as it is: its hold is shorter than a check would let it be."""
        store = SqlitePolicies(SqliteTables(self.data / "tables.db"))
        note = Note(1, "op", "policy deploy", bundle.hash)
        store.deploy("deploy", Loadable(bundle), "", facts.CANONICAL, note)

        def runs():
            body = asked(self.data / "run" / "judge-1.port", "/health", 1.0)
            return body and frames.from_json(body, dict).get("policy") == bundle.hash

        wait_for(runs, 10, "the policy")


def send(smtp, name, token=""):
    """Send one message to a domain; returns the reply."""
    smtp.mail("joe@customer.example")
    smtp.rcpt(f"kim@{name}.example")
    smtp.docmd("DATA")
    smtp.send(letter(token or name) + b".\r\n")
    code, words = smtp.getreply()
    return f"{code} {words.decode()}"


def test_every_verb_does_what_it_says():
    """Tagged once, sent from its pool, held until it expires, put off, refused: and accounted."""
    port = free_port()
    host = Host(port)
    delivery, judge = {"pools": POOLS, "idle_s": 5.0}, {"wait_ms": 2000}
    with (
        contextlib.closing(host),
        scene(route={"*": f"127.0.0.1:{port}"}, delivery=delivery, judge=judge) as on,
        on.connect() as smtp,
    ):
        verbs = Verbs(on)
        verbs.deploy(POLICY)
        said = {name: send(smtp, name) for name in ("plain", "tag", "route", "gone", "room")}
        for n in range(3):  # one after the other, over the connections there are by now
            said[f"more{n}"] = send(smtp, ("tag", "route", "plain")[n], f"more{n}")
        refused(smtp)
        held = held_message(verbs, smtp)
        said["late"] = send_unjudged(verbs, smtp)
        ids = {name: reply.rpartition(" ")[2] for name, reply in said.items()}
        ended(verbs, held)
        ledger = on.settled(20)

        assert {name: reply[:3] for name, reply in said.items()} == dict.fromkeys(said, "250")
        wanted = FROM | {"more0": FROM["tag"], "more1": FROM["route"], "more2": FROM["plain"]}
        assert host.peers == {token: [source] for token, source in wanted.items()}
        tagged = {token_of(one.content) for one in host.world.arrived if TAG in one.content}
        assert tagged == {"tag", "late", "more0"}
        assert {one.content.count(b"X-Class") for one in host.world.arrived} == {0, 1}
        assert (ledger["delivered"], ledger["refused"]) == (len(said), 1)
        assert ledger["residual"] == ledger["held"] == 0
        for name in ("tag", "late"):
            shown(verbs, ids[name], f"{name}-rule")
        assert verbs.show(ids["gone"])["steps"][-1]["source"] == "127.0.0.1"
        assert on.here.log.read_text().count("event=delivery.pool_unknown") == 1


def refused(smtp):
    """What is not taken hears code, sentence, how long to wait, and where to look."""
    assert send(smtp, "defer").startswith("450 4.7.1 [STF] Not now. Retry in 77 s. ref=")
    said = send(smtp, "room")
    assert said.startswith("450 4.7.1 [STF] Too much. Retry in 3")  # of 3,600, some have passed
    assert send(smtp, "refuse").startswith("550 5.7.1 [SS] Never. ref=")


def held_message(verbs, smtp):
    """It is ours, and says until when."""
    message = send(smtp, "hold").rpartition(" ")[2]
    found = verbs.show(message)
    assert (found["state"], found["rule"]) in (("held", "hold-rule"), ("settled", "hold-rule"))
    assert found["steps"][0]["expires_at"] > found["accepted_at"]
    return message


def send_unjudged(verbs, smtp):
    """While nobody judges it is taken, and it is tagged when somebody does."""
    verbs.run("policy", "kill", "--engine-off")
    said = send(smtp, "late")
    assert verbs.show(said.rpartition(" ")[2])["state"] == "pending"
    verbs.run("policy", "kill", "--clear", "--engine-off")
    return said


def ended(verbs, message):
    """Nobody released it, so it is refused, and counted so."""
    wait_for(lambda: verbs.show(message)["state"] == "settled", 10, "the hold expires")
    found = verbs.show(message)
    assert found["recipients"][0]["state"] == "refused"
    assert (found["steps"][-1]["by"], found["steps"][-1]["hold_s"]) == ("hold expired", 2)


def shown(verbs, message, by):
    """What was chosen is told, to people and to scripts."""
    found = verbs.show(message)
    keys = ("verdict", "rule", "policy", "header", "pool", "lifetime_s", "expires_at")
    values = ("tag", by, POLICY.hash, "X-Class: newsletter", "bulk", 3600, None)
    assert tuple(found[key] for key in keys) == values
    assert found["steps"][-1]["source"] == "127.0.0.2"
    told = verbs.run("message", "show", message)
    assert "X-Class: newsletter" in told
    assert "bulk" in told
