"""What a client may say: command lines read into events, one kind for each verb."""

from binascii import Error as BadBase64
from binascii import a2b_base64
from collections.abc import Callable

from postweir.mail.address import parse_path, split_path
from postweir.mail.reply import Reply
from postweir.runtime.frames import Value

NAME_BYTES_MAX = 255  # a HELO name, RFC 5321 4.5.3.1.2
SIZE_DIGITS_MAX = 20  # RFC 1870 3


class Offers(Value, frozen=True):
    """What we can do for this client just now; EHLO says so, and nothing else is taken."""

    hostname: str
    size_max: int
    starttls: bool = False
    auth: tuple[str, ...] = ()


class Greet(Value, frozen=True):
    """HELO or EHLO; what `ServerSession.welcome` returns is the usual answer."""

    verb: str
    name: str


class Mail(Value, frozen=True):
    """A transaction begins; "" is the null sender."""

    address: str
    size: int | None
    eight_bit: bool


class Rcpt(Value, frozen=True):
    """One recipient; `postmaster` alone comes without a domain."""

    address: str


class Data(Value, frozen=True):
    """May the message come? Answer 354 and it does."""


class Body(Value, frozen=True):
    """A run of the message's bytes, CRLF kept, dots unstuffed. Needs no reply."""

    data: bytes


class BodyEnd(Value, frozen=True):
    """The lone dot. The message is whole; our reply decides who owns it now."""

    bare_newline: bool  # refuse it
    nul: bool  # refuse it


class Auth(Value, frozen=True):
    """Prove who you are: answer 334 to ask more, 235 or 535 to end it."""

    mechanism: str
    initial: bytes | None


class AuthAnswer(Value, frozen=True):
    """The answer to a 334; None when the client gave up."""

    data: bytes | None


class StartTls(Value, frozen=True):
    """Answer 220, shake hands, then call `restart`."""


class Reset(Value, frozen=True):
    """RSET: the transaction is forgotten."""


class Noop(Value, frozen=True):
    """NOOP."""


class Quit(Value, frozen=True):
    """QUIT: answer 221 and close."""


class Verify(Value, frozen=True):
    """VRFY: answer 252."""

    argument: str


class Help(Value, frozen=True):
    """HELP: answer 214."""


class Misstep(Value, frozen=True):
    """A line that is no command, or not one for now. Send `reply`; count them."""

    reply: Reply
    fatal: bool = False  # then close


Event = (
    Greet | Mail | Rcpt | Data | Body | BodyEnd | Auth | AuthAnswer | StartTls
    | Reset | Noop | Quit | Verify | Help | Misstep
)  # fmt: skip

# Known to RFCs and offered to nobody here.
UNOFFERED = frozenset({
    "ATRN", "BDAT", "BURL", "ETRN", "EXPN", "SAML", "SEND", "SOML", "TURN", "VERB", "XCLIENT",
    "XEXCH50", "XFORWARD",
})  # fmt: skip
# A browser is speaking to us, with words that somebody else put in its mouth.
FOREIGN = frozenset({
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
})  # fmt: skip


def misstep(code: int, status: str, text: str) -> Misstep:
    """Return a misstep that the talk survives."""
    return Misstep(Reply(code, status, text))


def fatal(code: int, status: str, text: str) -> Misstep:
    """Return a misstep that ends the talk."""
    return Misstep(Reply(code, status, text), True)


def read_command(verb: str, argument: str, offers: Offers) -> Event:
    """Return the event of a known command (a key of READERS), or the misstep in its argument."""
    if not (argument.isascii() and argument.isprintable()):
        return _unprintable(verb, argument)
    return READERS[verb](verb, argument.strip(" "), offers)


def read_base64(text: str) -> bytes | None:
    """Return the bytes, or None when `text` is not base64."""
    try:
        return a2b_base64(text, strict_mode=True)
    except (BadBase64, ValueError):  # ValueError: not even ASCII
        return None


def _unprintable(verb: str, argument: str) -> Misstep:
    if "\0" in argument:
        return misstep(500, "5.5.2", "A command cannot hold a NUL")
    match verb:
        case "MAIL":  # RFC 6531 is not offered
            return misstep(553, "5.1.7", "The sender's address must be printable ASCII")
        case "RCPT":
            return misstep(553, "5.1.3", "The recipient's address must be printable ASCII")
    return misstep(501, "5.5.4", f"{verb} takes printable ASCII")


def _greet(verb: str, argument: str, _: Offers) -> Event:
    if not 0 < len(argument) <= NAME_BYTES_MAX or " " in argument:
        return misstep(501, "5.5.4", f"Say {verb} and your host name")
    return Greet(verb, argument)


def _mail(_: str, argument: str, offers: Offers) -> Event:
    if argument[:5].upper() != "FROM:":
        return misstep(501, "5.5.4", "Say MAIL FROM:<address>")
    path, words = split_path(argument[5:].lstrip(" "))
    address = parse_path(path)
    if address is None or (address and "@" not in address) or (words and words[0] != " "):
        return misstep(501, "5.1.7", "The sender's address is malformed")
    return (
        _mail_parameters(address, words.upper().split(), offers)
        if words
        else Mail(address, None, False)
    )


def _mail_parameters(address: str, words: list[str], offers: Offers) -> Event:
    values = {name: value for name, _, value in (word.partition("=") for word in words)}
    if len(values) != len(words):
        return misstep(501, "5.5.4", "A MAIL parameter is there twice")
    size: int | None = None
    for name, value in values.items():
        match name:
            case "SIZE":
                if not (value.isdecimal() and len(value) <= SIZE_DIGITS_MAX):
                    return misstep(501, "5.5.4", "SIZE takes a number of bytes")
                size = int(value)
            case "BODY" if value in ("7BIT", "8BITMIME"):
                pass
            case "AUTH" if value and offers.auth:
                pass  # RFC 4954 5: taken, and trusted no more than if it were not there
            case _:
                return misstep(555, "5.5.4", "A MAIL parameter is not known here")
    if size is not None and size > offers.size_max:
        return misstep(552, "5.3.4", f"A message may have {offers.size_max} bytes")
    return Mail(address, size, values.get("BODY") == "8BITMIME")


def _rcpt(_: str, argument: str, __: Offers) -> Event:
    if argument[:3].upper() != "TO:":
        return misstep(501, "5.5.4", "Say RCPT TO:<address>")
    path, words = split_path(argument[3:].lstrip(" "))
    address = parse_path(path)
    if not address or (words and words[0] != " "):
        return misstep(501, "5.1.3", "The recipient's address is malformed")
    if words.strip(" "):
        return misstep(555, "5.5.4", "A RCPT parameter is not known here")
    return Rcpt(address)


def _auth(_: str, argument: str, offers: Offers) -> Event:
    mechanism, space, initial = argument.partition(" ")
    if not mechanism:
        return misstep(501, "5.5.4", "Say AUTH and a mechanism")
    if mechanism.upper() not in offers.auth:
        return misstep(504, "5.5.4", f"We know AUTH {' and '.join(offers.auth)}")
    if not space:
        return Auth(mechanism.upper(), None)
    # RFC 4954 4: "=" is an initial response that is there, and empty.
    decoded = b"" if initial == "=" else read_base64(initial)
    if decoded is None:
        return misstep(501, "5.5.2", "The initial response is not base64")
    return Auth(mechanism.upper(), decoded)


def _verify(_: str, argument: str, __: Offers) -> Event:
    return Verify(argument) if argument else misstep(501, "5.5.4", "Say VRFY and a name")


def _bare(event: Event) -> Callable[[str, str, Offers], Event]:
    """Return a reader of a command that takes no argument."""

    def read(verb: str, argument: str, _: Offers) -> Event:
        return misstep(501, "5.5.4", f"{verb} takes no argument") if argument else event

    return read


READERS: dict[str, Callable[[str, str, Offers], Event]] = {
    "HELO": _greet,
    "EHLO": _greet,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _bare(Data()),
    "AUTH": _auth,
    "STARTTLS": _bare(StartTls()),
    "RSET": _bare(Reset()),
    "QUIT": _bare(Quit()),
    "VRFY": _verify,
    "NOOP": lambda _, __, ___: Noop(),
    "HELP": lambda _, __, ___: Help(),
}
