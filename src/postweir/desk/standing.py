"""What `up` would stumble over, found before it is started: ports, certificate, files."""

import os
import pwd
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from postweir.runtime import net, settings
from postweir.runtime.settings import Fault, Settings

Where = Callable[[str], str]

EXPIRES_SOON_S = 14 * 86_400  # a certificate's; renewals happen at thirty days left


def faults(path: Path, now: Settings, *, running: bool) -> list[Fault]:
    """Return what `up` would stumble over with these settings; the ports are ours if it runs."""

    def where(key: str) -> str:
        return settings.where(path, *key.split("."))

    found = [*_directory(now.data, where("storage.data")), *_files(now, where)]
    if now.tls.certificate:
        found += _certificate(now, where("tls.certificate"))
    return found + ([] if running else list(_ports(now, where)))


def warnings(path: Path, now: Settings) -> list[Fault]:
    """Return what keeps nobody from starting, and should not stay so."""
    found = []
    left_s = _seconds_left(now.tls.certificate, now.tls.key) if now.tls.certificate else None
    if left_s is not None and 0 < left_s < EXPIRES_SOON_S:
        where = settings.where(path, "tls", "certificate")
        days = f"ends in {left_s / 86_400:.0f} days"
        found.append(
            Fault(where, f"{now.tls.certificate} {days}", "renew it; no restart is needed")
        )
    at = settings.where(path, "delivery", "pools")
    found += [
        Fault(at, f"pool {name}: this host has no address {one}",
              "give it that address, or take it out: others of the pool are used, or none")
        for name, addresses in now.delivery.pools.items()
        for one in addresses
        if not net.is_ours(one)
    ]  # fmt: skip
    if os.geteuid() == 0:
        found.append(Fault(str(path), "you are root; nothing here needs root",
                           "give `up` a user of its own that owns storage.data"))  # fmt: skip
    return found


def _directory(data: Path, where: str) -> Iterator[Fault]:
    """The data directory, or what it would be made in, must be ours to write."""
    at = data
    while not os.path.exists(at) and at != at.parent:  # Path.exists raises where we may not look
        at = at.parent
    if not at.is_dir():
        yield Fault(where, f"{at} is no directory", "name a directory in storage.data")
        return
    owner = at.stat().st_uid
    if at == data and os.geteuid() == 0 and owner != 0:
        yield Fault(where, f"{at} belongs to user {_name(owner)}", "run `up` as that user")
    elif not os.access(at, os.W_OK | os.X_OK):
        yield Fault(where, f"{at} cannot be written by user {_name(os.geteuid())}",
                    "run this as its owner, or make storage.data for this user")  # fmt: skip


def _files(now: Settings, where: Where) -> Iterator[Fault]:
    if now.judge.url_hosts and not os.access(now.judge.url_hosts, os.R_OK):
        yield Fault(where("judge.url_hosts"), f"{now.judge.url_hosts} cannot be read",
                    "make the file, or correct the name")  # fmt: skip
    log = Path(now.log.file) if now.log.file else None
    if log is not None and not os.access(log if log.exists() else log.parent, os.W_OK):
        yield Fault(where("log.file"), f"{log} cannot be written", "let this user write there")


def _ports(now: Settings, where: Where) -> Iterator[Fault]:
    """Each address once, and free: tried without listening, so that nobody is answered."""
    wanted = [("edge.listen", text) for text in now.edge.listen]
    wanted += [("edge.listen_tls", text) for text in now.edge.listen_tls]
    wanted.append(("metrics.listen", now.metrics.listen))
    taken: dict[tuple[str, int], str] = {}
    for key, text in wanted:
        address = settings.address(text)
        if address[1] and address in taken:
            yield Fault(where(key), f"{key} has {text}, as {taken[address]} has", "choose another")
            continue
        taken[address] = key
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except PermissionError:
                yield Fault(where(key), f"{text}: this user may not listen below port 1024",
                            "systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE")  # fmt: skip
            except OSError as fault:
                yield Fault(where(key), f"{text}: {(fault.strerror or '').lower()}",
                            "stop what uses it, or choose another address")  # fmt: skip


def _certificate(now: Settings, where: str) -> Iterator[Fault]:
    if _context(now.tls.certificate, now.tls.key) is None:
        yield Fault(where, f"{now.tls.certificate} and {now.tls.key} do not make a pair",
                    "name the certificate (PEM, with its chain) and its own key, not encrypted"
                    )  # fmt: skip
        return
    left_s = _seconds_left(now.tls.certificate, now.tls.key)
    if left_s is not None and left_s <= 0:
        yield Fault(where, f"{now.tls.certificate} is not in force today", "renew it")


def _context(certificate: str, key: str) -> ssl.SSLContext | None:
    try:
        return net.server_context(certificate, key)
    except (OSError, ValueError):
        return None


def _seconds_left(certificate: str, key: str) -> float | None:
    """Return how long a certificate is in force, 0 when it is not now; None: nobody can say."""
    context = _context(certificate, key)
    found = net.in_force(context, certificate) if context is not None else None
    if found is None:
        return None
    begins_s, ends_s = found
    now_s = time.time()
    return ends_s - now_s if begins_s <= now_s else 0.0


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
