"""The evaluator in this process: what the engine says, and what is made of it."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy import dialect, fused
from postweir.policy.bundle import Bundle, Pattern, Rule, Set, Throttle, set_bytes, set_name
from postweir.policy.evaluation import (
    PIECE_BYTES,
    Evaluate,
    Evaluated,
    Keys,
    Load,
    Loaded,
    Mask,
    PolicyFrame,
    loading,
)
from postweir.policy.facts import SCHEMA
from postweir.policy.worker import MEMORY_BYTES_MAX, Engine, load, serve
from postweir.runtime.frames import Frame, Splitter, encode, pack


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
def test_an_error_is_truthy_and_no_match(condition, monkeypatch):
    """The engine returns errors as texts, which are true to Python: they never match."""
    monkeypatch.setattr(dialect, "look", lambda *_: dialect.Looked())  # which takes none of these
    said, errors = verb(condition)

    assert said == "accept"
    assert len(errors) == 1


def test_wrong_facts_are_errors_not_matches():
    """A fact of another type than declared makes its rule fail, and only that."""
    for wrong in ("true", 1, ["x"]):
        said, errors = verb("body.known", {"body.known": wrong})
        assert (said, len(errors)) == ("accept", 1)


def test_an_error_may_hold_but_not_refuse(monkeypatch):
    """`on_error = "hold"` keeps the message for a person."""
    monkeypatch.setattr(dialect, "look", lambda *_: dialect.Looked())
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


def test_a_bundle_for_older_facts_is_loaded_when_it_compiles():
    """Facts only grow: what names none that is gone still means what it said."""
    older = Bundle((Rule("a", "true", "hold"),), schema="fs_older")
    gone = Bundle((Rule("a", "no.fact > 1", "hold"),), schema="fs_older")

    made, said = load(Load(older.canonical, older.schema))
    assert made is not None
    assert (said.policy, said.fault) == (older.hash, None)
    made, said = load(Load(gone.canonical, gone.schema))
    assert made is None
    assert "no.fact" in said.fault
    assert load(Load(b"{}", ""))[1].fault.startswith("no bundle")


HUGE = "(?i)" + "|".join(f"foo{i}[a-z]{{1,200}}x" for i in range(50))
PARTNERS = set_bytes(frozenset({"a.example", "b.example"}))
OWN = Bundle(
    (
        Rule("partner", "set.partners && pattern.cards", "hold"),
        Rule("slower", "throttle.young > 0", "throttle", "STF", "Slower.", throttle="young"),
        Rule("many", "envelope.recipients > limit.most", "defer", "STF", "Fewer."),
    ),
    sets=(Set("partners", "recipient_domains", set_name(PARTNERS), 2),),
    patterns=(Pattern("cards", "subject", "(?i)gift ?cards?"),),
    throttles=(Throttle("young", "sender", "recipients", 100, 3600, 50),),
    limits={"most": 10},
)


def own(facts: dict | None = None, **sent) -> Evaluated:
    made, said = load(Load(OWN.canonical, OWN.schema, {set_name(PARTNERS): PARTNERS}))
    assert made is not None, said
    return made.evaluate(Evaluate(1, facts or {}, **sent))


def test_a_policys_own_sets_and_patterns():
    """They are looked up in what is sent along, and those that are true are told."""
    texts, keys = {"subject": "Gift cards"}, {"recipient_domains": ["x.example", "b.example"]}

    both = own(texts=texts, keys=keys)
    assert both.verdict.rule == "partner"
    assert both.derived == {"set.partners": True, "pattern.cards": True}
    one = own(texts={"subject": "hello"}, keys=keys)
    assert (one.verdict.verb, one.derived) == ("accept", {"set.partners": True})
    assert own(keys={"recipient_domains": ["", "a.exampl", "a.example\nb.example"]}).derived == {}


def test_what_is_said_of_its_own_facts_is_believed():
    """Own tests and a replay say them, and nothing is derived against their word."""
    texts, keys = {"subject": "Gift cards"}, {"recipient_domains": ["b.example"]}

    said = {"set.partners": True, "pattern.cards": True}
    assert own(said).verdict.rule == "partner"
    denied = own({"pattern.cards": False}, texts=texts, keys=keys)
    assert (denied.verdict.verb, denied.derived) == ("accept", {"set.partners": True})
    assert own({"set.partners": False}, keys=keys).derived == {}


def test_a_verdict_can_be_had_again_from_what_is_kept():
    """The facts that were sent and derived come to the same verdict, byte for byte."""
    facts = {"throttle.young": 7, "envelope.recipients": 3}
    first = own(facts, texts={"subject": "hello"}, keys={"recipient_domains": ["b.example"]})

    again = own({**facts, **first.derived})
    assert pack(again.verdict) == pack(first.verdict)
    assert (first.verdict.rule, first.verdict.retry_after_s) == ("slower", 7)


def test_its_own_numbers():
    """A limit is a constant of the bundle; a test may say another."""
    assert own({"envelope.recipients": 10}).verdict.verb == "accept"
    assert own({"envelope.recipients": 11}).verdict.rule == "many"
    assert own({"envelope.recipients": 11, "limit.most": 11}).verdict.verb == "accept"


@pytest.mark.parametrize(
    ("bundle", "sets", "what"),
    [
        (OWN, {}, "set partners: its keys did not come"),
        (OWN, {set_name(PARTNERS): PARTNERS[:-1]}, "set partners: its keys are damaged"),
        (
            Bundle((), patterns=(Pattern("p", "text", HUGE),)),
            {},
            "1024 KiB",
        ),
        (Bundle((Rule("r", "set.no", "hold"),)), {}, "undeclared reference to 'set.no'"),
    ],
)
def test_what_cannot_be_used_is_said(bundle, sets, what):
    """A set that is not all there, or a pattern that is none, is a fault of the load."""
    made, said = load(Load(bundle.canonical, bundle.schema, sets))

    assert made is None
    assert what in said.fault


CONDITIONS = st.sampled_from([
    "body.known", "body.bytes > 1", "1 / body.bytes > 0", "body.anomalies[0] == 'cut'",
    "body.anomalies.exists(a, a == 'cut') // a comment", "usage . messages_1h > 1 || body.known",
    "((((((((((((((((((((((((((((body.bytes == 3))))))))))))))))))))))))))))", "true", "false",
])  # fmt: skip
RULES = st.lists(
    st.builds(
        Rule, st.just("r"), CONDITIONS, st.just("refuse"),
        mode=st.sampled_from(["enforce", "enforce", "enforce", "shadow", "off"]),
        on_error=st.sampled_from(["skip", "skip", "hold"]),
    ), max_size=12,
)  # fmt: skip
FACTS = st.fixed_dictionaries({}, optional={
    "body.known": st.sampled_from([True, False, 1, "true"]), "body.bytes": st.integers(0, 3),
    "body.anomalies": st.sampled_from([[], ["cut"], ["x"]]), "usage.messages_1h": st.integers(0, 2),
})  # fmt: skip


@given(RULES, FACTS, st.sets(st.integers(0, 11), max_size=3))
def test_rules_asked_together_say_what_they_say_alone(rules, facts, killed):
    """Joining is for speed alone: verdict, errors and trials are those of one by one."""
    rules = tuple(msgspec.structs.replace(rule, id=f"r{i}") for i, rule in enumerate(rules))
    # Conditions that the dialect refuses, too: what fails when it is asked must fail alike.
    with mock.patch.object(dialect, "look", return_value=dialect.Looked()):
        with mock.patch.object(fused, "JOINED_MAX", 4):
            made = Engine(Bundle(rules), "pol_x")
        with mock.patch.object(fused, "JOINED_MAX", 1):
            alone = Engine(Bundle(rules), "pol_x")
    assert made.faults == []

    for one in (made, alone):
        one.mask({f"r{i}" for i in killed})
    first, second = (one.evaluate(Evaluate(1, facts)) for one in (made, alone))
    assert (first.verdict, first.errors, first.shadow) == (
        second.verdict, second.errors, second.shadow,
    )  # fmt: skip
    assert int(first.verdict.rule[1:] or -1) not in killed


def test_an_error_among_rules_that_are_asked_together():
    """One wrong fact: the rule that needs it says so, and those behind it are still looked at."""
    made = engine("body.bytes > 1", "body.known", "usage.known // a comment", "body.bytes == 0")
    assert [row for row, expression in made._rows if expression] == [(0, 1, 2, 3)]

    said = made.evaluate(Evaluate(1, {"body.known": 1}))
    assert said.verdict.rule == "r3"
    assert [error.partition(":")[0] for error in said.errors] == ["r1"]


def test_rules_too_deep_to_be_joined_are_joined_in_halves():
    """The engine's parser stops at 32 in one another: fewer in a row are asked together."""
    deep = "(" * 15 + "body.bytes == 3" + ")" * 15
    made = engine(*[deep] * 24)

    assert [len(row) for row, _ in made._rows] == [12, 12]
    assert all(expression for _, expression in made._rows)
    assert made.evaluate(Evaluate(1, {"body.bytes": 3})).verdict.rule == "r0"


def test_killed_rules_are_left_out_until_they_are_not():
    """A mask says all that is killed: what it names no more stands again."""
    made = engine("true", "true", "true")
    said = []
    for killed in ({"r0"}, {"r0", "r1", "r2"}, {"r1"}, set()):
        made.mask(killed)
        verdict = made.evaluate(Evaluate(1, {})).verdict
        said.append(verdict.rule or verdict.verb)

    assert said == ["r1", "accept", "r0", "r0"]


def test_a_rule_on_trial_is_noted_and_passed_over():
    """It decides nothing, whatever it says; one that is off says nothing."""
    rules = tuple(
        Rule(f"r{i}", "true", "refuse", mode=mode)
        for i, mode in enumerate(("shadow", "off", "enforce", "shadow"))
    )

    said = Engine(Bundle(rules), "p").evaluate(Evaluate(1, {}))
    assert (said.verdict.rule, said.shadow) == ("r2", ["r0"])


def heard(connection: socket.socket, count: int) -> list[Frame]:
    splitter: Splitter[Frame] = Splitter(PolicyFrame)
    frames: list[Frame] = []
    while len(frames) < count:
        data = connection.recv(65536)
        assert data
        frames += splitter.feed(data)
    return frames


def test_served_over_a_socket():
    """Keys in pieces, load, mask, then evaluations in order; a hang-up ends it."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs,))
    thread.start()
    name = set_name(PARTNERS)
    ours.sendall(encode([
        Keys(name, PARTNERS[:5]), Keys(name, PARTNERS[5:]), Load(OWN.canonical, OWN.schema),
        *(Evaluate(i, {"envelope.recipients": 10 + i}) for i in range(2)),
        Mask(["many"]), Evaluate(2, {"envelope.recipients": 99}),
    ]))  # fmt: skip

    loaded, *said = heard(ours, 4)
    ours.close()
    thread.join(5)
    theirs.close()
    assert isinstance(loaded, Loaded)
    assert (loaded.policy, loaded.fault) == (OWN.hash, None)
    assert [(e.ask, e.verdict.verb) for e in said if isinstance(e, Evaluated)] == [
        (0, "accept"), (1, "defer"), (2, "accept"),
    ]  # fmt: skip


def test_large_sets_come_in_pieces():
    """No frame is larger than one may be, and what arrives is what was sent."""
    data = b"x" * (PIECE_BYTES + 1)

    *pieces, last = loading(b"{}", "fs", {"set_a": data, "set_b": b""})
    assert [(p.set, len(p.data)) for p in pieces] == [("set_a", PIECE_BYTES), ("set_a", 1),
                                                      ("set_b", 0)]  # fmt: skip
    assert last == Load(b"{}", "fs")


@pytest.mark.real
def test_the_process_is_confined():
    """It keeps no descriptor but its socket, has a bound on memory, and ends with us."""
    stranger = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(stranger, True)
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "postweir.policy.worker", str(theirs.fileno()),
         str(os.getpid()), str(1 << 29)], pass_fds=(theirs.fileno(), stranger),
    )  # fmt: skip
    theirs.close()
    os.close(stranger)
    bundle = Bundle(())
    ours.sendall(encode([Load(bundle.canonical, bundle.schema)]))
    heard(ours, 1)

    open_now = {int(name) for name in os.listdir(f"/proc/{worker.pid}/fd")}
    assert len(open_now) == 4
    soft, _ = resource.prlimit(worker.pid, resource.RLIMIT_AS)
    assert soft == MEMORY_BYTES_MAX + (1 << 29)
    assert resource.prlimit(worker.pid, resource.RLIMIT_FSIZE) == (0, 0)
    with open(f"/proc/{worker.pid}/cmdline", "rb") as file:
        assert file.read().startswith(b"postweir: policy promoted")
    ours.close()
    assert worker.wait(5) == 0


@pytest.mark.real
def test_one_that_spins_ends_by_itself():
    """With a judge that is stopped nobody ends it: the kernel does, once its time is used up."""
    spinning = (
        "import sys\nfrom postweir.policy import worker\nworker.CPU_S_MAX = 0.1\n"
        "def spin(*_):\n    while True: pass\n"
        "worker.Engine.evaluate = spin\nworker.main(sys.argv[1:])"
    )
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", spinning, str(theirs.fileno()), str(os.getpid())],
        pass_fds=(theirs.fileno(),),
    )
    theirs.close()
    bundle = Bundle(())
    ours.sendall(encode([Load(bundle.canonical, bundle.schema)]))
    heard(ours, 1)
    ours.sendall(encode([Evaluate(1, {})]))

    assert worker.wait(20) == -signal.SIGPROF
    ours.close()


def test_the_walk_reads_what_the_engine_writes():
    """Every function the dialect allows is one that the engine names so."""
    looked = dialect.look("r", "body.bytes + 1 > 2", _compiled("body.bytes + 1 > 2"), {})

    assert looked.faults == []
    assert looked.cost == 5


def _compiled(condition: str) -> bytes:
    made = engine(condition)
    return made._conditions[0].serialize()
