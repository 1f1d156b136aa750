"""Sockets with an address of ours, and TLS contexts for sending and for receiving.

`runtime.certificates` has the files that change while we serve.
"""

import contextlib
import socket
import ssl
from collections.abc import Mapping

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME; Python has no name for it
ROUNDS_MAX = 8  # of a TLS handshake; it takes two
IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python has a name for it from 3.12 on


def bound(address: str) -> socket.socket:
    """Return a socket for one connection from that address. Raises OSError: it is none of ours."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        made.setblocking(False)
        # The port is chosen with the peer: else an address has 28,000 connections a minute, in all.
        with contextlib.suppress(OSError):
            made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((address, 0))
    except BaseException:
        made.close()
        raise
    return made


def is_ours(address: str) -> bool:
    """True when this host has the address."""
    try:
        bound(address).close()
    except OSError:
        return False
    return True


def client_context() -> ssl.SSLContext:
    """Return the context of opportunistic TLS, RFC 7435: any certificate is better than none.

    Without DANE or MTA-STS nobody can say which name a mail host's certificate should carry, so
    checking it would only turn encrypted mail into clear mail.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return the context of a listener. Raises OSError (ssl.SSLError is one) when files are bad."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # A password, so that an encrypted key fails here instead of asking the terminal for one.
    context.load_cert_chain(certificate, key, password="")
    return context


def tls_name(found: ssl.SSLObject | None) -> str:
    """Return how a connection is protected: `TLSv1.3 TLS_AES_256_GCM_SHA384`, or ""."""
    if found is None:
        return ""
    cipher = found.cipher()
    return f"{found.version()} {cipher[0]}" if cipher else ""


def in_force(context: ssl.SSLContext, certificate: str) -> tuple[float, float] | None:
    """Return from when to when (wall clock, seconds) a listener's certificate is in force.

    Shown to ourselves over memory, and trusted for itself whatever the time: so its text can be
    had without a parser of certificates. None: it has none that we can read, and it may still do.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    try:
        client.load_verify_locations(certificate)
        shown = _shown(context, client)
        begins, ends = shown.get("notBefore"), shown.get("notAfter")
        if not (isinstance(begins, str) and isinstance(ends, str)):
            return None
        return ssl.cert_time_to_seconds(begins), ssl.cert_time_to_seconds(ends)
    except (OSError, ValueError, OverflowError):
        return None


def _shown(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, object]:
    """Return the server's certificate as the client sees it. Raises ssl.SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there)
    for _ in range(ROUNDS_MAX):
        done = 0
        for one in (theirs, ours):
            try:
                one.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                continue
        if done == 2:
            break
    return theirs.getpeercert() or {}
