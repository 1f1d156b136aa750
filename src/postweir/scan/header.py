"""Looks at who a message says it is from, and at the rest of its header."""

import unicodedata
from collections.abc import Iterator, Mapping

from postweir.mail.domains import Domains
from postweir.mail.mailboxes import mailboxes
from postweir.mail.message import Message
from postweir.mail.words import words_of
from postweir.scan.finding import Seen
from postweir.scan.hosts import HOST_BYTES_MAX, host_of

ADDRESSES_MAX = 10  # in a name, that are looked at
MAILER_CHARS_MAX = 256


class Header:
    """The header scanner."""

    name = "header"
    version = "1"
    instant = True
    facts: Mapping[str, type] = {
        "body.known": bool,
        "header.from_domain": str, "header.from_count": int, "header.from_addresses": int,
        "header.name_has_address": bool, "header.reply_to_domain": str,
        "header.reply_to_differs": bool, "header.sender_domain": str,
        "header.message_id_domain": str, "header.message_id_present": bool,
        "header.date_present": bool, "header.subject_bytes": int, "header.received_count": int,
        "header.fields": int, "header.mailer": str, "header.list_unsubscribe": bool,
        "header.auto_submitted": bool,
    }  # fmt: skip

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def scan(self, message: Message) -> Seen:
        """Return what the header says; of a field that comes again, the first."""
        names = [field.name for field in message.fields]
        first = {field.name: field.value for field in reversed(message.fields)}
        boxes = mailboxes(first.get("from", ""))
        from_domain = domain_of(boxes[0].address) if boxes else ""
        from_name = words_of(boxes[0].name) if boxes else ""
        replies = mailboxes(first.get("reply-to", ""))
        reply_to = domain_of(replies[0].address) if replies else ""
        senders = mailboxes(first.get("sender", ""))
        subject = first.get("subject", "")
        mailer = words_of(first.get("x-mailer") or first.get("user-agent", ""))[:MAILER_CHARS_MAX]
        return Seen(
            measures={
                "body.known": True,  # this is what rules about either want to know
                "header.from_domain": from_domain,
                "header.from_count": names.count("from"),
                "header.from_addresses": sum("@" in box.address for box in boxes),
                "header.name_has_address": self._has_address(from_name, from_domain),
                "header.reply_to_domain": reply_to,
                "header.reply_to_differs": bool(
                    reply_to and from_domain and not self._domains.related(reply_to, from_domain)
                ),
                "header.sender_domain": domain_of(senders[0].address) if senders else "",
                "header.message_id_domain": domain_of(first.get("message-id", "").rstrip("> \t")),
                "header.message_id_present": "message-id" in first,
                "header.date_present": "date" in first,
                "header.subject_bytes": len(subject),
                "header.received_count": names.count("received"),
                "header.fields": len(names),
                "header.mailer": mailer,
                "header.list_unsubscribe": "list-unsubscribe" in first,
                "header.auto_submitted": first.get("auto-submitted", "no").lower()[:2] != "no",
            },
            texts={"subject": words_of(subject), "from_name": from_name, "mailer": mailer},
            keys={"from_domain": [from_domain], "reply_to_domain": [reply_to]},
        )

    def _has_address(self, name: str, domain: str) -> bool:
        """True when a name shows an address of another registered domain."""
        return any(not self._domains.related(shown, domain) for shown in _domains_in(name))


def domain_of(address: str) -> str:
    """Return an address's domain as it is looked up, "" when it has none that could be."""
    _, found, domain = address.rpartition("@")
    raw = domain.strip(" \t<>").encode("latin-1", "replace")
    return host_of(raw) if found and len(raw) <= HOST_BYTES_MAX else ""


def _domains_in(name: str) -> Iterator[str]:
    """Yield the domains of what looks like an address."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)  # a full-width @ is one to a reader
    for piece in name.split("@", ADDRESSES_MAX)[1:]:
        end = next((n for n, c in enumerate(piece) if not (c.isalnum() or c in "-.")), len(piece))
        domain = piece[:end].strip(".-").lower()
        if domain.isascii() and domain.rpartition(".")[2].isalpha() and "." in domain:
            yield domain
