"""What is known of account and sender becomes facts, as the schema declares them."""

import pytest
from tests.judge.serving import ask

from postweir.identity.sender import Account, Directory, Sender, SenderRecord
from postweir.judge import standing
from postweir.judge.counters import Counters, Standing
from postweir.judge.history import Usual
from postweir.judge.keys import Level
from postweir.judge.met import Hashes, Met
from postweir.judge.windows import DAY_S
from postweir.policy.bundle import Throttle
from postweir.policy.facts import SCHEMA, total

T = 20_000 * DAY_S
KEY = "acme|sasl|joe@example.com"
USER, SENDER, LINE = "x-authuser", "x-authenticated-sender", "received"


def sender(type: str, *evidence: tuple[str, str]) -> Sender:
    return Sender("acme", type, "joe@example.com", evidence)


def test_every_fact_of_levels_is_declared_and_given():
    """Each name of the schema under usage. and history. has its value, and no other name has."""
    one = Standing(Level(*range(1, 15)), Usual(*range(21, 26)), T - 3 * DAY_S)
    two = Standing(Level(*range(31, 45)), Usual(*range(51, 56)), T)
    counters = Counters(Hashes(b"s" * 16), Met(words=64))
    found = standing.of_usage(one, two, known=True)
    found |= standing.of_history(ask(), one, counters, {}, T)

    assert total(found).keys() == SCHEMA.keys()
    declared = {name for name in SCHEMA if name.startswith(("usage.", "history."))}
    missing = declared - found.keys()
    assert missing == {
        "history.from_domain_known", "history.envelope_domain_known", "history.from_domains",
    }  # fmt: skip
    assert found["usage.messages_1h"] == 2
    assert found["usage.account_unknown_1d"] == 44
    assert found["history.peak_bytes_1h"] == 24
    assert found["history.account_peak_new_recipients_1h"] == 55
    assert (found["history.known"], found["sender.known"], found["sender.age_days"]) == (
        True, True, 3,
    )  # fmt: skip


def test_what_the_tables_say():
    """An operator's decision, the account's age, limit and domains."""
    account = Account("acme", sender_messages_1h=77, created_us=10**15, domains=("example.com",))
    directory = Directory(1, {"acme": account}, senders={
        KEY: SenderRecord(KEY, "stopped", "", "op", 1)})  # fmt: skip
    found = standing.of_sender(ask(), directory)
    found |= standing.of_account(account, "shop.example.com", 10**15 + int(2.5 * DAY_S * 1e6))

    want = {
        "account.name": "acme", "account.known": True, "account.age_days": 2,
        "account.from_domain_declared": True, "sender.key": KEY, "sender.type": "sasl",
        "sender.identity": "joe@example.com", "sender.state": "stopped", "sender.evidence": 3,
        "sender.missing": False, "limit.sender_messages_1h": 77,
    }  # fmt: skip
    assert {name: found[name] for name in want} == want
    assert not standing.declared(account, "notexample.com")
    assert standing.declared(Account("acme"), "any.example")
    assert standing.of_account(None, "x", 0) == {}


@pytest.mark.parametrize(
    ("who", "contradicted"),
    [
        (sender(USER, (USER, "joe"), (LINE, "joe@example.com")), False),
        (sender(USER, (USER, "joe@example.com"), (LINE, "kim")), True),
        (sender(USER, (USER, "joe@a.example"), (SENDER, "joe@b.example")), True),
        (sender(USER, (USER, "joe"), ("sasl", "server")), False),
        (sender("sasl", ("sasl", "joe"), (USER, "ceo")), True),
        (sender(USER, (USER, "joe"), (f"{USER} repeated", "kim")), True),
        (sender(USER, (USER, "joe"), (f"{USER} repeated", "joe")), False),
        (sender(LINE, (LINE, "joe"), (f"{LINE} repeated", "2")), True),
        (sender("script", ("x-php-originating-script", "33:a.php"), ("sasl", "server")), False),
        (sender("account"), False),
    ],
)
def test_evidence_that_contradicts(who, contradicted):
    """Two places that name users must mean the same one; a server's login is no user."""
    assert standing.contradicted(who) is contradicted


@pytest.mark.parametrize(
    ("key", "of", "costs"),
    [
        ("sender", "messages", {KEY: 1}),
        ("sender", "recipients", {KEY: 3}),
        ("account", "bytes", {"acme": 500}),
        ("client", "messages", {"192.0.2.1": 1}),
        ("from_domain", "messages", {"example.com": 1}),
        ("recipient_domain", "recipients", {"x.example": 2, "y.example": 1}),
        ("recipient_domain", "bytes", {"x.example": 500, "y.example": 500}),
        ("recipient_domain", "messages", {"x.example": 1, "y.example": 1}),
    ],
)
def test_what_a_message_costs(key, of, costs):
    """Each key of a throttle, and each measure."""
    one = ask(recipients=("a@x.example", "b@x.example", "c@y.example"))
    facts = {"body.bytes": 500, "header.from_domain": "example.com"}

    assert standing.costs(Throttle("t", key, of, 1, 1, 1), one, facts) == costs


def test_recipients_domains_are_bounded():
    """Of a thousand domains 64 are looked at; without a From domain the account has a bucket."""
    one = ask(recipients=tuple(f"a@d{n}.example" for n in range(1000)))

    domains = Throttle("t", "recipient_domain", "recipients", 1, 1, 1)
    assert len(standing.costs(domains, one, {})) == standing.DOMAINS_MAX
    assert standing.costs(Throttle("t", "from_domain", "messages", 1, 1, 1), one, {}) == {
        "|acme": 1
    }
