"""Secrets: made once, checked fast, and useless to who steals the tables."""

import base64
import hashlib
import hmac
import threading

import pytest

from postweir.identity import credentials
from postweir.identity.credentials import check, generate, record, server_secret
from postweir.identity.sender import Account, Directory

KEY = b"k" * 32


def directory(*made):
    accounts = {"acme": Account(name="acme")}
    return Directory(version=1, accounts=accounts, credentials={c.username: c for c in made})


def test_a_generated_secret_opens_its_account():
    """The secret that was shown opens the account, and nothing else does."""
    credential, secret = generate("acme", KEY, created_us=1)
    now = directory(credential)

    assert credential.username.startswith("acme-")
    assert len(secret) >= 26  # 128 bits in base32
    assert check(now, credential.username, secret, KEY) == Account(name="acme")
    assert check(now, credential.username, secret + "x", KEY) is None
    assert check(now, credential.username, "", KEY) is None
    assert check(now, "nobody", secret, KEY) is None
    assert check(now, credential.username, secret, b"other" * 8) is None
    assert check(now, credential.username, "\ud800", KEY) is None


def test_nobody_is_not_let_in_by_nothing():
    """An unknown user is refused whatever the hash they are compared with."""
    assert check(Directory(version=1), "nobody", "", KEY) is None
    assert check(Directory(version=1), "", "", KEY) is None


def test_a_revoked_credential_is_shut():
    """A revoked credential opens nothing; one of an account that is gone neither."""
    credential, secret = generate("acme", KEY, created_us=1)
    revoked = record("acme", credential.username, secret, KEY, salt=credential.salt, created_us=1)
    revoked = type(revoked)(
        **{f: getattr(revoked, f) for f in revoked.__struct_fields__ if f != "revoked_us"},
        revoked_us=5,
    )

    assert check(directory(revoked), credential.username, secret, KEY) is None
    orphans = Directory(version=1, credentials={credential.username: credential})
    assert check(orphans, credential.username, secret, KEY) is None


def test_no_secret_is_kept():
    """What is stored does not hold the secret in any spelling."""
    credential, secret = generate("acme", KEY, created_us=1)
    stored = repr(credential).encode() + credential.keyed_hash + credential.stored_key

    assert secret.encode() not in stored
    assert hashlib.sha256(secret.encode()).digest() not in stored


def test_scram_keys_match_rfc_7677():
    """The example of RFC 7677 section 3 verifies against the stored keys."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    kept = record("a", "user", "pencil", KEY, salt=salt, created_us=1)
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(kept.stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))

    assert hashlib.sha256(client_key).digest() == kept.stored_key
    server = hmac.digest(kept.server_key, message, "sha256")
    assert base64.b64encode(server) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_server_secret_is_made_once(tmp_path):
    """However many need it first at the same time, all get the same secret, and it is private."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(server_secret(tmp_path / "var")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1
    assert (tmp_path / "var" / "secret").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "var").iterdir()] == ["secret"]


def test_a_spoilt_server_secret_is_an_error(tmp_path):
    """A file that holds something else is never taken for a secret, nor replaced."""
    (tmp_path / "secret").write_text("short\n")

    with pytest.raises(ValueError, match="hex digits"):
        server_secret(tmp_path)
    assert (tmp_path / "secret").read_text() == "short\n"


def test_usernames_cannot_be_misread():
    """The letters of a generated name are not taken for digits."""
    assert not set("il1o0") & set(credentials._SUFFIX)


def test_a_damaged_server_secret_is_not_used(tmp_path):
    """With another key every customer would be a stranger; a file of before has no check."""
    key = server_secret(tmp_path)
    path = tmp_path / "secret"
    text = path.read_text()
    other = "0" if text[5] != "0" else "1"
    path.write_text(text[:5] + other + text[6:])
    with pytest.raises(ValueError, match="put it back from the backup"):
        server_secret(tmp_path)
    path.write_text(text.partition(" ")[0] + "\n")

    assert server_secret(tmp_path) == key
