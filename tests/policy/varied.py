"""A policy of as many rules as wanted, no two the same, of the kinds that people write."""

from postweir.policy.bundle import Bundle, Pattern, Rule, Set, Throttle, set_bytes, set_name

FLAT = (
    "usage.known && usage.messages_1h > {a} && sender.identity == 'who{i}'",
    "usage.recipients_1h > (connection.tls ? {a} : {b}) && account.name == 'acc{i}'",
    "usage.recipients_1h * 10 > usage.recipients_1d * 8 && usage.recipients_1d > {a}"
    " && sender.type == 't{i}'",
    "header.from_domain == 'dom{i}.example' && envelope.from_domain != header.from_domain",
    "findings.spam >= 0.{c} && account.age_days < {a} && connection.client.startsWith('10.{i}.')",
    "usage.messages_1h > history.peak_messages_1h * 3 + {a} && history.known"
    " && account.name == 'h{i}'",
    "header.mailer.contains('mailer{i}') && !header.list_unsubscribe && envelope.recipients > {a}",
    "throttle.young > 0 && sender.age_days < {a} && sender.identity == 'id{i}'",
    "pattern.gift && header.subject_bytes > {a} && limit.big > {c}"
    " && account.name in ['q{i}', 'r{i}']",
    "set.partners && account.name != 'p{i}' && usage.account_messages_1d == {a}",
)
LOOPS = (
    "envelope.recipient_domains.exists(d, d.endsWith('.tld{i}'))"
    " && size(envelope.recipient_domains) > {c}",
    "'ext{i}' in attachments.extensions || attachments.inside.exists(x, x == 'e{i}')",
    "rspamd.known && rspamd.score > {c}.5 && 'SYM{i}' in rspamd.symbols",
    "urls.hosts.all(h, h.endsWith('.x{i}')) && urls.count > {c} && size(urls.hosts) > 0",
)
VERBS = ("hold", "refuse", "defer", "accept", "hold")
PARTNERS = set_bytes(frozenset(f"p{n}.example" for n in range(1000)))


def varied(count: int) -> tuple[Bundle, dict[str, bytes]]:
    """Return such a policy, and its sets. Only some of the rules loop: that is dear."""
    rules = []
    for i in range(count):
        pool = LOOPS if i % 5 == 0 and i < 150 else FLAT
        when = pool[i % len(pool) if pool is FLAT else i // 5 % len(pool)]
        mode = "shadow" if i % 17 == 3 else "enforce"
        rules.append(Rule(f"r{i}", when.format(i=i, a=10 + i, b=3 + i, c=1 + i % 8),
                          VERBS[i % 5], "SS", "No.", mode=mode))  # fmt: skip
    partners = Set("partners", "recipient_domains", set_name(PARTNERS), 1000)
    bundle = Bundle(
        tuple(rules), sets=(partners,), limits={"big": 50},
        patterns=(Pattern("gift", "subject", "(?i)gift ?cards?"),),
        throttles=(Throttle("young", "sender", "recipients", 100, 3600, 50),),
    )  # fmt: skip
    return bundle, {partners.hash: PARTNERS}
