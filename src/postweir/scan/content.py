"""Looks for what only a test of filters contains: the GTUBE text."""

from collections.abc import Mapping

from postweir.mail.message import Message
from postweir.scan.finding import Finding, Seen

# https://spamassassin.apache.org/gtube/: in two pieces, so that this file is no spam.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


class Content:
    """The content scanner."""

    name = "content"
    version = "1"
    instant = True
    facts: Mapping[str, type] = {}

    def scan(self, message: Message) -> Seen:
        """Return a finding when the text is there, in clear or in any text part."""
        if message.data.find(GTUBE, message.start) >= 0 or any(
            GTUBE in part.text
            for part in message.parts
            if part.content_type.startswith("text/") and not part.container
        ):
            return Seen([Finding(self.name, "spam", "GTUBE", 1.0, self.version)])
        return Seen()
