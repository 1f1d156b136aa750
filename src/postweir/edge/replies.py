"""What a sender reads when we do not take a message: a code, a sentence, and where to look."""

from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict

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
    words.append(verdict.text or "Not accepted by policy.")
    final = verdict.verb == "refuse"
    if not final:
        words.append(f"Retry in {verdict.retry_after_s or 300} s.")
    words.append(f"ref={message}")
    if verdict.code:
        words.append(f"{help_url.rstrip('/')}/{verdict.code}")
    text = " ".join(" ".join(words).split())  # a policy's text is one line, whoever wrote it
    return Reply(550, "5.7.1", text) if final else Reply(450, "4.7.1", text)


def of_storage(reason: str) -> Reply:
    """Return what to say when no shard takes a message, by its reason."""
    return STORAGE if reason == "full" else TROUBLE


def of_disk(fault: OSError) -> Reply:
    """Return what to say when a body could not be written."""
    return STORAGE if fault.errno in (28, 122) else TROUBLE  # ENOSPC, EDQUOT
