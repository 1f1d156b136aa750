"""TLS contexts: for sending one that takes any peer, for receiving one from files that change."""

import os
import ssl

from postweir.runtime.log import Log


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
    context.load_cert_chain(certificate, key)
    return context


def tls_name(found: ssl.SSLObject | None) -> str:
    """Return how a connection is protected: `TLSv1.3 TLS_AES_256_GCM_SHA384`, or ""."""
    if found is None:
        return ""
    cipher = found.cipher()
    return f"{found.version()} {cipher[0]}" if cipher else ""


class ServerTls:
    """The certificate in force; `look` once a second takes new files, and keeps the old on bad.

    New connections use `.context` as it is then; those open keep what they began with.
    """

    def __init__(self, certificate: str, key: str, log: Log) -> None:
        self._files = (certificate, key)
        self._log = log
        self._seen = self._stat()
        self.context = server_context(certificate, key)
        self.fault = ""  # what is wrong with the files that were not taken

    def look(self) -> bool:
        """Take the files if they changed; True when new ones are in force. Reads two files."""
        seen = self._stat()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.context = server_context(*self._files)
        except (OSError, ValueError) as fault:
            # A renewal writes one file after the other: the second change is looked at again.
            self.fault = str(fault)
            self._log.error("tls.refused", certificate=self._files[0], fault=self.fault)
            return False
        self.fault = ""
        self._log.info("tls.taken", certificate=self._files[0])
        return True

    def _stat(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stat(path) for path in self._files)


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
