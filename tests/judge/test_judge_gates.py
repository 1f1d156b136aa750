"""The gates let a good policy through, and stop each thing that they are there for."""

import resource
import sys

import pytest
from tests.policy.varied import varied

from postweir.judge import gates, probing
from postweir.judge.bundles import shipped
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.bundle import Test as OwnTest

pytestmark = pytest.mark.real

# A worker with something wrong in it: what stands before is done first.
SICK = "import sys; from postweir.policy import worker; {}; worker.main(sys.argv[1:])"


def sick(how: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", SICK.format(how))


def rules(*conditions: str, **values: str) -> Bundle:
    kept = {"verb": "hold", "code": "SS", "text": "No.", **values}
    return Bundle(tuple(Rule(f"r{n}", when, **kept) for n, when in enumerate(conditions)))


def found(through: gates.Gates) -> list[str]:
    """Return the faults as lines: gate, rule and what."""
    return [f"{g.name}: {f.rule}: {f.what}" for g in through.results for f in g.faults]


def noticed(through: gates.Gates) -> list[str]:
    return [f"{g.name}: {f.rule}: {f.what}" for g in through.results for f in g.notices]


def test_the_shipped_policy_passes():
    """Every rule of it is seen true, false and deciding; nothing is objected to."""
    policy = shipped()
    heard: set[str] = set()
    through = gates.run(policy, {}, progress=lambda name, done, of: heard.add(name))

    assert found(through) == []
    assert noticed(through) == []
    names = [gate.name for gate in through.results]
    assert names == ["examples", "neutral facts", "worst facts", "kills", "self-test"]
    count = len([rule for rule in policy.rules if rule.mode != "off"])
    assert f"{count} deciding" in through.results[0].said
    assert heard >= {"examples", "worst facts", "kills", "self-test"}


def processor_s() -> float:
    """Return what this process and its ended workers have run: others' work does not count."""
    ran = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in ran)


def test_two_hundred_rules_within_the_time(capsys):
    """A policy of 200 rules of all kinds: all gates in some seconds, every rule seen."""
    bundle, sets = varied(200)
    before_s = processor_s()
    through = gates.run(bundle, sets)
    ran_s = processor_s() - before_s
    with capsys.disabled():
        each = ", ".join(f"{gate.name} {gate.took_s:.2f}" for gate in through.results)
        print(f"\n200 rules: {ran_s:.1f} s of processor time; {each}; {through.results[-1].said}")

    assert found(through) == []
    assert "200 seen true, 200 false" in through.results[0].said
    assert ran_s < 10  # 3 s, and the machine may be slow


def test_a_contradiction_is_a_fault_and_a_riddle_a_notice():
    """What can never be true is known for sure; what was only not found is said so."""
    overlapping = "startsWith('abc') && header.mailer.endsWith('cab') && size(header.mailer) == 5"
    bundle = rules(
        "usage.messages_1h > 10 && usage.messages_1h < 5", f"header.mailer.{overlapping}"
    )
    through = gates.run(bundle, {})

    assert found(through) == ["examples: r0: can never be true"]
    assert noticed(through) == ["examples: r1: no message was found of which it is true"]


def test_a_test_of_its_own_is_an_example():
    """What is not found is taken from a rule's own tests."""
    facts = {"header.mailer": "xyzzy"}
    when = "['xyzzy'].exists_one(w, header.mailer.contains(w)) && size(header.mailer) % 7 == 5"
    bundle = Bundle((Rule("r", when, "hold", tests=(OwnTest(facts),)),))

    assert noticed(gates.run(bundle, {})) == []


def test_a_rule_that_others_hide_is_a_fault():
    """Also where it takes two to hide it, and no condition is like the other."""
    hidden = rules("usage.messages_1h > 10", "usage.messages_1h < 20", "usage.messages_1d == 5")
    shadow = Bundle((*(Rule(r.id, r.when, "hold", mode="shadow") for r in hidden.rules[:2]),
                     hidden.rules[2]))  # fmt: skip

    said = found(gates.run(hidden, {}))
    assert "examples: r2: is never reached: whenever it is true, a rule before it is too: r0, r1" in said  # fmt: skip  # noqa: E501
    assert "r2" not in str(found(gates.run(shadow, {})))


def test_nobody_objects_to_what_is_not_known():
    """Nor refuses it for that; to hold what could not be read is a decision."""
    bundle = Bundle((
        Rule("guess", "sender.age_days < 7 && body.bytes > 5000000", "hold"),
        Rule("unread", "!body.known", "hold"),
        Rule("trial", "usage.messages_1h < 5", "refuse", "SS", "No.", mode="shadow"),
        Rule("young", "sender.age_days < 7", "defer", "SS", "No."),
        Rule("deaf", "!usage.known", "refuse", "SS", "No."),
        Rule("end", "true", "accept"),
    ))  # fmt: skip
    through = gates.run(bundle, {})

    objects = "objects to a message of which nothing is known"
    assert [line for line in found(through) if objects in line] == [
        f"neutral facts: young: {objects}", f"neutral facts: deaf: {objects}",
    ]  # fmt: skip
    assert noticed(through)[-1] == f"neutral facts: trial: {objects}"


def test_a_rule_that_may_fail_is_a_fault():
    """With the facts on which it does, even should the check of conditions have missed it."""
    blind = sick("from postweir.policy import dialect; dialect.look = lambda *_: dialect.Looked()")
    through = gates.run(
        rules("usage.known && 100 / usage.messages_1h > 3",
              "sender.state == 'x' && body.bytes * 1000000 > 5"), {}, command=blind,
    )  # fmt: skip

    said = found(through)
    assert len(said) == 2
    assert said[0].startswith("worst facts: r0: fails on some messages: divide by zero, with")
    assert "usage.messages_1h = 0" in said[0]
    assert "overflow" in said[1]
    assert "ask first" in through.results[2].faults[0].do


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("worker.Engine.mask = lambda *_: None", "kills: r0: r0 decides with r0 killed"),
        ("worker.decide = (lambda old: lambda p, said, f:"
         " old(p, ((r, True) for r, _ in said), f))(worker.decide)", "should"),
        ("worker.joined = lambda rules, row: 'body.bytes == 1 ? 2 : -1'", "self-test: r2: r2 dec"),
    ],
)  # fmt: skip
def test_an_engine_that_decides_otherwise_is_caught(how, what):
    """A worker that ignores kills, takes all for true, or joins rules wrongly, passes nothing."""
    bundle = rules("body.bytes > 1", "body.bytes > 0 && text.html", "body.parts > 3")

    assert any(what in line for line in found(gates.run(bundle, {}, command=sick(how))))


@pytest.mark.parametrize("act", ["time.sleep(60)", "os._exit(1)"])
def test_a_worker_that_hangs_or_dies_is_a_fault(act, monkeypatch):
    """The check comes back, names what the worker was asked, and lets nothing through."""
    monkeypatch.setattr(probing, "ANSWER_S", 0.5)
    how = (
        "import os, time; old = worker.Engine.evaluate; worker.Engine.evaluate ="
        f" lambda me, ask: {act} if ask.facts.get('body.bytes') == 301 else old(me, ask)"
    )
    through = gates.run(rules("body.bytes > 300"), {}, command=sick(how))

    assert not through.ok
    (fault,) = found(through)
    assert "the worker ended, or gave no answer in time among the examples" in fault
    assert "with body.bytes = 301" in fault


def test_a_worker_that_cannot_load_is_a_fault():
    """What the worker says of a bundle is told; so is its silence."""
    wrong, silent = rules("usage.mesages_1h > 3"), (sys.executable, "-c", "")

    assert "undeclared reference" in found(gates.run(wrong, {}))[0]
    assert "did not load" in found(gates.run(rules("body.known"), {}, command=silent))[0]


def test_the_deadline_is_a_gate():
    """A policy slower than an evaluation may be is stopped here, not at the first message."""
    through = gates.run(shipped(), {}, evaluate_s=0.000_001)

    assert "are allowed" in found(through)[-1]
    assert "self-test" in found(through)[-1]


def test_a_set_has_to_know_its_keys():
    """Sets are looked into as for mail: first and last key, in the worker."""
    bundle, sets = varied(20)
    deaf = sick("worker.Matching.derive = lambda *_: {}")

    assert gates.run(bundle, sets).ok
    assert "set partners does not know" in "".join(found(gates.run(bundle, sets, command=deaf)))
