"""A real Postfix as the customer, and Postfix's smtp-sink as the world, from an unpacked root.

The customer's main.cf is the recipe of docs/postfix.md, word for word: `recipe` reads it there.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.harness import free_port, wait_for
from tests.peers.unpacked import PEERS, ROOT, environment

ENVIRONMENT = {**environment(), "SASL_PATH": f"{PEERS}/usr/lib/x86_64-linux-gnu/sasl2"}
OWNER, GROUP = "uucp", "news"  # of every Debian: Postfix wants an owner that nobody else is


def missing(*, root: bool = True) -> str:
    """Return why this peer cannot run here, or ""."""
    if not (PEERS / ".complete").exists():
        return "Postfix is not unpacked (.ci/peers does it)"
    if root and os.geteuid() != 0:
        return "Postfix's master needs root"
    return ""


def recipe(**names: str) -> str:
    """Return the main.cf of docs/postfix.md with its example values replaced."""
    text = (ROOT / "docs" / "postfix.md").read_text()
    main = text.partition("```ini\n")[2].partition("```")[0]
    for name, value in names.items():
        assert name in main, f"docs/postfix.md no longer says {name}"
        main = main.replace(name, value)
    return main


class Postfix:
    """One Postfix with private directories and one smtpd on loopback."""

    def __init__(
        self, folder: Path, *, relay_port: int, username: str, secret: str,
        extra: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Start it; `extra` are lines of main.cf that come last, and so hold."""
        self.folder, self.port = folder, free_port()
        self._config, self._queue = folder / "etc", folder / "queue"
        self._lay(relay_port, username, secret, extra)
        self._process = subprocess.Popen(
            [f"{PEERS}/usr/lib/postfix/sbin/master", "-c", str(self._config), "-d"],
            env={**ENVIRONMENT, "MAIL_CONFIG": str(self._config)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _lay(self, relay_port: int, username: str, secret: str, extra: Sequence[str]) -> None:
        owner = pwd.getpwnam(OWNER).pw_uid
        data = self.folder / "data"
        self._config.mkdir(parents=True)
        data.mkdir()
        os.chown(data, owner, -1)
        self._queue.mkdir()
        private = [
            "incoming", "active", "deferred", "bounce", "defer", "flush", "hold", "saved",
            "trace", "corrupt", "maildrop", "public", "private",
        ]  # fmt: skip
        for name in private:
            (self._queue / name).mkdir()
            os.chown(self._queue / name, owner, -1)
            (self._queue / name).chmod(0o700)
        (self._queue / "pid").mkdir()
        passwords = self._config / "relay_password"
        passwords.write_text(f"[127.0.0.1]:{relay_port} {username}:{secret}\n")
        main = recipe(**{
            "[relay.example.net]:587": f"[127.0.0.1]:{relay_port}",
            "hash:/etc/postfix/relay_password": f"texthash:{passwords}",
        })  # fmt: skip
        sbin = f"{PEERS}/usr/lib/postfix/sbin"
        main += f"""
compatibility_level = 3.6
myhostname = mail.customer.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
queue_directory = {self._queue}
data_directory = {data}
daemon_directory = {sbin}
command_directory = {PEERS}/usr/sbin
shlib_directory = {PEERS}/usr/lib/postfix
meta_directory = {self._config}
mail_owner = {OWNER}
setgid_group = {GROUP}
default_privs = nobody
maillog_file = {self.folder}/mail.log
maillog_file_prefixes = {self.folder}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH SASL_PATH TZ LANG=C
minimal_backoff_time = 5s
maximal_backoff_time = 5s
queue_run_delay = 5s
smtpd_client_connection_count_limit = 0
message_size_limit = 52428800
smtpd_recipient_restrictions = permit_mynetworks, reject
local_header_rewrite_clients =
smtp_destination_concurrency_limit = 20
"""
        (self._config / "main.cf").write_text(main + "".join(f"{line}\n" for line in extra))
        services = [
            f"127.0.0.1:{self.port} inet n - n - - smtpd",
            "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
            "tlsmgr unix - - n 1000? 1 tlsmgr", "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
            "flush unix n - n 1000? 0 flush", "proxymap unix - - n - - proxymap",
            "smtp unix - - n - - smtp", "relay unix - - n - - smtp",
            "showq unix n - n - - showq", "error unix - - n - - error",
            "retry unix - - n - - error", "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache", "postlog unix-dgram n - n - 1 postlogd",
        ]  # fmt: skip
        (self._config / "master.cf").write_text("\n".join(services) + "\n")

    def log(self) -> str:
        """Return the mail log so far."""
        path = self.folder / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def queued(self) -> int:
        """Return how many messages are in the queue."""
        names = ("incoming", "active", "deferred", "maildrop")
        return sum(1 for n in names for p in (self._queue / n).rglob("*") if p.is_file())

    def stop(self) -> None:
        """End it and all its daemons."""
        subprocess.run(
            ["pkill", "-TERM", "-s", str(self._process.pid)], check=False, capture_output=True
        )
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


@pytest.fixture
def common_ground() -> Iterator[Path]:
    """A folder that daemons without root can reach; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def smtp_sink(common_ground: Path) -> Iterator[tuple[int, Path]]:
    """A real smtp-sink that keeps each message in a file; gives its port and the folder."""
    if reason := missing(root=False):
        pytest.skip(reason)
    folder = common_ground / "sink"
    folder.mkdir()
    port = free_port()
    words = [
        f"{PEERS}/usr/sbin/smtp-sink",
        "-c",
        "-d",
        "%Y%m%d%H%M%S.",
        f"127.0.0.1:{port}",
        "1000",
    ]
    if os.geteuid() == 0:
        words[1:1] = ["-u", "nobody"]
        shutil.chown(folder, "nobody")
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: _answers(port), 10, "smtp-sink answers")
    yield port, folder
    process.terminate()
    process.wait(5)


def _answers(port: int) -> bool:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        time.sleep(0.02)
        return False
