"""TLS contexts: what they take, what they refuse, and when a certificate is in force."""

import shutil
import ssl
import subprocess
import warnings

import pytest

from postweir.runtime.net import client_context, in_force, server_context, tls_name


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("one", "two"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt",
             "-subj", f"/CN={name}.example"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


@pytest.fixture
def files(tmp_path, pairs):
    for kind in ("crt", "key"):
        shutil.copy(pairs / f"one.{kind}", tmp_path / f"relay.{kind}")
    return tmp_path


def shaken(server, client):
    """Return the server's certificate and both ends after a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (one, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return one.getpeercert(binary_form=True), one


def der(pairs, name):
    return ssl.PEM_cert_to_DER_cert((pairs / f"{name}.crt").read_text())


def context_of(files):
    return server_context(str(files / "relay.crt"), str(files / "relay.key"))


def test_opportunistic_takes_any_certificate(files, pairs):
    """A self-signed certificate is better than none; the version and cipher are told."""
    found, end = shaken(context_of(files), client_context())

    assert found == der(pairs, "one")
    assert tls_name(end).startswith("TLSv1.3 TLS_")
    assert tls_name(None) == ""


def test_old_protocols_are_not_spoken(files):
    """Neither side goes below TLS 1.2."""
    old = client_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError):
        shaken(context_of(files), old)
    assert client_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_bad_files_at_the_start_are_an_error(files):
    """There is nothing old to keep."""
    (files / "relay.key").write_bytes(b"garbage")

    with pytest.raises(OSError, match=r"."):
        server_context(str(files / "relay.crt"), str(files / "relay.key"))


def test_an_encrypted_key_asks_nobody(files):
    """A key under a password is an error, and no question on a terminal."""
    subprocess.run(
        ["openssl", "rsa", "-aes128", "-passout", "pass:secret",
         "-in", files / "relay.key", "-out", files / "locked.key"],
        check=True, capture_output=True,
    )  # fmt: skip

    with pytest.raises(OSError, match=r"."):
        server_context(str(files / "relay.crt"), str(files / "locked.key"))


def test_when_a_certificate_is_in_force(files):
    """Its own times are read, and of what is no certificate nothing is said."""
    begins_s, ends_s = in_force(context_of(files), str(files / "relay.crt"))
    text = subprocess.run(
        ["openssl", "x509", "-in", files / "relay.crt", "-noout", "-enddate"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip

    assert ends_s - begins_s == 2 * 86_400
    assert ssl.cert_time_to_seconds(text.strip().partition("=")[2]) == ends_s
    assert in_force(context_of(files), str(files / "relay.key")) is None
