"""What a first-time administrator gets wrong, and what the check says to that."""

import pytest

from postweir.policy.check import faults_of
from postweir.policy.document import Files, Wrong, no_files, parse
from postweir.policy.evaluation import Load
from postweir.policy.worker import load

TWO_LOOPS = "envelope.recipient_domains.exists(a, envelope.recipient_domains.exists(b, {}))"
THREE_LOOPS = TWO_LOOPS.format("envelope.recipient_domains.exists(c, a == b && b == c)")


def check(text: str, files: Files = no_files) -> list[str]:
    """Return the faults as `postweir policy check` prints them, its worker called right here."""
    try:
        parsed = parse(text, "p.toml", files)
    except Wrong as wrong:
        return [str(fault) for fault in wrong.faults]
    _, loaded = load(Load(parsed.bundle.canonical, parsed.bundle.schema, parsed.sets))
    return [str(fault) for fault in faults_of(parsed, loaded)]


def rule(when: str, then: str = '{ verb = "hold" }') -> str:
    return f'[[rule]]\nid = "a"\nwhen = {when}\nthen = {then}\n'


CONDITIONS = [  # condition, where in it, what to do
    ("usage.recipient_1h > 3", 6, "did you mean usage.recipients_1h?"),
    ("usage.nothing_like_it > 3", 6, "there are usage.known, usage.messages_1m"),
    ("weather.sunny", 8, "facts begin with account, attachments, body"),
    ("findings.spam > 1", 15, "write 1.0, not 1"),
    ("usage.messages_1h > 1.5", 19, "write 3, not 3.0"),
    ("usage.messages_1h > \"3\"", 19, "numbers have no quotes, and texts have"),
    ("body.known == \"true\"", 12, "write true or false without quotes"),
    ("sender.state = \"stopped\"", 14, "to compare, write =="),
    ("usage.messages_1h => 3", 19, "write >="),
    ("sender.state == stopped", 17, 'a text stands in quotes: "stopped"'),
    ("sender.state == \u201cstopped\u201d", 17, "write straight quotes"),
    ("header.from_domain =~ \"a.*b\"", 20, "a regular expression stands in a [[pattern]]"),
    ("header.from_domain.matches(\"a.*b\")", 27, "name the regular expression in a [[pattern]]"),
    ("message.loops > 1 and body.known", 19, "write && for and"),
    ("message.loops > 1 & body.known", 19, "write && for and"),
    ("message.loops > 1 or body.known", 19, "write || for or"),
    ("not body.known", 5, "write ! before what must not be"),
    ("(message.loops > 1 && body.known", 33, "a bracket or a quote is not closed"),
    ("usage.messages_1 h > 3", 18, "a condition reads like: usage.messages_1h > 300"),
    ("usage.messages_1h", 1, "compare it with something"),
    ("body.known == True", 15, "write true"),
    ("len(body.anomalies) > 1", 4, "write size(...)"),
    ("header.from_domain.startswith(\"x\")", 30, "write startsWith(...)"),
    ("sender.identity.lower() == \"x\"", 22, "domains are in lower case already"),
    ("body.anomalies.contains(\"cut\")", 24, 'write "..." in FACT'),
    ("\"x\" in header.from_domain", 5, "write FACT.contains(\"...\")"),
    ("sender.type + sender.identity == \"x\"", 13, "numbers can be added"),
    ("(" * 60 + "message.loops > 1" + ")" * 60, 1, "leave out brackets"),
    (THREE_LOOPS, 108, "make two rules of it"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "column", "do"), CONDITIONS)
def test_a_mistake_in_a_condition_is_told_once(condition, column, do):
    """File, line, rule and column; and one thing to do, which is the right one."""
    (fault,) = check(rule(f"'{condition}'"))

    where, advice = fault.split("\n    ")
    assert where.startswith(f"p.toml:3: rule a: in the condition, column {column}: ")
    assert do in advice
    assert "overload" not in fault
    assert "undeclared" not in fault


NEVER = "'message.loops > 1'"
TEXTS = [  # text, beginning of the fault, what to do
    ("", "p.toml: there is no rule", "postweir policy new"),
    ("# nothing\n", "p.toml: there is no rule", "postweir policy new"),
    (rule('"a == "b""'), "p.toml:3: is not TOML", "stands in single quotes: when = '...'"),
    (rule("message.loops > 1"), "p.toml:3: is not TOML", 'a text stands in quotes: when = "..."'),
    (rule('"x'), "p.toml:3: is not TOML", "a quote is not closed on this line"),
    (rule(NEVER, '{ verb = "hold",\n  code = "SS" }'), "p.toml:4: is not TOML", "on one line"),
    (rule(NEVER, '{ verb = "reject" }'), "p.toml:4: rule a: the verb is 'reject'", "refuse?"),
    (rule(NEVER, '{ verb = "tag" }'), "p.toml:4: rule a: tag needs a header", "header = "),
    (rule(NEVER, '"hold"'), "p.toml:4: rule a: then is no table", 'then = { verb = "hold" }'),
    (rule(NEVER, '{ verb = "refuse" }'), "p.toml:4: rule a: refuse needs a code", "code = \"SS\""),
    (rule(NEVER, '{ verb = "refuse", code = "SS", text = "no\\nway" }'),
     "p.toml:4: rule a: the text has more than one line", "one plain sentence"),
    (rule(NEVER, '{ verb = "defer", code = "SS", text = "x", retry_after_s = "15m" }'),
     "p.toml:4: rule a: then.retry_after_s is '15m'", "write whole seconds, 1 to 86400"),
    (rule(NEVER) + rule(NEVER), "p.toml:6: rule a: has this id a second time", "p.toml:2"),
    (rule('"true"') + rule(NEVER).replace('"a"', '"b"'),
     "p.toml:5: rule b: is never reached: rule a before it", "move that one to the end"),
    (rule(NEVER).replace("[[rule]]", "[rule]"), "p.toml:1: rule is no list", "[[rule]]"),
    (rule(NEVER).replace("[[rule]]", "[[rules]]"), "p.toml:1: rules is not known", "[[rule]]?"),
    (rule(NEVER).replace("when", "if", 1), "p.toml:3: rule a: if is not known", "mean when?"),
    (rule(NEVER).replace('"a"', '""'), "p.toml:2: rule number 1: there is no id", "id = "),
    (rule("'header.from_domain in [" + ", ".join(f'"h{n}"' for n in range(900)) + "]'"),
     "p.toml:3: rule a: the condition is too long", "make several rules of it"),
    ("# x\n" * 2_500_000, "p.toml: is larger than 256 KiB", "shorten it"),
    ("[[rule]]\nid = \"a\0\"", "p.toml:2: is not TOML", "correct the line"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what", "do"), TEXTS, ids=[t[1] for t in TEXTS])
def test_a_mistake_in_the_text_is_told_where_it_is(text, what, do):
    """The first fault says file and line, and what to do."""
    fault = check(text)[0]

    assert fault.startswith(what)
    assert do in fault.split("\n    ")[1]


def test_what_is_no_mistake():
    """The mark some editors begin a file with, line ends of Windows, a last rule for the rest."""
    text = rule(NEVER) + rule('"true"').replace('"a"', '"rest"')

    assert check("\ufeff" + text) == []
    assert check(text.replace("\n", "\r\n")) == []


def test_a_set_that_cannot_be_read_is_one_mistake():
    """What asks for it is not wrong as well: that there is no such fact would mislead."""
    text = '[[set]]\nid = "ours"\nof = "client"\nfile = "ours.txt"\n' + rule('"set.ours"')
    text += "[[rule.test]]\nfacts = { set.ours = true }\n"
    (fault,) = check(text, lambda _: "cannot be read: no such file")

    assert fault.startswith("p.toml:4: set ours: cannot be read")


def test_what_stands_beside_facts_is_told_of_when_it_stands_among_them():
    """No fact is meant that is spelt a little like it."""
    text = rule('"body.parts > 3"') + "[[rule.test]]\nfacts = { body.parts = 4, match = false }\n"
    (fault,) = check(text)

    assert "matches and name stand below facts" in fault
