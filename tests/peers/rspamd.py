"""A real rspamd, and the unbound it asks, which knows no name at all: nothing leaves the host."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import free_port, wait_for
from tests.peers.unpacked import PEERS, environment, program

RSPAMD = PEERS / "usr/bin/rspamd"
FOLDERS = {
    "SHAREDIR": PEERS / "usr/share/rspamd",
    "PLUGINSDIR": PEERS / "usr/share/rspamd/plugins", "RULESDIR": PEERS / "usr/share/rspamd/rules",
    "LUALIBDIR": PEERS / "usr/share/rspamd/lualib", "WWWDIR": PEERS / "usr/share/rspamd/www",
}  # fmt: skip
# What asks the network or a Redis that is not there: these modules have no file here.
OFF = (
    "asn", "bimi", "dcc", "fuzzy_check", "neural", "rbl", "redis", "replies", "reputation",
    "rspamd_update", "surbl",
)  # fmt: skip
# A rule of our own: what carries this header is rejected.
RULE = """
rspamd_config:register_symbol{name = 'TEST_REJECT', score = 20.0, group = 'test',
  callback = function(task) return task:get_header('X-Reject') ~= nil end}
"""
CONFIG = """
.include "$CONFDIR/common.conf"
options {{
    .include "$CONFDIR/options.inc"
    dns {{ nameserver = ["127.0.0.1:{dns}"]; timeout = 0.5s; retransmits = 1; }}
    local_addrs = [];  # a relaying customer is no friend
}}
logging {{ type = "file"; filename = "$LOGDIR/rspamd.log"; level = "warning"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; task_timeout = 3s; }}
"""


def missing() -> str:
    """Return why this peer cannot run here, or ""."""
    if not RSPAMD.exists() or program("unbound") is None:
        return "rspamd is not unpacked (.ci/peers does it)"
    return ""


class Rspamd:
    """One rspamd in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._resolver_port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both, and wait until rspamd answers."""
        for name in ("db", "log", "run", "local"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "local" / "rspamd.local.lua").write_text(RULE)
        self._run(self._resolver())
        self._run(self._filter())
        wait_for(self.answers, 20, f"rspamd answers\n{self.log()[-2000:]}")

    def answers(self) -> bool:
        """True when it says pong."""
        return subprocess.run(
            ["curl", "-sf", "-m", "1", f"{self.url}/ping"], stdout=subprocess.DEVNULL, check=False
        ).returncode == 0  # fmt: skip

    @property
    def pid(self) -> int:
        """The main process; its group is all of it."""
        return self._processes[-1].pid

    def signal(self, number: int) -> None:
        """Signal all of it."""
        os.killpg(self.pid, number)

    def stop(self) -> None:
        """End both."""
        for process in self._processes:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                continue
            process.wait()
        self._processes.clear()

    def log(self) -> str:
        """Return what it wrote down."""
        path = self.folder / "log" / "rspamd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _run(self, words: list[str]) -> None:
        found = environment()
        found["LD_LIBRARY_PATH"] += f":{PEERS}/usr/lib/rspamd"
        with (self.folder / "stderr").open("ab") as said:
            self._processes.append(
                subprocess.Popen(
                    words, env=found, start_new_session=True, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=said,
                )
            )  # fmt: skip

    def _resolver(self) -> list[str]:
        config = self.folder / "unbound.conf"
        config.write_text(
            "server:\n"
            f" interface: 127.0.0.1@{self._resolver_port}\n"
            ' chroot: ""\n username: ""\n pidfile: ""\n do-daemonize: no\n use-syslog: no\n'
            f' directory: "{self.folder}"\n module-config: "iterator"\n'
            ' local-zone: "." always_nxdomain\n'
            "remote-control:\n control-enable: no\n"
        )
        return [str(program("unbound")), "-d", "-c", str(config)]

    def _filter(self) -> list[str]:
        config = self.folder / "rspamd.conf"
        config.write_text(CONFIG.format(port=self.port, dns=self._resolver_port))
        shutil.copytree(PEERS / "etc" / "rspamd", self.folder / "etc")
        for name in OFF:
            (self.folder / "etc" / "modules.d" / f"{name}.conf").unlink()
        (self.folder / "etc" / "statistic.conf").write_text("")
        # All public suffixes there are make a program of 43 MB, for nine seconds.
        options = self.folder / "etc" / "options.inc"
        few = self.folder / "suffixes"
        few.write_text("com\nexample\nnet\norg\n")
        options.write_text(
            options.read_text().replace("${SHAREDIR}/effective_tld_names.dat", str(few))
        )
        own = {
            "CONFDIR": "etc",
            "DBDIR": "db",
            "LOGDIR": "log",
            "RUNDIR": "run",
            "LOCAL_CONFDIR": "local",
        }
        folders = {**FOLDERS, **{name: self.folder / path for name, path in own.items()}}
        variables = [f"--var={name}={path}" for name, path in folders.items()]
        return [str(RSPAMD), "-f", "-i", "-c", str(config), *variables]


@contextmanager
def rspamd(folder: Path) -> Iterator[Rspamd]:
    """Run one in this folder."""
    peer = Rspamd(folder)
    try:
        peer.start()
        yield peer
    finally:
        peer.stop()
