"""The mail of one evening: what a hosting company's server might relay."""

import email.policy
import email.utils
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message: who wrote it, for whom, and what it shows."""

    title: str
    user: str
    to: tuple[str, ...]
    subject: str
    text: str
    html: str = ""

    def message(self) -> EmailMessage:
        """Return it as mail software would write it."""
        made = EmailMessage(policy=email.policy.SMTP)
        made["From"] = f"<{self.user}>"
        made["To"] = ", ".join(self.to)
        made["Subject"] = self.subject
        made["Date"] = email.utils.formatdate(localtime=False)
        made["Message-ID"] = email.utils.make_msgid(domain="shop.example")
        made["X-AuthUser"] = self.user
        made.set_content(self.text)
        if self.html:
            made.add_alternative(self.html, subtype="html")
        return made


ANNA, BEN = "anna@shop.example", "ben@shop.example"
EVENING = (
    Letter(
        "invoice", ANNA, ("kim@fine.example",), "Your invoice 2026-1107",
        "Dear Kim,\n\nthank you for your order. The invoice over EUR 41.80 is below.\n\nAnna\n",
        "<p>Dear Kim,</p><p>thank you for your order. The invoice over <b>EUR 41.80</b> is "
        "below.</p><p>Anna</p>",
    ),
    Letter(
        "greylisted", ANNA, ("lee@grey.example",), "Re: opening hours",
        "Hello Lee,\n\nwe are open until six.\n\nAnna\n",
    ),
    Letter(
        "dead recipient", ANNA, ("mia@fine.example", "dead@fine.example"), "Class reunion",
        "Dear both,\n\nthe room is booked for the 12th.\n\nAnna\n",
    ),
    Letter(
        "site down", BEN, ("noa@down.example",), "Password reset",
        "Somebody, probably you, asked for a new password. The link is valid for an hour.\n",
    ),
    Letter(
        "GTUBE spam", BEN, ("all@fine.example",), "Win now", f"Best prices!\n\n{GTUBE}\n"
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """What our relay answered to the end of one message."""

    code: int
    text: str

    @property
    def id(self) -> str:
        """The message's id, from `queued as ID` or `ref=ID`."""
        for mark in ("queued as ", "ref="):
            if mark in self.text:
                return self.text.partition(mark)[2].split()[0]
        return ""


class Customer:
    """The customer's mail server: one connection with TLS and AUTH."""

    def __init__(self, port: int, username: str, secret: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # self-signed
        self._smtp = smtplib.SMTP("127.0.0.1", port, "mail.shop.example", timeout=30)
        self._smtp.starttls(context=context)
        self._smtp.login(username, secret)

    def send(self, sender: str, to: tuple[str, ...], content: bytes) -> Said:
        """Send one message; returns the reply to the final dot."""
        self._smtp.mail(sender)
        for recipient in to:
            code, text = self._smtp.rcpt(recipient)
            if code >= 400:
                self._smtp.rset()
                return Said(code, text.decode())
        code, text = self._smtp.data(content)
        return Said(code, text.decode())

    def quit(self) -> None:
        """Say goodbye."""
        self._smtp.quit()
