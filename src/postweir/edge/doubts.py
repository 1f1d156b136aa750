"""Messages of which nobody knows what became: when one comes again, it may be there twice.

Where a shard dies in a commit and no other can say what its file holds, the client hears 451 and
sends again (RFC 1047's window). What comes again is taken, and recorded as a possible duplicate.

* The **same** message is one of the same account and MAIL FROM with the same Message-ID and Date;
  without a Message-ID, one with the same bytes. Not the bytes alone: a server that keeps its mail
  in a queue sends the same ones again, but what passes a proxy has another Received each time.
* Its recipients are remembered one by one: what is left of a message after some of it was
  delivered is sent in other groups than before.
* To take a message for the same that is another costs a mark in its timeline, and no more.
* Only keyed hashes are kept, for a day and in a bounded number, the oldest go first.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from postweir.mail.envelope import Envelope
from postweir.mail.headers import Field

LETTER_BYTES, RECIPIENT_BYTES = 16, 6
KEPT_S = 86_400.0  # mail servers try again within minutes, and after a bad night within hours
LETTERS_MAX = 100_000  # of 10,000 connections each could lose ten; some 30 MB
RECIPIENTS_MAX = 1_000_000  # of all of them


@dataclass(frozen=True, slots=True)
class Doubt:
    """One message with an outcome that nobody knows, or with a 250 that nobody heard."""

    at_us: int  # wall clock: it outlives a process
    letter: bytes
    recipients: bytes  # RECIPIENT_BYTES each
    message: str  # our name for it then


def named(fields: Iterable[Field]) -> bytes:
    """Return what a message's header says it is; b"" when it says nothing that is its own."""
    found: dict[str, str] = {}
    for field in fields:
        if field.name in ("message-id", "date"):
            found.setdefault(field.name, field.value)
    if not found.get("message-id"):
        return b""
    return f"{found['message-id']}\n{found.get('date', '')}".encode()


class Doubts:
    """What one edge worker knows, of its own and of what the others wrote down."""

    def __init__(self, key: bytes) -> None:
        # Of the secret that all workers share and that outlives them.
        self._key = hashlib.blake2b(b"doubts", key=key, digest_size=32).digest()
        self._known: OrderedDict[bytes, Doubt] = OrderedDict()  # the oldest first
        self._recipients = 0

    def __len__(self) -> int:
        return len(self._known)

    def doubt(
        self, account: str, envelope: Envelope, name: bytes, *, message: str, at_us: int
    ) -> Doubt:
        """Return what is to be remembered of a message; `name` is `named`, or its bytes' hash."""
        letter = self._letter(account, envelope, name)
        recipients = b"".join(sorted(set(map(self._recipient, envelope.recipients))))
        return Doubt(at_us, letter, recipients, message)

    def add(self, doubt: Doubt) -> None:
        """Remember it; a second time adds to the first."""
        before = self._known.pop(doubt.letter, None)
        if before is not None:
            self._recipients -= len(before.recipients) // RECIPIENT_BYTES
            both = set(_each(before.recipients)) | set(_each(doubt.recipients))
            last = max(before, doubt, key=lambda one: one.at_us)
            doubt = replace(last, recipients=b"".join(sorted(both)))
        self._known[doubt.letter] = doubt
        self._recipients += len(doubt.recipients) // RECIPIENT_BYTES
        while len(self._known) > LETTERS_MAX or self._recipients > RECIPIENTS_MAX:
            _, oldest = self._known.popitem(last=False)
            self._recipients -= len(oldest.recipients) // RECIPIENT_BYTES

    def before(self, account: str, envelope: Envelope, name: bytes, *, now_us: int) -> str:
        """Return our name for a message when it came before, "" when it did not."""
        self._forget(now_us)
        if not self._known:
            return ""  # as it should be: then this costs nothing
        found = self._known.get(self._letter(account, envelope, name))
        if found is None or now_us - found.at_us >= KEPT_S * 1e6:
            return ""
        known = set(_each(found.recipients))
        same = any(self._recipient(address) in known for address in envelope.recipients)
        return found.message if same else ""

    def _forget(self, now_us: int) -> None:
        while self._known:
            oldest = next(iter(self._known.values()))
            if now_us - oldest.at_us < KEPT_S * 1e6:
                return
            del self._known[oldest.letter]
            self._recipients -= len(oldest.recipients) // RECIPIENT_BYTES

    def _letter(self, account: str, envelope: Envelope, name: bytes) -> bytes:
        hashed = hashlib.blake2b(key=self._key, digest_size=LETTER_BYTES, person=b"letter")
        for word in (account.encode(), envelope.mail_from.encode(), name):
            hashed.update(len(word).to_bytes(4, "big") + word)
        return hashed.digest()

    def _recipient(self, address: str) -> bytes:
        return hashlib.blake2b(
            address.encode(), key=self._key, digest_size=RECIPIENT_BYTES, person=b"recipient"
        ).digest()


def _each(recipients: bytes) -> Iterable[bytes]:
    return (
        recipients[at : at + RECIPIENT_BYTES] for at in range(0, len(recipients), RECIPIENT_BYTES)
    )
