"""What a policy may say becomes what it means; all else becomes faults, never a traceback."""

import copy
import datetime
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.policy.toml_text import Huge, dumped

from postweir.policy.bundle import (
    Pattern,
    Rule,
    Set,
    Throttle,
    from_canonical,
    set_bytes,
    set_name,
)
from postweir.policy.bundle import Test as Case
from postweir.policy.document import Fault, Source, Wrong, parse

WHOLE = """\
[limits]
new_recipients = 300

[[set]]
id = "partners"
of = "recipient_domains"
file = "lists/partners.txt"

[[set]]
id = "ours"
of = "client"
items = ["192.0.2.1", "192.0.2.8/31"]

[[pattern]]
id = "gift_cards"
of = "subject"
pattern = "(?i)gift ?cards?"

[[throttle]]
id = "young"
key = "sender"
of = "recipients"
rate = 100
per_s = 3600
burst = 50

[[rule]]
id = "young-sender"
when = "sender.age_days < 7 && throttle.young > 0"
then = { verb = "throttle", throttle = "young", code = "STF", text = "Too many." }
mode = "shadow"
on_error = "hold"
owner = "abuse desk"
severity = "medium"
help = "New senders may write to 100 recipients an hour."
[[rule.test]]
facts = { "sender.age_days" = 1, "throttle.young" = 60 }
[[rule.test]]
name = "an old one"
facts = { sender.age_days = 90, throttle.young = 60 }
matches = false

[[rule]]
id = "rest"
when = "pattern.gift_cards && !set.partners && !set.ours || body.parts > limit.new_recipients"
then = { verb = "tag", header = "X-Suspect:  yes", pool = "slow", lifetime_s = 3600 }

[[rule]]
id = "bulk"
when = "header.list_unsubscribe"
then = { verb = "route", pool = "bulk" }

[[rule]]
id = "odd"
when = "body.anomalies == ['bound']"
then = { verb = "hold", hold_s = 3600 }
"""


def files(name):
    assert name == "lists/partners.txt"
    return b"\xef\xbb\xbf# ours\nExample.COM\r\n\nb\xc3\xbccher.example  # books\nexample.com.\n"


def told(text, files=files):
    with pytest.raises(Wrong) as caught:
        parse(text, "dir/p.toml", files)
    return [str(fault) for fault in caught.value.faults]


def test_all_that_a_policy_may_say():
    """Each table and key arrives where the engine, the judge and the store look for it."""
    parsed = parse(WHOLE, "dir/p.toml", files)
    bundle = parsed.bundle

    keys = set_bytes(frozenset({"example.com", "xn--bcher-kva.example"}))
    ours = set_bytes(frozenset({"192.0.2.1", "192.0.2.8", "192.0.2.9"}))
    assert bundle.sets == (
        Set("partners", "recipient_domains", set_name(keys), 2),
        Set("ours", "client", set_name(ours), 3),
    )
    assert parsed.sets == {set_name(keys): keys, set_name(ours): ours}
    assert bundle.patterns == (Pattern("gift_cards", "subject", "(?i)gift ?cards?"),)
    assert bundle.throttles == (Throttle("young", "sender", "recipients", 100, 3600, 50),)
    assert bundle.limits == {"new_recipients": 300}
    assert bundle.rules[0] == Rule(
        "young-sender", "sender.age_days < 7 && throttle.young > 0", "throttle", "STF",
        "Too many.", mode="shadow", on_error="hold", owner="abuse desk", severity="medium",
        throttle="young", help="New senders may write to 100 recipients an hour.",
        tests=(Case({"sender.age_days": 1, "throttle.young": 60}),
               Case({"sender.age_days": 90, "throttle.young": 60}, False, "an old one")),
    )  # fmt: skip
    assert (bundle.rules[1].header, bundle.rules[1].lifetime_s) == ("X-Suspect: yes", 3600)
    assert (bundle.rules[2].pool, bundle.rules[3].hold_s) == ("bulk", 3600)
    assert from_canonical(bundle.canonical) == bundle


def test_notices_do_not_fail():
    """What is not used, is empty, or leaves people without an answer is said and taken."""
    text = WHOLE.replace("!set.ours || ", "true || ").replace('["192.0.2.1", "192.0.2.8/31"]', "[]")
    notices = [str(one) for one in parse(text, "p.toml", files).notices]

    assert "p.toml:9: set ours: no rule looks at it\n    use it in a condition, as set.ours, " \
           "or leave it out" in notices  # fmt: skip
    assert "p.toml:9: set ours: is empty\n    its fact is false for every message" in notices
    assert any("rest, bulk and odd have no owner" in one for one in notices)
    assert not any("has no help" in one for one in notices)  # nobody is refused without


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("new_recipients = 300", "new_recipients = 3.5", 2, "new_recipients is 3.5"),
        ("new_recipients = 300", "sender_messages_1h = 5", 2, "the account's own setting"),
        ("new_recipients = 300", "New = 5", 2, "use a-z, 0-9 and _"),
        ("[limits]\nnew_recipients = 300", "limits = 3", 1, "limits is a whole number"),
        ('of = "recipient_domains"', 'of = "domains"', 6, "did you mean recipient_domains?"),
        ('"lists/partners.txt"', '"/etc/passwd"', 7, "is not beside the policy"),
        ('"lists/partners.txt"', '"a/../../x"', 7, "is not beside the policy"),
        ('"lists/partners.txt"', '"a\\u0000b"', 7, "is no name of a file"),
        ('"192.0.2.8/31"', '"10.0.0.0/8"', 12, "'10.0.0.0/8' is no key of client"),
        ('"192.0.2.8/31"', "3", 12, "items is no list of texts"),
        ('file = "lists/partners.txt"', "", 4, "needs a file or items"),
        ('items = [', 'file = "lists/partners.txt"\nitems = [', 12, "needs a file or items"),
        ('id = "partners"', 'id = "in"', 5, "the words of the language itself"),
        ('id = "ours"', 'id = "partners"', 10, "set partners: has this id a second time"),
        ('of = "subject"', 'of = "body"', 16, "did you mean text?"),
        ('pattern = "(?i)gift ?cards?"', 'pattern = ""', 17, "there is no pattern"),
        ("rate = 100", "rate = 0", 23, "rate is 0"),
        ("rate = 100", "", 19, "throttle young: rate is missing"),
        ("per_s = 3600", 'window = "1h"', 24, "did you mean per_s?"),
        ('key = "sender"', 'by = "sender"', 21, "did you mean key?"),
        ('throttle = "young", ', 'throttle = "yung", ', 27, "did you mean young?"),
        ("&& throttle.young > 0", "&& true", 27, "whether young has room or not"),
        ('"sender.age_days" = 1', '"sender.age_day" = 1', 37, "did you mean sender.age_days?"),
        ('"sender.age_days" = 1', '"sender.age_days" = "1"', 37, "is a whole number, and not '1'"),
        ('"sender.age_days" = 1', '"findings.spam" = 1', 37, "is a fraction, and not 1"),
        ('"sender.age_days" = 1', '"findings.spam" = nan', 37, "is a fraction, and not nan"),
        ('"sender.age_days" = 1', '"limit.new_recipients" = 1', 37, "a number of this policy"),
        ("matches = false", "matches = 0", 41, "matches is 0"),
        ("matches = false", "expect = false", 41, "did you mean matches?"),
        ("matches = false", "texts = { subjet = 'x' }", 41, "there is no text subjet"),
        ("matches = false", "texts = { subject = 1 }", 41, "subject is 1"),
        ("matches = false", "keys = { client = '127.0.0.1' }", 41, "client is '127.0.0.1'"),
        ("matches = false", "keys = 5", 41, "keys is a whole number"),
        ("lifetime_s = 3600 }", "lifetime_s = 3600, hold_s = 60 }", 46, "hold_s belongs to hold"),
        ('severity = "medium"', 'severity = "warning"', 34, "did you mean medium?"),
        ('help = "New', 'help = "\\u0007New', 35, "not printable"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_where_it_is(old, new, where, what):
    """With its line, and what to do, in the words of who knows other filters."""
    assert old in WHOLE
    found = [one for one in told(WHOLE.replace(old, new, 1)) if what in one]

    assert found, told(WHOLE.replace(old, new, 1))
    assert found[0].startswith(f"dir/p.toml:{where}: ")


def test_a_key_that_is_none_is_told_with_its_file_and_line():
    """A set's file has lines of its own; a list of the wrong kind does not fill the screen."""
    found = told(WHOLE, lambda _: b"example.com\nhttp://example.org/\n" + b"com\n" * 1000)

    assert found[0] == (
        "dir/lists/partners.txt:2: set partners: 'http://example.org/' is no key of "
        "recipient_domains\n    write a host or domain, such as example.com; those below it count "
        "too"
    )
    assert len(found) == 10
    assert told(WHOLE, lambda _: b"a.example\n\xff\n")[0].startswith(
        "dir/lists/partners.txt:2: set partners: is not UTF-8"
    )
    assert "it is gone" in told(WHOLE, lambda _: "it is gone")[0]


def test_all_sets_together_have_a_bound(monkeypatch):
    """Also when a few lines of networks stand for more addresses than are taken."""
    monkeypatch.setattr("postweir.policy.sets.KEYS_MAX", 100_000)
    networks = ", ".join(f'"10.{n}.0.0/16"' for n in range(200))
    text = WHOLE.replace('"192.0.2.1", "192.0.2.8/31"', networks)

    assert "set ours: is too large" in told(text)[0]


def test_lines_are_found_past_long_texts():
    """What looks like a table in a long text or a list is none; a test is its rule's."""
    text = """\
[[rule]]
id = "a"
help = '''
[[rule]]
id = "no"
'''
when = '''
body.known'''
x = [
  "[[rule]]",
]
[[rule.test]]
facts = {}
[[ rule ]]  # second
"id" = "b"
[[rule.test]]
facts = {}
[[rule.test]]
facts = {}
"""
    source = Source("p", text)

    assert [source.line_of(0, "id"), source.line_of(1, "id")] == [2, 15]
    assert source.condition_line(0) == 8
    assert source.where_test(0, 0, "facts") == "p:13"
    assert [source.where_test(1, n) for n in (0, 1, 2)] == ["p:16", "p:18", "p:14"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a." * 20_000 + "a = 1", "a key of more parts than any table has"),
        ("a = { " + "a . " * 20_000 + "a = 1 }", "a key of more parts than any table has"),
        ("a = " + "[" * 100_000, "nested too deep"),
        ("a = " + "{a=" * 50_000, "nested too deep"),
        ("a = " + "9" * 100_000, "is not TOML"),
        ("x" * 300_000, "is larger than 256 KiB"),
        ("include = 'p.toml'\n", "include is not known"),
        ("[[rule]]\n" * 501, "501 rules"),
        ("[[set]]\n" * 51, "51 sets"),
        ("[[rule]]\nid = 'a'\n" + "".join(f"k{n} = 1\n" for n in range(20_000)), "k99"),
        (
            "[[rule]]\n[[rule.test]]\n[rule.test.facts]\n"
            + "".join(f"usage.k{n} = 1\n" for n in range(15_000)),
            "usage.k5",
        ),
    ],
)
def test_a_hostile_text_is_refused_at_once(text, what):
    """Before it costs time or memory: the reader of TOML is quadratic in the parts of a key."""
    assert any(what in one for one in told(text))


SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**53 + 1, 2**63, 10**60]),
    st.builds(Huge),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\0", "a" * 5000, "in", "sender", "refuse", "X-A: b", "(" * 400, "{}"]),
    st.just(datetime.date(2026, 1, 1)),
    st.just(datetime.time(1, 2)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(value, path=()):
    """Yield where something stands in a document."""
    yield path
    if isinstance(value, dict | list):
        for at, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, at))


GOOD = tomllib.loads(WHOLE)
PLACES = list(places(GOOD))[1:]


def put(document, path, new, *, beside):
    *way, last = path
    for step in way:
        if not isinstance(document, dict | list):
            return
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(document, dict):
        document[str(last) if beside is None else beside] = new
    elif isinstance(document, list) and last in range(len(document)):
        document[last] = new


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), VALUES, st.one_of(st.none(), st.text(max_size=6))),
        min_size=1, max_size=3,
    )
)  # fmt: skip
@example([(("rule", 0, "test", 0, "facts"), {"sender": {"age_days": Huge()}}, None)])
def test_any_value_anywhere(changes):
    """Faults or a bundle, whatever stands where: never a traceback, and a bundle that is whole."""
    document = copy.deepcopy(GOOD)
    for path, new, beside in changes:
        put(document, path, new, beside=beside)
    faults: tuple[Fault, ...] = ()
    try:
        parsed = parse(dumped(document), "p.toml", files_of_any_name)
    except Wrong as wrong:
        faults = wrong.faults

    assert all(isinstance(one, Fault) and one.do and len(str(one)) < 2000 for one in faults)
    if not faults:
        assert from_canonical(parsed.bundle.canonical) == parsed.bundle
        assert parsed.sets.keys() == {one.hash for one in parsed.bundle.sets}


def files_of_any_name(name):
    return b"a.example\n" if len(name) % 2 else "it is not there"


def test_the_document_that_is_changed_is_good():
    """Else the property above would say nothing."""
    assert parse(dumped(GOOD), "p.toml", files).bundle.hash == parse(WHOLE, "p", files).bundle.hash
