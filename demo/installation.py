"""A Postweir of its own in a scratch directory, on loopback ports nobody else has."""

import contextlib
import datetime
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

COMMAND_S = 30.0


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(holds: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until something holds; returns how long it took. AssertionError: never."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


def certificate(folder: Path, *, days: float = 30) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost and its key; it ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example.net")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "relay.crt", folder / "relay.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    paths[1].chmod(0o600)
    return paths


class Installation:
    """Settings, commands and processes of one Postweir."""

    def __init__(self, folder: Path, *, route: dict[str, str], **changes: dict[str, Any]) -> None:
        """Write the settings; `changes` are sections whose keys override the demo's."""
        self.folder = folder
        self.config = folder / "postweir.toml"
        self.log = folder / "postweir.log"
        self.port, self.port_tls, self.port_metrics = free_port(), free_port(), free_port()
        certificate(folder)
        sections: dict[str, dict[str, Any]] = {
            "edge": {
                "hostname": "relay.example.net",
                "listen": [f"127.0.0.1:{self.port}"],
                "listen_tls": [f"127.0.0.1:{self.port_tls}"],
            },
            "tls": {"certificate": "relay.crt", "key": "relay.key"},
            "storage": {"data": "var"},
            "spool": {"shards": 2},
            "judge": {},
            "delivery": {},
            "supervisor": {},
            "metrics": {"listen": f"127.0.0.1:{self.port_metrics}"},
        }
        for name, keys in changes.items():
            sections.setdefault(name, {}).update(keys)
        sections["delivery"]["route"] = route
        self.config.write_text(_toml(sections))
        self.environment: dict[str, str] = {}  # what its processes get beside our own
        self._process: subprocess.Popen[str] | None = None

    def start(self, wait_s: float = 20.0) -> float:
        """Run `postweir up` until it says `ready`; returns how long that took."""
        began = time.monotonic()
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "postweir", "up", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
                start_new_session=True,  # a terminal's ^C is for whoever started it, who stops it
            )
        said: list[str] = []
        listener = threading.Thread(target=_listen, args=(self._process, said), daemon=True)
        listener.start()

        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"postweir up ended: {said}\n{self.tail()}")
            return "ready" in said

        wait_for(ready, wait_s, f"`ready`; it said {said}\n{self.tail()}")
        return time.monotonic() - began

    def stop(self, number: int = signal.SIGTERM, wait_s: float = 30.0) -> int:
        """Stop it; returns the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            status = self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self._process = None
        return status

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.stop()

    def run(self, *words: str, status: int | None = 0) -> str:
        """Run one command; returns what it printed. `status` None: any exit status will do."""
        done = subprocess.run(
            [sys.executable, "-m", "postweir", *words, "-c", str(self.config)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert status is None or done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout

    def json(self, *words: str, status: int | None = 0) -> Any:
        """Run one command with --json; returns what it said."""
        return json.loads(self.run(*words, "--json", status=status))

    def customer(self, account: str, *settings: str) -> tuple[str, str]:
        """Make an account with a credential; returns username and secret."""
        self.run("account", "add", account, *settings)
        made = self.json("credential", "add", account)
        return made["username"], made["secret"]

    def process(self, kind: str, index: int = 1) -> int:
        """Return the process number of one of its processes."""
        assert self._process is not None
        title = f"postweir: {kind} {index}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "cmdline").read_bytes().rstrip(b"\0 ") != title:
                    continue
                if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == (
                    self._process.pid
                ):
                    return int(path.name)
        raise LookupError(f"{kind} {index} does not run")

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def _listen(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        said.extend(line.rstrip("\n") for line in lines)


def _toml(sections: dict[str, dict[str, Any]]) -> str:
    out = []
    for name, keys in sections.items():
        out.append(f"[{name}]")
        for key, value in keys.items():
            if isinstance(value, dict):
                pairs = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
                out.append(f"{key} = {{ {pairs} }}")
            else:
                out.append(f"{key} = {json.dumps(value)}")
    return "\n".join(out) + "\n"
