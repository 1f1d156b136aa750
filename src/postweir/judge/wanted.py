"""What a policy's own patterns and sets look at, gathered only when the policy has some."""

from collections.abc import Collection, Iterable

from postweir.judge.ports import Ask
from postweir.mail.address import domain_of
from postweir.policy.bundle import Bundle
from postweir.policy.keys import looked_up
from postweir.scan.panel import Examined
from postweir.scan.remote import About

TEXT_CHARS_MAX = 64 * 1024  # of each
KEYS_MAX = 1000  # of a kind, as the message has them: recipients; hosts and files are fewer


def of_patterns(bundle: Bundle) -> frozenset[str]:
    """Return which texts a policy's patterns read."""
    return frozenset(one.of for one in bundle.patterns)


def of_sets(bundle: Bundle) -> frozenset[str]:
    """Return which keys a policy's sets are looked up by."""
    return frozenset(one.of for one in bundle.sets)


def texts(examined: Examined, wanted: Collection[str]) -> dict[str, str]:
    """Return these of `bundle.TEXTS`; one that no scanner saw is not there."""
    return {
        name: _sendable(examined.texts[name][:TEXT_CHARS_MAX])
        for name in wanted
        if name in examined.texts
    }


def keys(ask: Ask, examined: Examined, wanted: Collection[str]) -> dict[str, list[str]]:
    """Return these of `bundle.KEYS`, spelt as sets spell them, with what stands above a host."""
    found: dict[str, list[str]] = {}
    for of in wanted:
        distinct = dict.fromkeys(_keys(ask, examined, of))
        some = list(distinct)[:KEYS_MAX]
        found[of] = list(dict.fromkeys(key for text in some for key in looked_up(of, text)))
    return found


def about(ask: Ask) -> About:
    """Return what scanners that are other programs hear of a message."""
    return About(
        client=ask.client, helo=ask.envelope.helo, mail_from=ask.envelope.mail_from,
        recipients=ask.envelope.recipients, account=ask.sender.account,
        sender=ask.sender.identity, tls=ask.tls, message=ask.message,
    )  # fmt: skip


def _keys(ask: Ask, examined: Examined, of: str) -> Iterable[str]:
    match of:
        case "recipients":
            return ask.envelope.recipients
        case "recipient_domains":
            return map(domain_of, ask.envelope.recipients)
        case "envelope_domain":
            return (domain_of(ask.envelope.mail_from),)
        case "client":
            return (ask.client,)
        case "sender":
            return (ask.sender.key,)
        case "account":
            return (ask.sender.account,)
    return examined.keys.get(of, ())


def _sendable(text: str) -> str:
    """Return text without halves of surrogate pairs, which some charsets decode to."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
