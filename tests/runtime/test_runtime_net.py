"""Certificates that change while we serve."""

import os
import shutil
import ssl
import subprocess
import warnings

import pytest

from postweir.runtime.log import quiet
from postweir.runtime.net import ServerTls, client_context, server_context, tls_name


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


def put(pairs, files, name, kind):
    """Write a new file in place of the old, as a renewal does."""
    shutil.copy(pairs / f"{name}.{kind}", files / "new")
    os.replace(files / "new", files / f"relay.{kind}")


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


def tls_of(files):
    return ServerTls(str(files / "relay.crt"), str(files / "relay.key"), quiet())


def test_opportunistic_takes_any_certificate(files, pairs):
    """A self-signed certificate is better than none; the version and cipher are told."""
    found, end = shaken(tls_of(files).context, client_context())

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
        shaken(tls_of(files).context, old)
    assert client_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_renewed_certificate_is_taken(files, pairs):
    """Both files changed: the next connection gets the new one; unchanged, nothing happens."""
    tls = tls_of(files)
    assert not tls.look()
    put(pairs, files, "two", "key")
    put(pairs, files, "two", "crt")

    assert tls.look()
    assert not tls.look()
    assert shaken(tls.context, client_context())[0] == der(pairs, "two")


def test_half_a_renewal_keeps_the_old(files, pairs):
    """Between the writing of the two files the old pair serves; then the new one does."""
    tls = ServerTls(str(files / "relay.crt"), str(files / "relay.key"), Silent())
    put(pairs, files, "two", "crt")
    assert not tls.look()
    assert tls.fault
    assert shaken(tls.context, client_context())[0] == der(pairs, "one")

    put(pairs, files, "two", "key")
    assert tls.look()
    assert tls.fault == ""
    assert shaken(tls.context, client_context())[0] == der(pairs, "two")


@pytest.mark.parametrize("text", [None, b"", b"garbage"])
def test_bad_files_keep_the_old(files, pairs, text):
    """Gone, empty or garbage: what was good goes on serving."""
    tls = ServerTls(str(files / "relay.crt"), str(files / "relay.key"), Silent())
    if text is None:
        (files / "relay.crt").unlink()
    else:
        (files / "relay.crt").write_bytes(text)

    assert not tls.look()
    assert shaken(tls.context, client_context())[0] == der(pairs, "one")


def test_bad_files_at_the_start_are_an_error(files):
    """There is nothing old to keep."""
    (files / "relay.key").write_bytes(b"garbage")

    with pytest.raises(OSError, match=r"."):
        server_context(str(files / "relay.crt"), str(files / "relay.key"))


class Silent:
    """A log that says nothing."""

    def error(self, *_, **__):
        return

    info = warning = error
