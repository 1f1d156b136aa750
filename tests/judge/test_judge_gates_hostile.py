"""Policies made to hurt, and facts made to hurt: each is refused or contained, in plain words."""

import os
import resource

import pytest
from tests.judge.bombs import letters
from tests.judge.serving import ask, every_scanner
from tests.policy.varied import varied

from postweir.judge import evidence, wanted
from postweir.judge.bundles import shipped
from postweir.judge.checking import check, check_file
from postweir.judge.trial import Trial
from postweir.policy.bundle import KEYS, TEXTS, Bundle, Pattern, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.facts import ITEMS_MAX, TEXT_CHARS_MAX, telling
from postweir.runtime.log import quiet
from postweir.scan.panel import Panel

pytestmark = pytest.mark.real
EVALUATE_US = 25_000  # judge.evaluate_ms

THEN = 'then = { verb = "hold" }'
LOOP = "envelope.recipient_domains.exists"


def rule(when: str, more: str = "", then: str = THEN) -> str:
    return f"[[rule]]\nid = \"a\"\nwhen = '''{when}'''\n{then}\n{more}\n"


def pattern(text: str) -> str:
    return f"[[pattern]]\nid = \"p\"\nof = \"subject\"\npattern = '''{text}'''\n" + rule(
        "pattern.p"
    )


HOSTILE = {  # name: the policy, and what is said of it
    "repeats in repeats": (pattern("((a{100}){100}){100}"), "pattern"),
    "a huge alternative": (pattern("(" + "|".join(["x{999}y"] * 60) + "){5}"), "pattern"),
    "a backreference": (pattern(r"(a+)\1"), "pattern"),
    "a look-behind": (pattern("(?<=a)b"), "pattern"),
    "no pattern at all": (pattern("(((((("), "pattern"),
    "a regex in a condition": (rule("sender.key.matches('(a+)+$')"), "name the regular expression"),
    "three loops": (rule(f"{LOOP}(a, {LOOP}(b, {LOOP}(c, a == b && b == c)))"), "loops"),
    "a dear loop": (rule(f"{LOOP}(a, {LOOP}(b, a == b))"), "may cost"),
    "5,000 terms": (rule(" || ".join(["body.bytes > 1"] * 5000)), "too long"),
    "401 nodes": (rule(" || ".join(["body.known"] * 250)), "nodes"),
    "deep brackets": (rule("(" * 1900 + "true" + ")" * 1900), "nested too deep"),
    "deep negations": (rule("!" * 3990 + "true"), "nothing is known"),
    "a long name": (rule("a" * 3990), "is not known"),
    "a long dotted name": (rule(".".join(["a"] * 1900)), "nested too deep"),
    "a wrong type": (rule("findings.spam > 3"), "write 1.0, not 1"),
    "an unknown fact": (rule("usage.mesages_1h > 3"), "did you mean usage.messages_1h?"),
    "the checks switched off": (rule("body.bytes > 'x'", "disable_check = true"), "not known"),
    "the checks switched off in CEL": (rule("dyn(body.bytes) > dyn('x')"), "dyn is not taken"),
    "a fault to be planted": (rule("true", "fault = 'stall'"), "fault"),
    "an include": ('include = "self.toml"\n' + rule("true"), "include is not known"),
    "texts that grow": (rule("sender.key + sender.key == 'x'"), "not taken"),
    "lists that grow": (rule("(urls.hosts + urls.hosts).exists(h, h == 'x')"), "not taken"),
    "a list made in a loop": (rule("urls.hosts.map(h, urls.hosts).exists(h, true)"), "not taken"),
    "an overflow": (rule("body.bytes * body.bytes > 5"), "may pass 64 bits"),
    "a division by zero": (rule("100 / usage.messages_1h > 3"), "may be by zero"),
    "a NUL": (rule("sender.state == 'a\0b'"), "TOML"),
    "501 rules": ("".join(rule(f"body.bytes > {n}") for n in range(501)), "501"),
    "a million brackets": ("[" * 200_000, "TOML"),
    "too dear together": (
        "".join(rule(f"{LOOP}(d, d.endsWith('.t{n}'))").replace('"a"', f'"r{n}"')
                for n in range(60)), "all rules may cost"),
    "a set of a million": (
        '[[set]]\nid = "s"\nof = "recipients"\nfile = "/etc/passwd"\n' + rule("set.s"), "passwd"),
    "a set above": (
        '[[set]]\nid = "s"\nof = "recipients"\nfile = "../secret"\n' + rule("set.s"), "secret"),
    "contradiction": (rule("body.bytes > 3 && body.bytes < 2"), "can never be true"),
    "refuses what is unknown": (
        rule("true", then='then = { verb = "refuse", code = "SS", text = "No." }'),
        "objects to a message of which nothing is known"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_policy_made_to_hurt_is_refused(name):
    """It is told what is wrong, in some words and not in an essay, and how to do better."""
    text, said = HOSTILE[name]
    report = check(text, "p.toml")

    assert not report.ok
    whole = "\n".join(map(str, report.faults))
    assert said in whole
    assert len(whole) < 100 * 700
    assert all(len(line) < 2000 for line in whole.splitlines())
    assert "Traceback" not in whole


def test_what_only_looks_dangerous_is_taken():
    """Patterns that kill other engines take no time here, and the gates have tried them."""
    text = pattern("(a+)+$").replace("pattern.p", "pattern.p && pattern.q")
    text += '[[pattern]]\nid = "q"\nof = "text"\npattern = \'(?:(?:\\"|\\d|.*)+.*.*=.*)\'\n'
    report = check(text, "p.toml")

    assert [fault.what for fault in report.faults] == []


def test_files_made_to_hurt(tmp_path):
    """100 MB, no UTF-8, a device, a pipe: refused at once, with little memory and no wait."""
    huge, odd, pipe = tmp_path / "huge.toml", tmp_path / "odd.toml", tmp_path / "pipe.txt"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    odd.write_bytes(b'[[rule]]\nid = "\xff\xfe"\n')
    os.mkfifo(pipe)
    using = tmp_path / "using.toml"
    using.write_text('[[set]]\nid = "s"\nof = "account"\nfile = "pipe.txt"\n' + rule("set.s"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = [str(check_file(path).faults[0]) for path in (huge, odd, using)]

    assert "is larger than 256 KiB" in said[0]
    assert f"{odd}:2: is not UTF-8" in said[1]
    assert "no ordinary file" in said[2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def wide() -> tuple[Bundle, dict[str, bytes]]:
    """Return a policy that looks at much, with patterns over every text."""
    bundle, sets = varied(60)
    patterns = tuple(
        Pattern(f"{text}_{n}", text, written)
        for text in TEXTS
        for n, written in enumerate(("(a+)+!$", "(?i)(x|y|z)*gift ?cards?", r"\bq\w{1,50}\b.*=.*="))
    )
    rules = tuple(Rule(f"p{n}", f"pattern.{one.id}", "tag") for n, one in enumerate(patterns))
    rules += tuple(rule for rule in bundle.rules if rule.mode == "enforce") + shipped().rules
    return Bundle(
        rules, sets=bundle.sets, patterns=(*bundle.patterns, *patterns),
        throttles=(*bundle.throttles, *shipped().throttles),
        limits=bundle.limits | shipped().limits,
    ), sets  # fmt: skip


def test_facts_made_to_hurt(capsys):
    """Whatever a message is made of, its evaluation ends in time, and no rule fails."""
    bundle, sets = wide()
    panel = Panel(every_scanner(quiet()), quiet())
    worst: dict[str, int] = {}
    with Trial() as trial:
        loaded = trial.load(bundle, sets)
        assert loaded is not None
        assert loaded.fault is None
        for name, recipients, body in letters():
            asked = ask(body=body, recipients=[f"r{n}@d{n}.example" for n in range(recipients)])
            examined = panel.look_now(body)
            facts = telling(evidence.gather(asked, examined, hostname="mx.example"))
            question = Evaluate(
                1, facts, wanted.texts(examined, TEXTS), wanted.keys(asked, examined, KEYS)
            )
            answers = trial.evaluate([question] * 3, 5.0)

            assert [answer.errors for answer in answers] == [[]] * 3, name
            assert all(answer.verdict is not None for answer in answers)
            worst[name] = min(answer.took_us for answer in answers)
            for value in facts.values():
                assert not isinstance(value, str) or len(value) <= TEXT_CHARS_MAX
                assert not isinstance(value, list) or len(value) <= ITEMS_MAX
    panel.close()
    with capsys.disabled():
        print("\nhostile facts, µs:", ", ".join(f"{n} {us}" for n, us in worst.items()))

    assert max(worst.values()) < EVALUATE_US
