"""Who answers for a message: account and sender."""

from postweir.runtime.frames import Value

ACCOUNT_NAME_BYTES_MAX = 64
IDENTITY_BYTES_MAX = 256  # longer ones are cut and end in a digest: see identity.attribution


class Sender(Value, frozen=True):
    """Who answers for a message, and how we know."""

    account: str
    type: str  # sasl, x-authuser, x-authsender, received, script, forwarded, account
    identity: str
    evidence: tuple[tuple[str, str], ...] = ()  # (source, what it said), in the order looked at

    @property
    def key(self) -> str:
        """`account|type|identity`: the sender's name everywhere."""
        return f"{self.account}|{self.type}|{self.identity}"


class Account(Value, frozen=True):
    """Who pays for the relay, and the settings that are theirs to choose."""

    name: str
    suspended: bool = False
    networks: tuple[str, ...] = ()  # CIDR; mail from there is theirs without AUTH
    identity_order: tuple[str, ...] = (
        "x-authuser",
        "x-authenticated-sender",
        "received",
        "x-php-originating-script",
        "sasl",
    )  # the first source that says something names the sender
    bare_newline: str = "refuse"  # or "normalise": a bare CR or LF in data becomes CRLF
    sender_plain: bool = False  # X-Postweir-Sender in clear instead of hashed
    lifetime_s: int = 48 * 3600  # how long a recipient is tried before it bounces
    sender_messages_1h: int = 1000  # above it the default policy defers; a fact for rules
    bounces_1h_max: int = (
        1000  # DSNs we make for this account in an hour; more are dropped, counted
    )
    return_path: str = ""  # bounces go here instead of MAIL FROM; "" means MAIL FROM
    # What it says it sends for, with all below; rules see whether From is among them. (): unsaid.
    domains: tuple[str, ...] = ()
    created_us: int = 0  # when it was added; no setting


class Credential(Value, frozen=True):
    """One secret of an account, never in clear: keyed hash for PLAIN and LOGIN, keys for SCRAM."""

    account: str
    username: str
    keyed_hash: bytes  # HMAC-SHA-256(server secret, secret)
    salt: bytes  # SCRAM-SHA-256, RFC 5802, 7677
    iterations: int
    stored_key: bytes
    server_key: bytes
    created_us: int
    revoked_us: int = 0  # 0: in force


class SenderRecord(Value, frozen=True):
    """What an operator has decided about one sender."""

    key: str
    state: str  # "stopped" or "allowed"
    reason: str
    by: str
    at_us: int


class Directory(Value, frozen=True):
    """An immutable picture of accounts, credentials and decided senders."""

    version: int
    accounts: dict[str, Account] = {}
    credentials: dict[str, Credential] = {}  # by username
    senders: dict[str, SenderRecord] = {}  # by key
