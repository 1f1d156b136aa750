"""What people write who know other filters, and what they probably meant."""

import difflib
from collections.abc import Collection

# Halon, rspamd, KumoMTA, Postfix, Exim, Sieve, Cloudflare and iptables have these words.
_MEANT = {
    # tables
    "rules": "rule", "sets": "set", "list": "set", "lists": "set", "map": "set", "table": "set",
    "multimap": "set", "patterns": "pattern", "regex": "pattern", "regexp": "pattern",
    "throttles": "throttle", "ratelimit": "throttle", "rate_limit": "throttle",
    "limit": "limits", "thresholds": "limits", "constants": "limits", "variables": "limits",
    "tests": "test", "examples": "test",
    # keys
    "if": "when", "condition": "when", "match": "when", "expr": "when", "expression": "when",
    "name": "id", "key_by": "key", "by": "key", "symbol": "id", "description": "help",
    "comment": "help", "action": "then", "do": "then", "retry_after": "retry_after_s",
    "message": "text", "reason": "text", "reply": "text", "priority": "severity",
    "path": "file", "filename": "file", "values": "items", "keys": "items", "entries": "items",
    "type": "of", "field": "of", "source": "of", "re": "pattern", "period": "per_s",
    "interval": "per_s", "window": "per_s", "per": "per_s", "max": "rate", "max_rate": "rate",
    "count": "rate", "expect": "matches", "expected": "matches", "input": "facts",
    "expires_s": "hold_s", "expire": "hold_s", "lifetime": "lifetime_s", "ttl": "lifetime_s",
    "add_header": "header", "headers": "header", "egress_pool": "pool", "transport": "pool",
    "vmta": "pool", "max_age": "lifetime_s",
    # verbs
    "reject": "refuse", "deny": "refuse", "block": "refuse", "drop": "refuse", "bounce": "refuse",
    "discard": "refuse", "fail": "refuse", "quarantine": "hold", "freeze": "hold",
    "tempfail": "defer", "greylist": "defer", "soft reject": "defer", "defer_if_permit": "defer",
    "delay": "defer", "allow": "accept", "pass": "accept", "permit": "accept", "ok": "accept",
    "no action": "accept", "dunno": "accept", "deliver": "accept", "relay": "accept",
    "prepend": "tag", "addheader": "tag", "mark": "tag", "add header": "tag",
    "redirect": "route", "filter": "route", "limit_rate": "throttle", "shape": "throttle",
    # modes, and the rest
    "disabled": "off", "disable": "off", "test_mode": "shadow", "dry-run": "shadow",
    "dryrun": "shadow", "monitor": "shadow", "log": "shadow", "dry_run": "shadow", "on": "enforce",
    "enabled": "enforce", "active": "enforce", "block_on_error": "hold", "ignore": "skip",
    "warning": "medium", "critical": "high", "info": "low",
    "ip": "client", "address": "client", "ips": "client", "domain": "from_domain",
    "domains": "recipient_domains", "recipient": "recipients", "rcpt": "recipients",
    "urls": "url_hosts", "url": "url_hosts", "hosts": "url_hosts", "hashes": "attachment_hashes",
    "filenames": "attachment_names", "user": "sender", "body": "text", "msgs": "messages",
    "rcpts": "recipients", "size": "bytes", "from": "from_name", "rcpt_domain": "recipient_domain",
}  # fmt: skip


def mean(name: str, known: Collection[str]) -> str:
    """Return what to do about a word that is not known: which was meant, or which there are."""
    meant = near(name, known)
    return f"did you mean {meant}?" if meant else "known here: " + ", ".join(known)


def near(name: str, known: Collection[str]) -> str:
    """Return the known word that was meant, or ""."""
    meant = _MEANT.get(name.lower(), "")
    if meant in known:
        return meant
    close = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    return close[0] if close else ""
