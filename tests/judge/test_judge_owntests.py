"""A policy's own tests run in a real worker, each rule by itself, and a failure explains itself."""

import sys

import pytest

from postweir.judge.checking import check
from postweir.judge.engine import WORKER
from postweir.judge.owntests import fault, run
from postweir.judge.probing import Gone
from postweir.policy.document import parse

pytestmark = pytest.mark.real

TEXT = """\
[limits]
many = 9
[[set]]
id = "partners"
of = "from_domain"
items = ["a.example"]
[[pattern]]
id = "gifts"
of = "subject"
pattern = "gift"
[[throttle]]
id = "young"
key = "sender"
of = "messages"
rate = 1
per_s = 1
burst = 1

[[rule]]
id = "first"
when = "body.parts > limit.many"
then = { verb = "hold" }
[[rule.test]]
facts = { body.parts = 10 }
[[rule.test]]
facts = { body.parts = 9 }
matches = false

[[rule]]
id = "behind"
when = '''
  body.parts > 3 &&
  (set.partners || pattern.gifts) && throttle.young > 0'''
then = { verb = "throttle", throttle = "young", code = "STF", text = "Slower." }
mode = "shadow"
[[rule.test]]
name = "all of it"
facts = { body.parts = 50, set.partners = true, throttle.young = 3 }
[[rule.test]]
facts = { body.parts = 50, pattern.gifts = true }

[[rule]]
id = "off"
when = 'text.html'
then = { verb = "hold" }
mode = "off"
[[rule.test]]
facts = { text.html = true }
"""


def test_each_test_is_of_its_rule_alone():
    """What stands before it, and its mode, do not matter; own facts may be given."""
    first, second, third, failed, off = run(parse(TEXT, "p.toml"), WORKER)

    assert [one.ok for one in (first, second, third, off)] == [True] * 4
    assert (third.title, failed.title) == ("test 1 (all of it)", "test 2")
    assert (failed.ok, failed.came, failed.where) == (False, "false", "p.toml:39")
    assert failed.parts == (
        ("body.parts > 3", "true"), ("set.partners", "false"), ("pattern.gifts", "true"),
        ("throttle.young > 0", "false"),
    )  # fmt: skip
    assert str(fault(failed)) == (
        "p.toml:39: rule behind: test 2: it should be true, and is false\n"
        "    with body.parts = 50, "
        "pattern.gifts = true: body.parts > 3 is true; set.partners is false; pattern.gifts is "
        "true; throttle.young > 0 is false"
    )


GIVEN = """
[[rule.test]]
name = "what the pattern reads, and a host below the set's"
facts = { body.parts = 4, throttle.young = 1 }
texts = { subject = "a gift" }
keys = { from_domain = ["MAIL.a.example"] }
[[rule.test]]
texts = { subject = "gif" }
facts = { body.parts = 4, throttle.young = 1 }
matches = false
[[rule.test]]
keys = { from_domain = ["a.example.org"] }
matches = true
"""


def test_what_patterns_and_sets_look_at_may_be_given():
    """As the judge would send it; and a failure tells what was given."""
    text = TEXT.replace('\n[[rule]]\nid = "off"', GIVEN + '\n[[rule]]\nid = "off"')
    tested = run(parse(text.replace("||", "&&"), "p.toml"), WORKER)[4:7]

    assert [one.came for one in tested] == ["true", "false", "false"]
    assert "with from_domain = ['a.example.org', 'example.org']" in str(fault(tested[2]))


def test_a_failure_keeps_the_policy_out_before_the_gates():
    """The rest is told once its author has what they meant."""
    report = check(TEXT, "p.toml")

    assert [one.what for one in report.faults] == ["test 2: it should be true, and is false"]
    assert [one.name for one in report.passed] == ["form", "conditions"]
    assert (len(report.tests), report.ok) == (5, False)


def test_good_tests_are_followed_by_the_gates():
    """And what was tried is told, with what all rules may cost."""
    report = check(TEXT.replace("gifts = true }", "gifts = true }\nmatches = false"), "p.toml")

    assert report.faults == ()
    assert [one.name for one in report.passed][:3] == ["form", "conditions", "own tests"]
    assert len(report.passed) > 5
    assert 10 < report.cost < 100


def test_a_worker_that_dies_is_a_fault():
    """No test passes because nobody answered."""
    with pytest.raises(Gone):
        run(parse(TEXT, "p.toml"), (sys.executable, "-c", ""))
