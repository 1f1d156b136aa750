"""One installation with two judges: policies come, bite, are killed, go back, and outlive crashes.

One test with all assertions in it, for each start of an installation takes seconds.
"""

import contextlib
import io
import json
import os
import signal
import smtplib
import threading
import time
import zlib

import pytest
from tests.harness import Load, letter, scene, wait_for

from postweir.desk.ports import Note
from postweir.judge.ports import Loadable
from postweir.policy import facts
from postweir.policy.bundle import Bundle, Rule
from postweir.processes import command
from postweir.runtime import frames
from postweir.runtime.metrics import asked
from postweir.storage.sqlite_policies import SqlitePolicies
from postweir.storage.sqlite_tables import SqliteTables

pytestmark = pytest.mark.real

# What is promised, and half a second more: two policy workers a judge start on two cores. Then what
# one of several may take on a machine that does much else.
SOON_S, LATE_S = 1.0 + 0.5, 4.0
RULE = """
[[rule]]
id = "{id}"
when = '"{domain}" in envelope.recipient_domains'
then = {{ verb = "refuse", code = "SS", text = "No mail to {domain}." }}
[[rule.test]]
facts = {{ "envelope.recipient_domains" = ["{domain}"] }}
matches = true
"""


class Steady(Load):
    """Mail that flows without taking the machine for itself."""

    def send_one(self, smtp, token):
        super().send_one(smtp, token)
        time.sleep(0.02)


class Judges:
    """Two judges, what they say of themselves, and the commands."""

    def __init__(self, on):
        self.on, self.here = on, on.here
        self.data = on.here.folder / "var"
        self.store = SqlitePolicies(SqliteTables(self.data / "tables.db"))
        self.took_s = {"deploy": [], "kill": []}

    def command(self, *words):
        """Run a command here, without a process of its own; returns its status."""
        return command.run([*words, "-c", str(self.here.config)])

    def json(self, *words):
        """Run a command here; returns what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self.command(*words, "--json")
        return json.loads(said.getvalue())

    def health(self, index):
        body = asked(self.data / "run" / f"judge-{index}.port", "/health", 1.0)
        return frames.from_json(body, dict) if body else {}

    def all(self, holds):
        return all(holds(self.health(index)) for index in (1, 2))

    def run_it(self, policy):
        return self.all(lambda said: said.get("policy") == policy)

    def write(self, *rules):
        path = self.here.folder / "mine.toml"
        path.write_text("".join(RULE.format(id=name, domain=domain) for name, domain in rules))
        return path

    def deployed(self, *rules):
        """Deploy these rules; returns the policy, once all judges run it."""
        before = self.store.last()
        done = []
        path = str(self.write(*rules))
        words = ("policy", "deploy", path, "--reason", "test")
        thread = threading.Thread(target=lambda: done.append(self.command(*words)))
        thread.start()
        wait_for(lambda: self.store.last() != before or done, 20, "a deployment")
        began = time.monotonic()
        policy = self.store.last().policy
        wait_for(lambda: self.run_it(policy), 10, "both judges")
        self.took_s["deploy"].append(time.monotonic() - began)
        thread.join()
        assert done == [0]
        return policy

    def kill(self, *words):
        """Kill something, or clear it; the command returns once all judges have taken it."""
        began = time.monotonic()
        assert self.command("policy", "kill", *words) == 0
        self.took_s["kill"].append(time.monotonic() - began)


def account_of(judge):
    """Return an account that this judge of two is asked about."""
    return next(
        n for n in ("acme", "beta", "gamma", "delta") if zlib.crc32(n.encode()) % 2 == judge
    )


def code(smtp, domain):
    """Return what is answered to a message for this domain."""
    smtp.mail("joe@customer.example")
    smtp.rcpt(f"kim@{domain}")
    smtp.docmd("DATA")
    smtp.send(letter(f"x-{domain}-{time.monotonic_ns()}") + b".\r\n")
    return smtp.getreply()[0]


def test_policies_come_and_go_while_mail_flows():
    """Every promise about a policy in force, with its clock."""
    with scene(judge={"workers": 2, "wait_ms": 2000}) as on:
        judges = Judges(on)
        connections = [on.connect()]
        other = next(a for a in map(account_of, (0, 1)) if a != "acme")
        judges.command("account", "add", other)
        made = judges.json("credential", "add", other)
        connections.append(smtplib.SMTP("127.0.0.1", on.here.port, timeout=20))
        connections[1].login(made["username"], made["secret"])

        def codes(domain):
            return [code(smtp, domain) for smtp in connections]

        with Steady(on, threads=1) as load:
            load.reach(20)
            first = judges.deployed(("bites", "bad.example"))
            assert codes("bad.example") == [550, 550]
            second = judges.deployed(("also", "worse.example"), ("bites", "bad.example"))
            assert codes("worse.example") == [550, 550]
            broken(judges, second)
            killed(judges, codes)
            engine_off(judges, codes)
            dead_tables(judges, first, second)
            assert judges.command("policy", "rollback") == 0
            assert judges.run_it(first)
            assert codes("worse.example") == [250, 250]
            crashed(judges)
            assert judges.command("policy", "rollback", first[:12]) == 0
        for smtp in connections:
            smtp.close()
        ledger = on.settled()

        print(judges.took_s)
        assert all(min(took) < SOON_S and max(took) < LATE_S for took in judges.took_s.values())
        assert ledger["residual"] == 0
        assert set(load.promised) <= set(on.arrived())
        assert load.unknown == set()
        restarted(judges, first)


def broken(judges, running):
    """What cannot be loaded is refused by the check, and by the judges were it to get there."""
    path = judges.here.folder / "broken.toml"
    path.write_text(RULE.format(id="x", domain="y").replace("envelope.recipient", "envelop.recip"))
    assert judges.command("policy", "deploy", str(path)) == 2
    bundle = Bundle((Rule("x", "no.such == 1", "hold"),))
    note = Note(1, "op", "policy deploy", bundle.hash)
    judges.store.deploy("deploy", Loadable(bundle), "", facts.CANONICAL, note)
    wait_for(lambda: judges.all(lambda said: "no.such" in said.get("refused", "")), 5, "refused")
    assert judges.run_it(running)
    assert judges.command("policy", "rollback", running) == 0
    assert judges.all(lambda said: not said["refused"])


def killed(judges, codes):
    """A rule that is killed bites no more, and bites again when that is cleared."""
    judges.kill("bites", "--reason", "test")
    assert codes("bad.example") == [250, 250]
    assert codes("worse.example") == [550, 550]
    (judges.data / "policy" / "kill.toml").write_text("[[kill]]\nrul = 'x'\n")
    damaged = lambda said: "rul is not known" in said["killed"]["fault"]  # noqa: E731
    wait_for(lambda: judges.all(damaged), LATE_S, "an alarm")
    assert codes("bad.example") == [250, 250]
    judges.kill("--clear", "--all")
    assert codes("bad.example") == [550, 550]


def engine_off(judges, codes):
    """Without the engine mail is taken and waits; nothing is lost, and then it is judged."""
    judges.kill("--engine-off")
    assert codes("bad.example") == [250, 250]
    assert judges.json("audit")["pending"] > 0
    judges.kill("--clear", "--engine-off")
    wait_for(lambda: judges.json("audit")["pending"] == 0, 10, "all is judged")
    assert codes("bad.example") == [550, 550]


def dead_tables(judges, first, second):
    """With the tables gone bad and `watch` stopped, each judge goes back from its own disk."""
    tables, aside = judges.data / "tables.db", judges.data / "aside.db"
    os.kill(judges.here.process("watch"), signal.SIGSTOP)
    tables.rename(aside)
    tables.write_bytes(b"no tables" * 1000)
    judges.kill("--to", first[:10])
    assert judges.run_it(first)
    tables.unlink()
    aside.rename(tables)
    judges.kill("--clear", "--all")
    wait_for(lambda: judges.run_it(second), 3, "the promoted one again")


def crashed(judges):
    """A judge that is killed in the middle of a deployment has the old policy, or the new one."""
    before = judges.store.last()
    path = str(judges.write(("late", "late.example")))
    thread = threading.Thread(target=judges.command, args=("policy", "deploy", path))
    thread.start()
    wait_for(lambda: judges.store.last() != before, 10, "a deployment")
    os.kill(judges.here.process("judge", 1), signal.SIGKILL)
    new = judges.store.last().policy
    seen = set()

    def back():
        seen.add(judges.health(1).get("policy", ""))
        return judges.run_it(new)

    wait_for(back, 10, "the new policy on both")
    thread.join()
    assert seen <= {"", before.policy, new}


def restarted(judges, policy):
    """A start without tables goes on with what was promoted."""
    judges.here.stop()
    tables = judges.data / "tables.db"
    tables.rename(judges.data / "aside.db")
    judges.here.start()
    assert judges.run_it(policy)
    (judges.data / "aside.db").rename(tables)
