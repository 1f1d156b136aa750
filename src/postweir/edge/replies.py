"""What a sender reads when we do not take a message: a code, a sentence, and where to look."""

from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict

TEXT_CHARS_MAX = 200  # of a policy's sentence: the reply stays a line of RFC 5321 4.5.3.1.5

OK = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
GO_ON = Reply(354, "", "End with a lone dot")
BYE = Reply(221, "2.0.0", "Bye")
NO_TLS = Reply(454, "4.7.0", "TLS is not available now, try again later")
READY_FOR_TLS = Reply(220, "2.0.0", "Ready for TLS")
CANNOT_VERIFY = Reply(252, "2.5.0", "Send it and see")
HELP = Reply(214, "2.0.0", "RFC 5321 has it all")
WELCOME = Reply(235, "2.7.0", "Welcome")
WRONG = Reply(535, "5.7.8", "Name or secret is wrong")
GARBLED = Reply(501, "5.5.2", "There is no such answer")
NOT_NOW = Reply(454, "4.7.0", "That cannot be looked up now, try again later")
BACKED_OFF = Reply(454, "4.7.0", "Too many wrong secrets lately, try again later")
TIMEOUT = Reply(421, "4.4.2", "You were silent too long")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_LARGE = Reply(552, "5.3.4", "The message is too large.")
HEADER_TOO_LARGE = Reply(552, "5.3.4", "The header is too large.")
LOOP = Reply(554, "5.4.6", "The message goes round in circles.")
BARE_NEWLINE = Reply(550, "5.6.0", "A CR or LF stands alone: a line ends in both.")
NUL = Reply(550, "5.6.0", "The message holds a NUL.")
STORAGE = Reply(452, "4.3.1", "No room just now, try again later.")
TROUBLE = Reply(451, "4.3.0", "Trouble of our own, try again later.")
UNKNOWN_CLIENT = Reply(530, "5.7.0", "Authenticate first.")
SUSPENDED = Verdict(
    verb="refuse", rule="account", policy="edge", code="ESA", text="This account is suspended."
)


def named(reply: Reply, message: str) -> Reply:
    """Return a reply with the name under which the refusal is on record."""
    return Reply(reply.code, reply.status, f"{reply.text} ref={message}")


def of_verdict(verdict: Verdict, message: str, help_url: str) -> Reply:
    """Return what to say for a verdict that does not take the mail."""
    assert not verdict.takes_mail
    words = [f"[{verdict.code}]"] if verdict.code else []
    words.append((verdict.text or "Not accepted by policy.")[:TEXT_CHARS_MAX])
    final = verdict.verb == "refuse"
    if not final:
        words.append(f"Retry in {verdict.retry_after_s or 300} s.")
    words.append(f"ref={message}")
    if verdict.code:
        words.append(f"{help_url.rstrip('/')}/{verdict.code}")
    # A policy's text is one printable line, whoever wrote it.
    text = " ".join(" ".join(words).split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    return Reply(550, "5.7.1", text) if final else Reply(450, "4.7.1", text)


def of_storage(reason: str) -> Reply:
    """Return what to say when no shard takes a message, by its reason."""
    return STORAGE if reason == "full" else TROUBLE


def of_disk(fault: OSError) -> Reply:
    """Return what to say when a body could not be written."""
    return STORAGE if fault.errno in (28, 122) else TROUBLE  # ENOSPC, EDQUOT
