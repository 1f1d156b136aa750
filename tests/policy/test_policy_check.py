"""What the engine says becomes a line in the author's file, and what to do."""

from postweir.policy.check import faults_of
from postweir.policy.document import parse
from postweir.policy.evaluation import Loaded, RuleFault

TEXT = """\
[[rule]]
id = "one"
when = "usage.mesages_1h > 3"
then = { verb = "hold" }

[[rule]]
id = "two"
when = '''
  body.known &&
  body.byte > 3'''
then = { verb = "hold" }
"""


def told(*found: RuleFault) -> list[str]:
    loaded = Loaded("pol_x", "x", list(found))
    return [str(fault) for fault in faults_of(parse(TEXT, "p.toml"), loaded)]


def test_place_and_advice():
    """File and line of the condition, the column in it, the fact that was meant."""
    found = told(
        RuleFault("one", 1, 6, "undeclared reference to 'usage.mesages_1h'"),
        RuleFault("two", 2, 7, "undeclared reference to 'body.byte'"),
        RuleFault("two", 1, 1, "undeclared reference to 'nothing.like'"),
        RuleFault("one", 1, 3, "found no matching overload for '_>_' applied to '(double, int)'"),
        RuleFault("one", 1, 3, "maps are not taken: use facts as they are"),
        RuleFault("", 1, 1, "all rules may cost 30000 steps, 20000 are taken"),
    )

    assert found[0] == (
        "p.toml:3: rule one: in the condition, column 6: "
        "there is no fact usage.mesages_1h\n    did you mean usage.messages_1h?"
    )
    assert found[1].startswith("p.toml:10: rule two: ")
    assert "did you mean body.bytes?" in found[1]
    assert "facts begin with account, attachments, body" in found[2]
    assert "write 1.0, not 1" in found[3]
    assert found[4].endswith("maps are not taken\n    use facts as they are")
    assert len(found) == 5  # what all rules cost is told once none of them has a fault
    assert told(RuleFault("", 1, 1, "all rules may cost 30000 steps, 20000 are taken")) == [
        "p.toml: all rules may cost 30000 steps, 20000 are taken\n"
        "    make conditions smaller, or rules fewer"
    ]


def test_no_answer_is_a_fault():
    """A policy that cannot be compiled in time is not good."""
    parsed = parse(TEXT, "p.toml")

    assert "in time" in str(faults_of(parsed, None)[0])
    assert faults_of(parsed, Loaded("pol_x", None)) == []
