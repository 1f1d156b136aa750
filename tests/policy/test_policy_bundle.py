"""A policy's text becomes an immutable bundle, or a list of all that is wrong with it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Bundle, Rule, from_canonical
from postweir.policy.document import Wrong, parse
from postweir.policy.rules import RULES_MAX
from postweir.runtime import frames

GOOD = """\
[[rule]]
id = "big"
when = "body.bytes > 1000"
then = { verb = "defer", code = "STF", text = "Too big.", retry_after_s = 60 }

[[rule]]
id = "odd"
when = "true"
then = { verb = "hold" }
mode = "off"
on_error = "hold"
owner = "mail team"
"""


def faults(text: str) -> list[str]:
    with pytest.raises(Wrong) as caught:
        parse(text, "p.toml")
    return [str(fault) for fault in caught.value.faults]


def test_a_good_policy():
    """Rules keep their order, and all they say."""
    first, second = parse(GOOD, "p.toml").bundle.rules

    assert first == Rule("big", "body.bytes > 1000", "defer", "STF", "Too big.", 60)
    assert (second.id, second.verb, second.mode, second.on_error) == ("odd", "hold", "off", "hold")


def test_the_name_is_of_what_it_says():
    """Layout changes nothing; a word does; and the bundle comes back from its bytes."""
    bundle = parse(GOOD, "p.toml").bundle

    assert bundle.hash.startswith("pol_")
    assert parse("# hello\n" + GOOD.replace("\n\n", "\n\n\n"), "q.toml").bundle.hash == bundle.hash
    assert parse(GOOD.replace("1000", "1001"), "p.toml").bundle.hash != bundle.hash
    assert from_canonical(bundle.canonical) == bundle
    with pytest.raises(frames.Torn):
        from_canonical(b" " + bundle.canonical)


def test_all_faults_at_once_with_line_and_advice():
    """One run says everything: where, what, and what to do."""
    text = GOOD.replace('verb = "defer"', 'verb = "defre"').replace("owner =", "ownr =")
    found = faults(text.replace('id = "odd"', 'id = "big"') + "\n[rules]\nx = 1\n")

    assert found == [
        "p.toml:14: rules is not known\n    did you mean [[rule]]?",
        "p.toml:4: rule big: the verb is 'defre'\n    did you mean defer?",
        "p.toml:12: rule big: ownr is not known\n    did you mean owner?",
        "p.toml:7: rule big: has this id a second time\n"
        "    choose another: the first is at p.toml:2",
    ]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('verb = "hold"', 'verb = "route"', "route needs a pool"),
        ('verb = "hold"', 'verb = "tag"', "tag needs a header or a pool"),
        ('verb = "hold"', 'verb = "tag", header = "From: a"', "names that begin with X-"),
        ('verb = "hold"', 'verb = "tag", header = "X-Postweir-Id: a"', "that begin with X-"),
        ('verb = "hold"', 'verb = "tag", header = "X-A"', "a name, a colon and a value"),
        ('verb = "hold"', 'verb = "tag", header = "X-A: \u00e9"', "of printable ASCII"),
        ('verb = "hold"', 'verb = "throttle", code = "SS", text = "x"', "needs its throttle"),
        ('verb = "hold"', 'verb = "hold", hold_s = 5', "hold_s is 5"),
        ('verb = "hold"', 'verb = "hold", lifetime_s = 0x' + "f" * 9999, "a number without end"),
        ('mode = "off"', 'severity = "urgent"', "low, medium, high"),
        ('mode = "off"', 'mode = "dry-run"', "did you mean shadow?"),
        ('verb = "hold"', 'verb = "refuse"', "needs a code and a text"),
        ('verb = "hold"', 'verb = "hold", pool = "x"', "pool belongs to tag, route"),
        ('on_error = "hold"', 'on_error = "refuse"', "never refuses mail"),
        ('mode = "off"', 'fault = { stall_s = 2 }', "fault is not taken here"),
        ('when = "true"', 'when = ""', "there is no condition"),
        ('when = "true"', 'when = 3', "when is a whole number"),
        ('id = "odd"', 'id = "Odd one"', "the id is 'Odd one'"),
        ('code = "STF"', 'code = "stf"', "two to five capital letters"),
        ('text = "Too big."', 'text = "Zu gro\u00df."', "not printable ASCII"),
        ('text = "Too big."', 'text = "a\\r\\nb"', "more than one line"),
        ("retry_after_s = 60", "retry_after_s = -1", "retry_after_s is -1"),
        ("retry_after_s = 60", "retry_after_s = true", "retry_after_s is True"),
        ('then = { verb = "hold" }', 'then = "hold"', "then is no table"),
        ("[[rule]]\nid = \"odd\"", "[[rule]\nid = \"odd\"", "is not TOML"),
        (GOOD, "rule = 3", "no list of tables"),
        (GOOD, "#" * 300_000, "is larger than"),
        (GOOD, "[[rule]]\n" * (RULES_MAX + 1), "at most 500"),
    ],
)  # fmt: skip
def test_each_fault_is_said(old, new, what):
    """What cannot be taken is refused, in words that say what can."""
    assert old in GOOD
    assert what in "\n".join(faults(GOOD.replace(old, new)))


@given(st.text(max_size=200), st.sampled_from(["when", "id", "then", "mode", "x", "help"]))
def test_any_text(text, key):
    """No text makes it fail in any other way."""
    for candidate in (text, f"[[rule]]\n{key} = {text}", f"[[rule]]\n{key} = '''{text}'''"):
        with contextlib.suppress(Wrong):
            assert isinstance(parse(candidate, "p").bundle, Bundle)
