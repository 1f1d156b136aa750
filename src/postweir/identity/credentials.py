"""Secrets that let mail in: made once, shown once, kept only as keyed hashes.

A secret is 128 bits of chance, so it needs no slow hash: nobody guesses it from a stolen table,
and an AUTH costs microseconds. What is kept is HMAC-SHA-256 under a server secret that lies
outside the tables, and the two keys of SCRAM-SHA-256 (RFC 5802, 7677) for clients that speak it.
"""

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from postweir.identity.sender import Account, Credential, Directory
from postweir.runtime import files

SECRET_BYTES = 16  # 128 bits
SCRAM_ITERATIONS = 4096  # RFC 7677 4; more would not help a secret of 128 bits
SALT_BYTES = 16
SERVER_SECRET_BYTES = 32
PASSWORD_BYTES_MAX = 256  # longer than any secret we made
_SUFFIX = "abcdefghjkmnpqrstuvwxyz23456789"  # no letter that is read as another
_NOBODY = bytes(32)  # what an unknown user's secret is compared with: never equal to an HMAC


def generate(account: str, key: bytes, *, created_us: int) -> tuple[Credential, str]:
    """Return a new credential of an account, and its secret: to be shown once, kept by nobody."""
    secret = base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=").lower()
    suffix = "".join(secrets.choice(_SUFFIX) for _ in range(6))
    salt = secrets.token_bytes(SALT_BYTES)
    return record(
        account, f"{account}-{suffix}", secret, key, salt=salt, created_us=created_us
    ), secret


def record(
    account: str, username: str, secret: str, key: bytes, *, salt: bytes, created_us: int
) -> Credential:
    """Return what is kept of a secret."""
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Credential(
        account=account,
        username=username,
        keyed_hash=hmac.digest(key, secret.encode(), "sha256"),
        salt=salt,
        iterations=SCRAM_ITERATIONS,
        stored_key=hashlib.sha256(client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", "sha256"),
        created_us=created_us,
    )


def check(directory: Directory, username: str, secret: str, key: bytes) -> Account | None:
    """Return whose credential this is, or None; an unknown name takes as long as a wrong secret.

    A suspended account is returned too: what is said to it is the edge's to choose.
    """
    credential = directory.credentials.get(username)
    given = hmac.digest(key, secret[:PASSWORD_BYTES_MAX].encode("utf-8", "replace"), "sha256")
    kept = credential.keyed_hash if credential is not None else _NOBODY
    equal = hmac.compare_digest(given, kept)
    if not equal or credential is None or credential.revoked_us:
        return None
    return directory.accounts.get(credential.account)


def server_secret(data: Path) -> bytes:
    """Return the key under which secrets are hashed; whoever needs it first makes the file.

    Raises OSError, or ValueError when the file holds something else.
    """
    path = data / "secret"
    try:
        return _read(path)
    except FileNotFoundError:
        _make(path)
        return _read(path)


def _read(path: Path) -> bytes:
    text, _, check = path.read_text("ascii").strip().partition(" ")
    if len(text) != 2 * SERVER_SECRET_BYTES:
        raise ValueError(f"{path}: not {2 * SERVER_SECRET_BYTES} hex digits")
    # One digit that changed would refuse every customer as a stranger. Files of before have none.
    if check not in ("", _check(text)):
        raise ValueError(f"{path}: is damaged; put it back from the backup")
    return bytes.fromhex(text)


def _check(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _make(path: Path) -> None:
    # Written whole under another name and linked: nobody ever reads half a secret, and of two
    # processes that make one at once the first wins.
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            text = secrets.token_hex(SERVER_SECRET_BYTES)
            file.write(f"{text} {_check(text)}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
    files.sync_folder(path.parent)
