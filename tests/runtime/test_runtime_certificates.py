"""Certificates that change while we serve: only what works replaces what works."""

import datetime
import os
import ssl
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from postweir.runtime import clock
from postweir.runtime.certificates import ALARM_S, ServerTls, forget
from postweir.runtime.net import client_context

DAY_S = 86_400


@dataclass
class Told:
    """A log that remembers."""

    lines: list[tuple[str, dict]] = field(default_factory=list)

    def error(self, event, **fields):
        self.lines.append((event, fields))

    info = warning = error

    def events(self):
        found = [event for event, _ in self.lines]
        self.lines.clear()
        return found


def made(begins_days=-1.0, ends_days=9.0):
    """Return a certificate and its key, as PEM, in force from then to then."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example.net")])
    now = datetime.datetime.now(datetime.UTC)
    one = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins_days))
        .not_valid_after(now + datetime.timedelta(days=ends_days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return (
        one.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def told():
    return Told()


def put(files, pair, kinds=("key", "crt")):
    """Write new files in place of the old, as a renewal does."""
    for kind in kinds:
        (files / "new").write_bytes(pair[["crt", "key"].index(kind)])
        os.replace(files / "new", files / f"relay.{kind}")


def begun(files, told, **more):
    more = {"kept": files / "run" / "tls.kept", "saves": True} | more
    return ServerTls(str(files / "relay.crt"), str(files / "relay.key"), told, **more)


def shown(tls):
    """Return the certificate that a client is shown, in a handshake over memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(back, there)
    server = tls.context.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True)).encode().strip()


def at_days(monkeypatch, days):
    now_us = clock.wall_us()
    monkeypatch.setattr(clock, "wall_us", lambda: now_us + int(days * DAY_S * 1e6))


def test_a_renewed_certificate_is_taken(files, told):
    """Both files changed: the next connection gets the new one; unchanged, nothing happens."""
    one, two = made(), made(ends_days=20)
    put(files, one)
    tls = begun(files, told)
    first_ends_s = tls.ends_s
    assert not tls.look()
    put(files, two)

    assert tls.look()
    assert not tls.look()
    assert shown(tls) == two[0].strip()
    assert round((tls.ends_s - first_ends_s) / DAY_S) == 11
    assert told.events() == ["tls.taken"]


@pytest.mark.parametrize("first", ["crt", "key"])
def test_half_a_renewal_keeps_the_old(files, told, first):
    """Between the writing of the two files the old pair serves; then the new one does."""
    one, two = made(), made()
    put(files, one)
    tls = begun(files, told)
    put(files, two, [first])
    assert not tls.look()
    assert tls.fault
    assert shown(tls) == one[0].strip()

    put(files, two)
    assert tls.look()
    assert tls.fault == ""
    assert shown(tls) == two[0].strip()


BAD = {
    "gone": None,
    "empty": (b"", b""),
    "garbage": (b"garbage", b"garbage"),
    "torn": lambda pair: (pair[0][:200], pair[1]),
    "huge": (b"x" * 2_000_000, b""),
    "mismatched": lambda pair: (pair[0], made()[1]),
    "expired": lambda _: made(-9, -1),
    "not yet": lambda _: made(1, 9),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("bad", BAD)
def test_what_works_is_not_replaced_by_what_does_not(files, told, bad, kept):
    """Gone, torn, another's key, expired or early: the old serves on, and it is told once."""
    one = made()
    put(files, one)
    tls = begun(files, told, **({} if kept else {"kept": None, "saves": False}))
    files_bad = BAD[bad](made()) if callable(BAD[bad]) else BAD[bad]
    if files_bad is None:
        (files / "relay.crt").unlink()
    else:
        put(files, files_bad)
    for _ in range(3):
        assert not tls.look()

    assert tls.fault
    assert shown(tls) == one[0].strip()
    assert told.events() == ["tls.refused"]
    put(files, one)
    assert tls.look()
    assert tls.fault == ""


def test_a_certificate_whose_day_comes(files, told, monkeypatch):
    """One that is laid down early is taken on its day, though its files do not change again."""
    put(files, made())
    tls = begun(files, told)
    early = made(1, 30)
    put(files, early)
    assert not tls.look()
    at_days(monkeypatch, 1.1)

    assert tls.look()
    assert shown(tls) == early[0].strip()


def test_an_expired_certificate_serves_on(files, told, monkeypatch):
    """What is in force and expires goes on serving, with an alarm a day, until it is renewed."""
    one = made(-5, 1)
    put(files, one)
    tls = begun(files, told)
    tls.look()
    assert told.events() == []
    at_days(monkeypatch, 1.5)
    tls.look()
    tls.look()
    assert told.events() == ["tls.out_of_date"]
    at_days(monkeypatch, ALARM_S / DAY_S + 0.1)
    tls.look()
    assert told.events() == ["tls.out_of_date"]

    assert shown(tls) == one[0].strip()


def test_a_start_with_an_expired_certificate(files, told):
    """Where there is nothing better an expired pair serves: a start is no reason to have no TLS."""
    old = made(-9, -1)
    put(files, old)
    tls = begun(files, told)

    assert shown(tls) == old[0].strip()
    assert told.events() == ["tls.refused", "tls.out_of_date"]


@pytest.mark.parametrize("bad", ["garbage", "mismatched", "expired", "not yet"])
def test_a_start_while_the_files_are_bad(files, told, bad):
    """A worker that starts anew begins with what served before, and takes the next good pair."""
    one, two = made(), made()
    put(files, one)
    begun(files, told)
    put(files, BAD[bad](one) if callable(BAD[bad]) else BAD[bad])
    again = begun(files, told, saves=False)
    assert shown(again) == one[0].strip()
    assert told.events() == ["tls.refused", "tls.kept"]
    put(files, two)

    assert again.look()
    assert shown(again) == two[0].strip()


def test_what_is_kept_is_private_and_goes(files, told):
    """The copy is for its owner alone, nothing lies beside it, and it goes when TLS does."""
    put(files, made())
    begun(files, told)
    kept = files / "run" / "tls.kept"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["tls.kept"]

    forget(kept)
    forget(kept)
    assert not kept.exists()


def test_no_room_for_a_copy_is_no_reason(files, told):
    """Where the copy cannot be written the pair is taken from its own files."""
    two = made()
    put(files, two)
    tls = begun(files, told, kept=files / "nowhere" / "tls.kept")

    assert shown(tls) == two[0].strip()


def test_a_pipe_holds_nobody(files, told):
    """A file that is none is refused, and not waited for."""
    one = made()
    put(files, one)
    tls = begun(files, told)
    (files / "relay.key").unlink()
    os.mkfifo(files / "relay.key")

    assert not tls.look()
    assert shown(tls) == one[0].strip()


def test_both_in_one_file(files, told):
    """Certificate and key may lie in one file."""
    one = made()
    (files / "both").write_bytes(b"".join(one))
    path = str(files / "both")
    tls = ServerTls(path, path, told, kept=files / "run" / "tls.kept", saves=True)

    assert shown(tls) == one[0].strip()
    assert told.events() == []


def test_bad_files_at_the_first_start_are_an_error(files, told):
    """There is nothing old to keep: `up` says so instead of serving without TLS."""
    put(files, (b"garbage", b"garbage"))

    with pytest.raises(ValueError, match=r"relay.crt"):
        begun(files, told)
