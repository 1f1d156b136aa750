"""The server's half of SMTP: bytes in, events out, replies in, bytes out.

No socket, no clock, no policy: whoever drives this reads and writes, keeps the deadlines, counts
the missteps and decides the replies. One command is answered before the next is shown, so
pipelined commands wait in the buffer, in order (RFC 2920).

    receive(bytes)  ->  next_event()  ->  reply(Reply)  ->  bytes to send

`Body` alone needs no reply. STEPS says which command may come in which state and where it leads;
only an accepted reply goes there.

Dangers, each met by a rule of this file:
- Two ideas of where a line ends. A command with a bare CR or LF ends the talk; of messages
  `mail.lines` takes care.
- Words put in our mouth. What arrives before we answered DATA, AUTH or STARTTLS was not written
  by somebody who listens: a web browser, or a man in the middle whose plaintext would be read as
  if it came through TLS (CVE-2011-0411). That ends the talk, and after the handshake nothing that
  was said before it is remembered.
- Lines without end. A line is bounded; what is too long is dropped as it arrives.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto

from postweir.mail.lines import DataReader
from postweir.mail.reply import LocalFault, RemoteFault, Reply
from postweir.mail.smtp_syntax import (
    Auth,
    AuthAnswer,
    Body,
    BodyEnd,
    Data,
    Event,
    Greet,
    Help,
    Mail,
    Misstep,
    Noop,
    Offers,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Verify,
    misstep,
)
