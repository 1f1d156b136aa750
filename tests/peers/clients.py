"""Other people's mail clients, each given letters and a way to come in."""

import asyncio
import smtplib
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiosmtplib
import pytest
from tests.peers.unpacked import PEERS, environment, program

HELO = "mail.customer.example"
PATIENCE_S = 30


@dataclass(frozen=True, slots=True)
class Letter:
    """One message and its envelope."""

    token: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """How to come in: which door, and whether as a user (by which mechanism) or by address."""

    door: str  # starttls, implicit
    proof: str  # PLAIN, LOGIN, address
    port: int
    username: str
    secret: str
    authority: Path  # the certificate to trust

    @property
    def source(self) -> str:
        """The address to come from: one is a customer's."""
        return "127.0.0.2" if self.proof == "address" else "127.0.0.1"

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


def by_smtplib(way: Way, letters: list[Letter], _: Path) -> None:
    """Python's own; one connection for all."""
    words = {"local_hostname": HELO, "timeout": PATIENCE_S, "source_address": (way.source, 0)}
    if way.door == "implicit":
        smtp = smtplib.SMTP_SSL("127.0.0.1", way.port, context=way.context(), **words)
    else:
        smtp = smtplib.SMTP("127.0.0.1", way.port, **words)
    with smtp:
        if way.door == "starttls":
            smtp.starttls(context=way.context())
        smtp.ehlo()
        if way.proof != "address":
            smtp.user, smtp.password = way.username, way.secret
            prove = smtp.auth_plain if way.proof == "PLAIN" else smtp.auth_login
            assert smtp.auth(way.proof, prove)[0] == 235
        for letter in letters:
            refused = smtp.sendmail(
                letter.sender, letter.recipients, letter.content, mail_options=["BODY=8BITMIME"]
            )
            assert refused == {}


def by_aiosmtplib(way: Way, letters: list[Letter], _: Path) -> None:
    """An asyncio client."""
    asyncio.run(_by_aiosmtplib(way, letters))


async def _by_aiosmtplib(way: Way, letters: list[Letter]) -> None:
    smtp = aiosmtplib.SMTP(
        hostname="127.0.0.1", port=way.port, local_hostname=HELO, timeout=PATIENCE_S,
        source_address=(way.source, 0), use_tls=way.door == "implicit",
        start_tls=way.door == "starttls", tls_context=way.context(),
    )  # fmt: skip
    async with smtp:
        assert smtp.transport is not None
        socket = smtp.transport.get_extra_info("socket")
        await smtp.ehlo()
        if way.proof != "address":
            prove = smtp.auth_plain if way.proof == "PLAIN" else smtp.auth_login
            assert (await prove(way.username, way.secret)).code == 235
        for letter in letters:
            refused, _ = await smtp.sendmail(
                letter.sender, letter.recipients, letter.content, mail_options=["BODY=8BITMIME"]
            )
            assert refused == {}
    async with asyncio.timeout(PATIENCE_S):
        while socket.fileno() >= 0:  # noqa: ASYNC110 (it does not wait for the end of TLS itself)
            await asyncio.sleep(0.01)


def by_swaks(way: Way, letters: list[Letter], folder: Path) -> None:
    """A Perl script of testers; it pipelines. We stuff for it: its own way changes more."""
    words = [
        "--server", "127.0.0.1", "--port", str(way.port), "--helo", HELO, "--pipeline",
        "--local-interface", way.source, "--timeout", str(PATIENCE_S), "--suppress-data",
        "--no-data-fixup",
        "--tls-ca-path", str(way.authority), "--tls-verify",
        "--tls" if way.door == "starttls" else "--tls-on-connect",
    ]  # fmt: skip
    if way.proof != "address":
        words += ["--auth", way.proof, "--auth-user", way.username, "--auth-password", way.secret]
    script, perl = program("swaks"), program("perl")
    for letter in letters:
        file = folder / letter.token
        file.write_bytes(wire(letter.content))
        run(perl, script, *words, "--from", letter.sender or "<>",
            "--to", ",".join(letter.recipients), "--data", f"@{file}")  # fmt: skip


def wire(content: bytes) -> bytes:
    """Return content as it stands behind a 354, but for the last CRLF, which swaks adds."""
    lines = content.split(b"\r\n")[:-1]
    return b"".join((b"." if line[:1] == b"." else b"") + line + b"\r\n" for line in lines) + b"."


def by_curl(way: Way, letters: list[Letter], folder: Path) -> None:
    """curl, which many scripts send with."""
    scheme = "smtps" if way.door == "implicit" else "smtp"
    words = ["--silent", "--show-error", "--ssl-reqd", "--cacert", str(way.authority),
             "--interface", way.source, "--max-time", str(PATIENCE_S)]  # fmt: skip
    if way.proof != "address":
        words += ["--user", f"{way.username}:{way.secret}"]
        words += ["--login-options", f"AUTH={way.proof}"]
    for letter in letters:
        file = folder / letter.token
        file.write_bytes(letter.content)
        recipients = [word for one in letter.recipients for word in ("--mail-rcpt", f"<{one}>")]
        run(program("curl"), f"{scheme}://127.0.0.1:{way.port}/{HELO}", *words, *recipients,
            "--mail-from", f"<{letter.sender}>", "--upload-file", str(file))  # fmt: skip


CLIENTS: dict[str, Callable[[Way, list[Letter], Path], None]] = {
    "smtplib": by_smtplib,
    "aiosmtplib": by_aiosmtplib,
    "swaks": by_swaks,
    "curl": by_curl,
}


def skip_what_is_missing(client: str) -> None:
    """Skip the test, with the reason, when this client is not here."""
    if client == "curl" and program("curl") is None:
        pytest.skip("curl is not installed")
    if client != "swaks":
        return
    if program("swaks") is None or program("perl") is None:
        pytest.skip("swaks is not unpacked (.ci/peers does it), or there is no perl")
    has_tls = subprocess.run(
        [program("perl"), "-MNet::SSLeay", "-e", "1"], env=perl_environment(), capture_output=True,
        check=False,
    )  # fmt: skip
    if has_tls.returncode != 0:
        pytest.skip("swaks has no Net::SSLeay: libnet-ssleay-perl is not unpacked")


def run(*words: str | None) -> None:
    """Run one program; what it says when it fails is shown."""
    done = subprocess.run(
        [str(word) for word in words], env=perl_environment(), capture_output=True,
        timeout=2 * PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])


def perl_environment() -> dict[str, str]:
    """Return the environment in which perl finds unpacked modules; its libraries are the host's."""
    folders = [*PEERS.glob("usr/lib/*/perl5/*"), *PEERS.glob("usr/share/perl5")]
    known = {k: v for k, v in environment().items() if k != "LD_LIBRARY_PATH"}
    return {**known, "PERL5LIB": ":".join(map(str, folders))}
