"""AUTH PLAIN and LOGIN, one step at a time, with no idea whose secret is right."""

from dataclasses import dataclass

MECHANISMS = ("PLAIN", "LOGIN")
_USERNAME, _PASSWORD = "VXNlcm5hbWU6", "UGFzc3dvcmQ6"  # what LOGIN's clients wait for


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send 334 with this."""

    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Who they say they are."""

    username: str
    secret: str


@dataclass(frozen=True, slots=True)
class Garbled:
    """There is no such answer, or the client gave up: 501."""


class Sasl:
    """One exchange: `begin`, then `answer` for each line, until it is no Challenge."""

    def __init__(self, mechanism: str) -> None:
        assert mechanism in MECHANISMS
        self._mechanism = mechanism
        self._username: str | None = None

    def begin(self, initial: bytes | None) -> Challenge | Claim | Garbled:
        """Start; `initial` is the response that came with the command, if one did."""
        if initial is not None:
            return self.answer(initial)
        return Challenge(_USERNAME if self._mechanism == "LOGIN" else "")

    def answer(self, line: bytes | None) -> Challenge | Claim | Garbled:
        """Take the client's next line, decoded; None when it gave up."""
        try:
            text = None if line is None else line.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None:
            return Garbled()
        if self._mechanism == "PLAIN":
            # RFC 4616: authzid NUL authcid NUL passwd. Nobody acts for another here.
            words = text.split("\0")
            if len(words) != 3 or not words[1] or words[0] not in ("", words[1]):
                return Garbled()
            return Claim(words[1], words[2])
        if self._username is None:
            self._username = text
            return Challenge(_PASSWORD)
        return Claim(self._username, text)
