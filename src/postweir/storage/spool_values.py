"""What a commit is made of while it is being made."""

from dataclasses import dataclass, field

from postweir.spool import bounce
from postweir.spool.ports import Done
from postweir.spool.states import RecipientState


@dataclass(slots=True)
class Answer:
    """A `Done` while it is being made."""

    reason: str = ""
    number: int = 0
    ready: list[int] = field(default_factory=list)
    due: list[tuple[int, int, int]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    more: bool = False

    def done(self) -> Done:
        return Done(
            self.reason,
            self.number,
            tuple(self.ready),
            tuple(self.due),
            tuple(self.ended),
            tuple(self.noted),
            self.more,
        )


@dataclass(slots=True)
class Numbers:
    """The highest numbers given, and where a wide request has got to; kept by the store."""

    message: int = 0
    step: int = 0
    request: int = 0
    request_done: int = 0
    request_at: int = 0  # recipient row up to which `request` has worked


@dataclass(slots=True)
class Pauses:
    """The suspended scopes, by name, with the time they end."""

    until_us: dict[str, int | None] = field(default_factory=dict)

    def hold(self, account: str, sender: str, domain: str, now_us: int) -> bool:
        """True when mail of this account, of this sender or to this domain is suspended."""
        if not self.until_us:
            return False
        for scope in (f"account={account}", f"sender={sender}", f"domain={domain}"):
            if scope in self.until_us:
                until_us = self.until_us[scope]
                if until_us is None or until_us > now_us:
                    return True
        return False


@dataclass(slots=True)
class Standing:
    """One recipient as its row says, with what its message says."""

    recipient: int
    state: RecipientState
    tries: int
    bucket: int
    lane: int
    address: str
    about: bounce.Original
