"""What we do about a message, and who said so."""

from postweir.runtime.frames import Value

# Ordered by how easily each is undone.
VERBS = ("accept", "tag", "route", "throttle", "defer", "hold", "refuse")


class Verdict(Value, frozen=True):
    """The decision for one message: a verb, and the rule and policy that chose it."""

    verb: str
    rule: str = ""  # "" when no rule matched, or the account of it is in `reason`
    policy: str = ""  # pol_<sha256>, or "baseline"
    code: str = ""  # [SS], [STF]: the published registry of docs/replies.md
    text: str = ""  # one sentence for the person refused; never the sender's own words
    retry_after_s: int = 0  # with defer
    pool: str = ""  # with route and tag: which of our addresses it leaves by
    header: str = ""  # with tag: a field that is put before the message, "X-Name: value"
    hold_s: int = 0  # with hold: when it expires; 0: as the setting says
    lifetime_s: int = 0  # how long each recipient is tried; 0: as the account says

    @property
    def takes_mail(self) -> bool:
        """True when the message becomes ours: everything but defer, throttle and refuse."""
        return self.verb in ("accept", "tag", "route", "hold")


Fact = bool | int | float | str | list[str]
