"""The facts, declared: name, type, unit, bound, neutral default and meaning of each.

A fact is added here, given its value in the room that learns it, and shown in `docs/facts.md`,
which is written from this (`docs/extending.md` has the steps). Facts are never renamed or given
another type: a policy that was written for them must go on meaning what it said.
"""

from collections.abc import Iterator

from postweir.policy.verdict import Fact
from postweir.runtime.frames import Value

TEXT_CHARS_MAX = 256
ITEMS_MAX = 64  # of a list; a rule that looks at each pair stays far below the engine's budget
NUMBER_MAX = 2**53  # exact in JSON too

WINDOWS = (("1m", "minute"), ("1h", "hour"), ("1d", "day"))


class Declared(Value, frozen=True):
    """One fact: its type, what it is when nothing is known, and what it says."""

    name: str
    type: str  # bool, int, double, string, list (of string)
    neutral: Fact
    sentence: str
    unit: str = ""  # of a number: messages, recipients, bytes, days, ...
    most: int = 0  # number: its bound; string: characters; list: items


def boolean(name: str, sentence: str, neutral: bool = False) -> Declared:
    """Declare a fact that is true or false."""
    return Declared(name, "bool", neutral, sentence)


def number(name: str, unit: str, sentence: str, neutral: int = 0) -> Declared:
    """Declare a whole number."""
    return Declared(name, "int", neutral, sentence, unit, NUMBER_MAX)


def share(name: str, sentence: str) -> Declared:
    """Declare a fraction from 0 to 1."""
    return Declared(name, "double", 0.0, sentence, "0 to 1", 1)


def text(name: str, sentence: str) -> Declared:
    """Declare a text."""
    return Declared(name, "string", "", sentence, "", TEXT_CHARS_MAX)


def texts(name: str, sentence: str) -> Declared:
    """Declare a list of texts."""
    return Declared(name, "list", [], sentence, "", ITEMS_MAX)


def declared() -> Iterator[Declared]:
    """Yield every fact, in the order of the page."""
    yield from _who()
    yield from _usage()
    yield from _envelope_and_header()
    yield from _content()
    yield from _findings()


def _who() -> Iterator[Declared]:
    yield text("connection.client", "Address of the server that relayed to us.")
    yield text("connection.helo", "What that server called itself.")
    yield boolean("connection.tls", "The message came over TLS.")
    yield boolean(
        "connection.authenticated", "It came with a credential, not only a known network."
    )
    yield text("account.name", "The account that pays for the relay.")
    yield boolean("account.known", "The account stands in the tables that the judge has.")
    yield number("account.age_days", "days", "Since the account was added.")
    yield boolean(
        "account.from_domain_declared",
        "The From domain is one that the account was declared to send for, or below one;"
        " true where none was declared.",
        neutral=True,
    )
    yield text("sender.key", "Who answers for the message: account|type|identity.")
    yield text("sender.type", "How the sender was recognised: sasl, x-authuser, received, ...")
    yield text("sender.identity", "The sender's own part of the key.")
    yield text("sender.state", "What an operator decided: stopped, allowed, or nothing.")
    yield boolean("sender.forwarded", "The message is forwarded mail, by its type.")
    yield boolean("sender.missing", "Nothing said who sent it: only the account is known.")
    yield boolean("sender.contradicted", "Two places name the sender, and not the same one.")
    yield number(
        "sender.evidence", "0 to 3",
        "How good the evidence is: 3 its own login, 2 a header or trace line of the customer's"
        " server, 1 a script or forwarding address, 0 none.",
    )  # fmt: skip
    yield boolean("sender.known", "The age below is known.")
    yield number("sender.age_days", "days", "Since this sender's first message.")


def _usage() -> Iterator[Declared]:
    yield boolean("usage.known", "The levels below are complete; false just after a restart.")
    for whose, prefix in (("The sender's", ""), ("The account's", "account_")):
        for what in ("messages", "recipients"):
            for window, words in WINDOWS:
                yield number(
                    f"usage.{prefix}{what}_{window}", what,
                    f"{whose} {what} in the last {words}, this message included.",
                )  # fmt: skip
        for window, words in WINDOWS[1:]:
            yield number(
                f"usage.{prefix}bytes_{window}", "bytes",
                f"{whose} bytes in the last {words}, this message included.",
            )  # fmt: skip
        for window, words in WINDOWS[1:]:
            yield number(
                f"usage.{prefix}new_recipients_{window}", "recipients",
                f"{whose} recipients of the last {words} to whom nothing was sent"
                " in the 30 days before.",
            )  # fmt: skip
        yield number(
            f"usage.{prefix}unique_recipients_1h", "recipients",
            f"{whose} different recipients in the last hour.",
        )  # fmt: skip
        for what, sentence in (
            ("delivered", "recipients delivered in the last day."),
            ("bounced", "recipients refused for good by their servers in the last day."),
            ("unknown", "of these, refused because there is no such recipient (RFC 3463 x.1.1)."),
        ):
            yield number(f"usage.{prefix}{what}_1d", "recipients", f"{whose} {sentence}")
    yield boolean("history.known", "The history below is known.")
    for whose, prefix in (("The sender's", ""), ("The account's", "account_")):
        yield number(
            f"history.{prefix}days", "days",
            f"{whose} days with mail, of the last 14, without today.",
        )  # fmt: skip
        for what in ("messages", "recipients", "new_recipients", "bytes"):
            yield number(
                f"history.{prefix}peak_{what}_1h", what.removeprefix("new_"),
                f"{whose} busiest hour of those days, in {what.replace('_', ' ')}.",
            )  # fmt: skip
    yield boolean(
        "history.from_domain_known", "The account sent with this From domain before today."
    )
    yield boolean(
        "history.envelope_domain_known",
        "The account sent with this domain in MAIL FROM before today.",
    )
    yield number("history.from_domains", "domains", "From domains the account used lately.")
    yield number(
        "limit.sender_messages_1h", "messages",
        "The account's setting: messages of one sender in an hour.",
        neutral=NUMBER_MAX,
    )  # fmt: skip


def _envelope_and_header() -> Iterator[Declared]:
    yield number("envelope.recipients", "recipients", "Recipients of this message.")
    yield texts("envelope.recipient_domains", "Their domains, each once, the first 64.")
    yield boolean("envelope.null_sender", "MAIL FROM is empty: a bounce, or posing as one.")
    yield text("envelope.from_domain", "Domain of MAIL FROM.")
    yield text("header.from_domain", "Domain of the first From field.")
    yield number("header.from_count", "fields", "From fields; one in good mail.")
    yield number("header.from_addresses", "addresses", "Addresses in the first From field.")
    yield boolean(
        "header.from_is_envelope", "The From domain is that of MAIL FROM, or above or below it."
    )
    yield boolean(
        "header.name_has_address", "The name shown in From contains another domain's address."
    )
    yield text("header.reply_to_domain", "Domain of the first Reply-To field.")
    yield boolean("header.reply_to_differs", "Replies would go to another domain than From's.")
    yield text("header.sender_domain", "Domain of the Sender field.")
    yield text("header.message_id_domain", "Domain in the Message-ID.")
    yield boolean("header.message_id_present", "There is a Message-ID.", neutral=True)
    yield boolean("header.date_present", "There is a Date.", neutral=True)
    yield number("header.subject_bytes", "bytes", "Length of the subject.")
    yield number("header.received_count", "fields", "Received fields that came with it.")
    yield number("header.fields", "fields", "All header fields.")
    yield text("header.mailer", "What wrote it says of itself: X-Mailer, or User-Agent.")
    yield boolean("header.list_unsubscribe", "There is a List-Unsubscribe (RFC 2369).")
    yield boolean("header.auto_submitted", "It says that no person wrote it (RFC 3834).")
    yield number("message.loops", "passes", "How often the message went through us before.")


def _content() -> Iterator[Declared]:
    yield boolean("body.known", "Header and parts could be read in time.")
    yield number("body.bytes", "bytes", "Length of the message.")
    yield number("body.parts", "parts", "MIME parts.")
    yield number("body.attachments", "parts", "Parts with a file name, or marked as attachment.")
    yield texts(
        "body.anomalies", "What is odd in its form: malformed, encoding, empty, bound, cut."
    )
    yield boolean("text.known", "The text could be measured in time.")
    yield number("text.chars", "characters", "Of the text that a reader sees, up to 64 KiB of it.")
    yield number("text.words", "words", "Of that text.")
    yield share("text.capitals", "Share of its letters that are capitals.")
    yield share("text.foreign", "Share of its characters that are not ASCII.")
    yield boolean("text.html", "There is an HTML part.")
    yield boolean(
        "text.hidden", "The HTML hides text from who looks at it: more than a preview line."
    )
    yield boolean("text.image_only", "The HTML is images, with scarcely a word.")
    yield boolean("text.form", "The HTML asks for input, or runs a script.")
    yield boolean("urls.known", "The links could be gathered in time.")
    yield number("urls.count", "links", "Links, each once.")
    yield texts("urls.hosts", "Their hosts, each once, the first 64.")
    yield boolean("urls.mismatch", "A link shows one site's name and leads to another.")
    yield boolean("urls.punycode", "A host is written in punycode (RFC 3492).")
    yield boolean("urls.confusable", "A host mixes alphabets so that it looks like another.")
    yield boolean("urls.numeric", "A host is a bare address.")
    yield boolean(
        "urls.userinfo", "A link carries a name before its host, as in https://bank@host/."
    )
    yield boolean("attachments.known", "The attachments could be looked at in time.")
    yield texts("attachments.types", "What they are by their first bytes: pdf, zip, ole, exe, ...")
    yield texts("attachments.extensions", "The ends of their names, in lower case.")
    yield boolean("attachments.mismatch", "One is not what its name says.")
    yield number("attachments.archives", "archives", "Archives among them.")
    yield texts("attachments.inside", "Ends of the names listed inside archives.")
    yield boolean("attachments.macros", "An office document carries macros.")
    yield boolean("attachments.html", "An HTML page is attached.")
    yield number("attachments.bytes", "bytes", "Of all of them.")


def _findings() -> Iterator[Declared]:
    yield share("findings.spam", "How sure a scanner is that it is spam.")
    yield share("findings.phishing", "How sure a scanner is that it is phishing.")
    yield boolean("findings.virus", "A scanner found malware.")
    yield boolean("findings.url_listed", "It links to a host on the installation's list.")
    yield boolean("findings.attachment_dangerous", "An attachment would run when opened.")
    yield boolean("findings.attachment_encrypted", "An attachment cannot be looked into.")
    yield number("findings.unavailable", "scanners", "Scanners that did not answer in time.")
    yield boolean("rspamd.known", "rspamd answered in time; false where none is set up.")
    yield Declared("rspamd.score", "double", 0.0, "What rspamd adds up to.", "points", 10_000)
    yield text("rspamd.action", "What rspamd would do: no action, add header, reject, ...")
    yield texts("rspamd.symbols", "The symbols it saw, the heaviest first.")
