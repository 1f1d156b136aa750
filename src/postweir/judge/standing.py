"""From levels, history and the operator's tables to the facts about account and sender."""

from collections.abc import Mapping

from postweir.identity.sender import Account, Directory, Sender
from postweir.judge.counters import Counters, Standing
from postweir.judge.history import Usual
from postweir.judge.keys import Level
from postweir.judge.ports import Ask
from postweir.judge.throttles import Costs
from postweir.judge.windows import DAY_S
from postweir.mail.address import domain_of
from postweir.policy.bundle import Throttle
from postweir.policy.facts import NUMBER_MAX, Facts, bounded
from postweir.policy.verdict import Fact

_USAGE = (  # of a sender, of its account; then what is usual of each
    *(f"usage.{name}" for name in Level._fields),
    *(f"usage.account_{name}" for name in Level._fields),
    *(f"history.{name}" for name in Usual._fields),
    *(f"history.account_{name}" for name in Usual._fields),
)

EVIDENCE: Mapping[str, int] = {  # how good it is, by type of the sender
    "sasl": 3, "x-authuser": 2, "x-authsender": 2, "received": 2, "script": 1, "forwarded": 1,
}  # fmt: skip
_USERS = ("x-authuser", "x-authenticated-sender", "received")  # each says which user it was
DOMAINS_MAX = 64  # of a message's recipients, for a throttle by their domain


def of_sender(ask: Ask, directory: Directory) -> Facts:
    """Return what is known of who sent it, but for levels. All within their bounds."""
    sender = ask.sender
    decided = directory.senders.get(sender.key)
    account = directory.accounts.get(sender.account)
    return {
        "account.name": bounded("account.name", sender.account),
        "account.known": account is not None,
        "sender.key": bounded("sender.key", sender.key),
        "sender.type": bounded("sender.type", sender.type),
        "sender.identity": bounded("sender.identity", sender.identity),
        "sender.state": decided.state if decided else "",
        "sender.forwarded": sender.type == "forwarded",
        "sender.missing": sender.type == "account",
        "sender.contradicted": contradicted(sender),
        "sender.evidence": EVIDENCE.get(sender.type, 0),
        "limit.sender_messages_1h": account.sender_messages_1h if account else NUMBER_MAX,
    }


def of_account(account: Account | None, from_domain: str, wall_us: int) -> Facts:
    """Return its age, and whether it may send with this From domain."""
    if account is None:
        return {}
    facts: Facts = {"account.from_domain_declared": declared(account, from_domain)}
    if account.created_us:
        facts["account.age_days"] = max(0, int((wall_us - account.created_us) / 1e6 // DAY_S))
    return facts


def of_usage(sender: Standing, account: Standing, known: bool) -> Facts:
    """Return the levels, and what is usual; those that are 0 are left out."""
    numbers = (*sender.level, *account.level, *sender.usual, *account.usual)
    facts: Facts = {name: number for name, number in zip(_USAGE, numbers, strict=True) if number}
    facts["usage.known"] = known
    return facts


def of_history(ask: Ask, sender: Standing, counters: Counters, facts: Facts, now_s: float) -> Facts:
    """Return how long the sender is known, and the domains its account is known for."""
    account = counters.accounts.get(ask.sender.account)
    found: dict[str, Fact] = {
        "history.known": counters.watched(now_s),
        "sender.known": counters.age_known(sender.first_s, now_s),
        "sender.age_days": max(0, int((now_s - sender.first_s) // DAY_S)),
    }
    if account is not None:
        today = int(now_s // DAY_S)
        from_domain = str(facts.get("header.from_domain", ""))
        found["history.from_domain_known"] = account.from_domains.known(from_domain, today)
        found["history.from_domains"] = len(account.from_domains)
        found["history.envelope_domain_known"] = account.envelope_domains.known(
            domain_of(ask.envelope.mail_from), today
        )
    return found


def declared(account: Account, domain: str) -> bool:
    """True when the account may send with this domain: it is declared, or below one that is."""
    if not account.domains:
        return True
    return any(domain == one or domain.endswith(f".{one}") for one in account.domains)


def contradicted(sender: Sender) -> bool:
    """True when what named the sender did not name one and the same.

    `joe` and `joe@example.com` are the same. The login at us is the customer's server's as a rule;
    it is a user's own only where it is what names the sender.
    """
    named: set[str] = set()
    for source, said in sender.evidence:
        place, _, again = source.partition(" ")
        if again and place == "received":
            return True  # one line named several users
        if place in _USERS or (place == "sasl" and sender.type == "sasl"):
            named.add(said)
    if len(named) < 2:
        return False
    full = {one for one in named if "@" in one}
    local = {one.partition("@")[0] for one in named}
    return len(full) > 1 or len(local) > 1


def costs(throttle: Throttle, ask: Ask, facts: Facts) -> Costs:
    """Return what a message costs of a throttle, by key.

    Who has no From domain has an account's bucket for it: to leave it out opens none that is
    shared with strangers, and evades none.
    """
    recipients = ask.envelope.recipients
    size = facts.get("body.bytes", 0)
    each = {"recipients": len(recipients), "bytes": int(size)}.get(throttle.of, 1)  # type: ignore[arg-type]
    match throttle.key:
        case "sender":
            return {ask.sender.key: each}
        case "account":
            return {ask.sender.account: each}
        case "client":
            return {ask.client: each}
        case "from_domain":
            return {str(facts.get("header.from_domain", "")) or f"|{ask.sender.account}": each}
    found: dict[str, int] = {}
    for address in recipients:
        domain = domain_of(address)
        if throttle.of == "recipients":
            if domain in found or len(found) < DOMAINS_MAX:
                found[domain] = found.get(domain, 0) + 1
        elif len(found) < DOMAINS_MAX:
            found[domain] = each
    return found
