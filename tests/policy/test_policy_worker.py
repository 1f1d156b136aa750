"""The evaluator in this process: what the engine says, and what is made of it."""

import os
import resource
import socket
import subprocess
import sys
import threading

import pytest

from postweir.policy import dialect
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate, Evaluated, Load, Loaded, PolicyFrame
from postweir.policy.facts import SCHEMA
from postweir.policy.worker import Engine, load, serve
from postweir.runtime.frames import Frame, Splitter, encode


def engine(*conditions: str, on_error: str = "skip") -> Engine:
    rules = tuple(
        Rule(f"r{i}", when, "refuse", "SS", "No.", on_error=on_error)
        for i, when in enumerate(conditions)
    )
    return Engine(Bundle(rules), "pol_x")


def faults(*conditions: str) -> list[str]:
    return [f"{f.line}:{f.column} {f.what}" for f in engine(*conditions).faults]


def verb(condition: str, facts: dict | None = None) -> tuple[str, list[str]]:
    made = engine(condition)
    assert made.faults == []
    said = made.evaluate(Evaluate(1, facts or {}))
    return said.verdict.verb, said.errors


def test_a_condition_over_facts():
    """Facts that are not given are neutral."""
    assert verb("body.bytes > 10 && findings.spam < 0.5", {"body.bytes": 11}) == ("refuse", [])
    assert verb("body.bytes > 10") == ("accept", [])
    assert verb("'a.example' in envelope.recipient_domains",
                {"envelope.recipient_domains": ["a.example"]}) == ("refuse", [])  # fmt: skip


@pytest.mark.parametrize(
    "condition",
    ["1 / body.bytes > 0", "body.bytes % body.bytes == 1", "body.anomalies[7] == 'x'",
     "9223372036854775807 + body.bytes + 1 > 0", "1 / body.bytes > 0 && true"],
)  # fmt: skip
def test_an_error_is_truthy_and_no_match(condition):
    """The engine returns errors as texts, which are true to Python: they never match."""
    said, errors = verb(condition)

    assert said == "accept"
    assert len(errors) == 1


def test_wrong_facts_are_errors_not_matches():
    """A fact of another type than declared makes its rule fail, and only that."""
    for wrong in ("true", 1, ["x"]):
        said, errors = verb("body.known", {"body.known": wrong})
        assert (said, len(errors)) == ("accept", 1)


def test_an_error_may_hold_but_not_refuse():
    """`on_error = "hold"` keeps the message for a person."""
    made = engine("1 / body.bytes > 0", on_error="hold")

    assert made.evaluate(Evaluate(1, {})).verdict.verb == "hold"


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("usage.mesages_1h > 3", "undeclared reference to 'usage.mesages_1h'"),
        ("findings.spam > 3", "found no matching overload"),
        ("body.bytes >", "Syntax error"),
        ("body.bytes", "is no question"),
        ("sender.key.matches('a+')", "matches is not taken"),
        ("sender.key + 'x' == 'yx'", "+ is not taken"),
        ("body.anomalies + body.anomalies == []", "+ is not taken"),
        ("body.anomalies.map(a, a) == []", "this loop is not taken"),
        ("body.anomalies.filter(a, a == 'x') == []", "this loop is not taken"),
        ("{'a': 1}['a'] == 1", "maps are not taken"),
        ("int(sender.key) > 3", "int is not taken"),
        ("dyn(body.bytes) == 1", "dyn is not taken"),
        ("type(body.known) == bool", "type is not taken"),
        ("timestamp('2020-01-01T00:00:00Z') < timestamp('2020-01-01T00:00:01Z')", "not taken"),
        ("has(body.known)", "has() is not taken"),
        ("sender.key == 'has(' || has (body.known)", "has() is not taken"),
        ("[1].all(a, [1].all(b, [1].all(c, a + b + c > 0)))", "more than 2 loops"),
        ("body.anomalies.all(a, envelope.recipient_domains.all(b, a != b))", "may cost"),
        (" || ".join(["body.bytes > 1"] * 300), "nodes"),
        ("(" * 100 + "true" + ")" * 100, "recursion limit"),
    ],
)
def test_what_a_condition_may_not_say(condition, what):
    """Each is refused when it is compiled, with words for it."""
    assert any(what in fault for fault in faults(condition)), faults(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "body.anomalies.exists(a, a == 'bound')",
        "envelope.recipient_domains.all(d, d.endsWith('.example'))",
        "envelope.recipient_domains.exists_one(d, d == 'a.example')",
        "['a', 'b'].exists(x, envelope.recipient_domains.exists(d, d.startsWith(x)))",
        "size(sender.key) > 3 && sender.identity.contains('@')",
        "double(body.bytes) * 0.5 + 1.0 > 3.0 && body.bytes + 1 > 2",
        "sender.key == 'has(x)' ? body.known : !body.known",
        "true",
    ],
)
def test_what_it_may_say(condition):
    """The dialect leaves enough to say."""
    assert faults(condition) == []


def test_the_column_of_a_fault():
    """A fault points at its place, in the line where it stands."""
    assert faults("true &&\n  sender.key.matches('a')")[0].startswith("2:")
    assert faults("true && usage.x > 1")[0].startswith("1:")


def test_all_rules_together_have_a_bound():
    """Many cheap rules are dear."""
    condition = "envelope.recipient_domains.all(d, d != 'x') && " * 4 + "true"
    few, many = engine(*[condition] * 5), engine(*[condition] * 60)

    assert few.faults == []
    assert "all rules may cost" in many.faults[0].what


def test_the_worst_policy_that_is_taken_is_quick():
    """What the check lets through is evaluated far below the deadline, on the worst facts."""
    condition = " && ".join(["envelope.recipient_domains.all(d, d != 'x')"] * 4)
    rules = [condition] * 11
    made = engine(*rules)
    assert made.faults == []
    worst = {
        name: ["y" * 256] * 64 if fact.type == "list" else "y" * 256
        for name, fact in SCHEMA.items() if fact.type in ("list", "string")
    }  # fmt: skip
    took = min(made.evaluate(Evaluate(1, worst)).took_us for _ in range(5))

    assert took < 15_000


def test_a_bundle_for_other_facts_is_refused():
    """Rules written for another schema are not guessed at."""
    other = Bundle((Rule("a", "true", "hold"),), schema="fs_other")

    made, said = load(Load(other.canonical, other.schema))
    assert made is None
    assert "written for facts fs_other" in said.fault
    assert load(Load(b"{}", ""))[1].fault.startswith("no bundle")


def heard(connection: socket.socket, count: int) -> list[Frame]:
    splitter: Splitter[Frame] = Splitter(PolicyFrame)
    frames: list[Frame] = []
    while len(frames) < count:
        data = connection.recv(65536)
        assert data
        frames += splitter.feed(data)
    return frames


def test_served_over_a_socket():
    """Load, then evaluations in order; a hang-up ends it."""
    ours, theirs = socket.socketpair()
    bundle = Bundle((Rule("big", "body.bytes > 1", "hold"),))
    thread = threading.Thread(target=serve, args=(theirs,))
    thread.start()
    ours.sendall(encode([Load(bundle.canonical, bundle.schema)]
                        + [Evaluate(i, {"body.bytes": i}) for i in range(3)]))  # fmt: skip

    loaded, *said = heard(ours, 4)
    ours.close()
    thread.join(5)
    theirs.close()
    assert loaded == Loaded(bundle.hash, None)
    assert [(e.ask, e.verdict.verb) for e in said if isinstance(e, Evaluated)] == [
        (0, "accept"), (1, "accept"), (2, "hold"),
    ]  # fmt: skip


@pytest.mark.real
def test_the_process_is_confined():
    """It keeps no descriptor but its socket, has a bound on memory, and ends with us."""
    stranger = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(stranger, True)
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "postweir.policy.worker", str(theirs.fileno()),
         str(os.getpid())], pass_fds=(theirs.fileno(), stranger),
    )  # fmt: skip
    theirs.close()
    os.close(stranger)
    bundle = Bundle(())
    ours.sendall(encode([Load(bundle.canonical, bundle.schema)]))
    heard(ours, 1)

    open_now = {int(name) for name in os.listdir(f"/proc/{worker.pid}/fd")}
    assert len(open_now) == 4
    soft, _ = resource.prlimit(worker.pid, resource.RLIMIT_AS)
    assert 0 < soft < 1 << 30
    with open(f"/proc/{worker.pid}/cmdline", "rb") as file:
        assert file.read().startswith(b"postweir: policy promoted")
    ours.close()
    assert worker.wait(5) == 0


def test_the_walk_reads_what_the_engine_writes():
    """Every function the dialect allows is one that the engine names so."""
    looked = dialect.look("r", "body.bytes + 1 > 2", _compiled("body.bytes + 1 > 2"))

    assert looked.faults == []
    assert looked.cost == 5


def _compiled(condition: str) -> bytes:
    made = engine(condition)
    return made._conditions[0].serialize()
