"""One TOML file and the environment, read once, checked whole, then frozen.

Every setting stands here with its unit in its name and its default; `etc/postweir.toml` says
the reason of each and who would change it. A test holds the two together.
"""

import difflib
import hashlib
import os
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path

from postweir.runtime import bounds, frames
from postweir.runtime.bounds import address as address  # noqa: PLC0414  others ask here
from postweir.runtime.bounds import nameserver as nameserver  # noqa: PLC0414

FILE_BYTES_MAX = 1024 * 1024  # a settings file larger than this is some other file


class Section(frames.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file."""


class Edge(Section, frozen=True):
    hostname: str = "localhost"
    listen: tuple[str, ...] = ("127.0.0.1:2525",)
    listen_tls: tuple[str, ...] = ()
    workers: int = 1
    connections_max: int = 10_000
    connections_per_client_max: int = 500
    recipients_max: int = 1000
    message_bytes_max: int = 50 * 1024 * 1024
    header_bytes_max: int = 256 * 1024
    memory_bytes_max: int = 512 * 1024 * 1024
    command_s: float = 300.0
    data_s: float = 180.0
    handshake_s: float = 30.0
    errors_max: int = 20
    login_s: float = 60.0
    message_s: float = 3600.0
    session_s: float = 3600.0
    in_flight_max: int = 1000
    auth_without_tls_on_loopback: bool = False
    received_client: str = "address"
    help_url: str = "https://relay.example.net/help"


class Tls(Section, frozen=True):
    certificate: str = ""
    key: str = ""


class Storage(Section, frozen=True):
    data: str = "var"


class Spool(Section, frozen=True):
    shards: int = 2
    inline_bytes_max: int = 64 * 1024
    queued_max: int = 5_000_000
    free_bytes_min: int = 256 * 1024 * 1024
    late_refusal: str = "hold"
    journal_days: int = 35
    hold_days: int = 14
    facts_hours: int = 72
    facts_bytes_max: int = 1024 * 1024 * 1024


class Judge(Section, frozen=True):
    workers: int = 1
    wait_ms: int = 100
    evaluate_ms: int = 25
    scan_ms: int = 50
    url_hosts: str = ""
    rspamd: str = ""
    rspamd_user: bool = False


class Delivery(Section, frozen=True):
    workers: int = 1
    route: dict[str, str] = {}
    port: int = 25
    resolvers: tuple[str, ...] = ()
    in_hand_max: int = 2000
    connections_per_site_max: int = 20
    messages_per_connection_max: int = 100
    connect_s: float = 30.0
    reply_s: float = 300.0
    final_reply_s: float = 600.0
    idle_s: float = 2.0
    retry_s: tuple[float, ...] = (300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 14400.0)
    tls: str = "opportunistic"
    private_networks: bool = False
    hostname: str = ""
    pools: dict[str, tuple[str, ...]] = {}


class Supervisor(Section, frozen=True):
    silence_s: float = 1.0
    drain_s: float = 10.0
    ready_s: float = 10.0


class Log(Section, frozen=True):
    file: str = ""
    level: str = "info"


class Metrics(Section, frozen=True):
    listen: str = "127.0.0.1:8027"


class Web(Section, frozen=True):
    listen: str = "127.0.0.1:8025"


class Status(Section, frozen=True):
    listen: str = "127.0.0.1:8026"


class Settings(Section, frozen=True):
    """All settings. Frozen; a reload makes a new one."""

    edge: Edge = Edge()
    tls: Tls = Tls()
    storage: Storage = Storage()
    spool: Spool = Spool()
    judge: Judge = Judge()
    delivery: Delivery = Delivery()
    supervisor: Supervisor = Supervisor()
    log: Log = Log()
    metrics: Metrics = Metrics()
    web: Web = Web()
    status: Status = Status()

    @property
    def hash(self) -> str:
        """Twelve hex digits that name these settings."""
        return hashlib.sha256(frames.json(self)).hexdigest()[:12]

    @property
    def data(self) -> Path:
        """The data directory, absolute once the file was read."""
        return Path(self.storage.data)

    @property
    def run(self) -> Path:
        """Where the sockets, the settings by hash and the process numbers are."""
        return self.data / "run"


# Taken only at a start: `reload` refuses a file that changes them, and says so.
RESTART = (
    "edge.listen", "edge.listen_tls", "edge.workers", "storage.data", "spool.shards",
    "judge.workers", "judge.rspamd", "judge.rspamd_user", "delivery.workers", "metrics.listen",
    "web.listen", "status.listen",
)  # fmt: skip


class Fault(frames.Struct, frozen=True):
    """One thing wrong with the settings: where, what, and what to do."""

    where: str  # "postweir.toml:12" or "POSTWEIR_EDGE__WORKERS"
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    {self.do}"


class Wrong(Exception):
    """The settings cannot be used; `faults` says all that is wrong with them."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def read(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a file and the environment. Raises `Wrong`.

    Relative paths in them are relative to the file.
    """
    environment = os.environ if environment is None else environment
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Wrong([Fault(str(path), "is too large for settings", "name another file")])
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        do = "name the file with -c FILE"
        if isinstance(fault, PermissionError):
            do = "run this as the user that owns it, or let this one read it"
        words = (fault.strerror or "cannot be read").lower()
        raise Wrong([Fault(str(path), words, do)]) from None
    except UnicodeDecodeError:
        raise Wrong([Fault(str(path), "is not UTF-8", "save it as UTF-8")]) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        line = str(fault).rpartition("at line ")[2].partition(",")[0]
        where = f"{path}:{line}" if line.isdecimal() else str(path)
        raise Wrong([Fault(where, f"is not TOML: {fault}", "correct the line")]) from None
    except RecursionError:
        raise Wrong([Fault(str(path), "is nested too deep", "name another file")]) from None
    return check(document, path, text, environment)


def check(
    document: Mapping[str, object], path: Path, text: str, environment: Mapping[str, str]
) -> Settings:
    """Return what a TOML document and the environment say. Raises `Wrong` with all faults."""
    sections: dict[str, Section] = {}
    kinds: dict[str, type[Section]] = typing.get_type_hints(Settings)
    faults = [
        Fault(_line(path, text, name), f"[{name}] is not known", _mean(name, kinds))
        for name in document
        if name not in kinds
    ]
    overrides, strangers = _from_environment(environment, kinds)
    faults += strangers
    for name, kind in kinds.items():
        values = document.get(name, {})
        if not isinstance(values, dict):
            faults.append(Fault(_line(path, text, name), f"{name} is no table", f"write [{name}]"))
            continue
        fields = typing.get_type_hints(kind)
        good: dict[str, object] = {}
        for key, value in {**values, **overrides.get(name, {})}.items():
            where = _line(path, text, name, key)
            if key in overrides.get(name, {}):
                where = f"POSTWEIR_{name}__{key}".upper()
            if key not in fields:
                faults.append(Fault(where, f"{name}.{key} is not known", _mean(key, fields)))
                continue
            try:
                good[key] = frames.convert(_widen(value, fields[key]), fields[key])
            except frames.Bad as fault:
                faults.append(Fault(where, f"{name}.{key}: {fault}", "see etc/postweir.toml"))
                continue
            wrong = bounds.wrong(f"{name}.{key}", good[key])
            if wrong:
                faults.append(Fault(where, f"{name}.{key} {wrong[0]}", wrong[1]))
        sections[name] = kind(**good)
    if faults:
        raise Wrong(faults)
    return _located(Settings(**sections), path, text)  # type: ignore[arg-type]


def differing(old: Settings, new: Settings) -> list[str]:
    """Return the keys (`edge.workers`) in which the two differ."""
    before, after = frames.plain(old), frames.plain(new)
    return [f"{s}.{k}" for s in after for k in after[s] if after[s][k] != before[s][k]]


def where(path: Path, section: str, key: str = "") -> str:
    """Return `file:line` of a key, the file alone when it is not there or cannot be read."""
    try:
        return _line(path, path.read_text(encoding="utf-8"), section, key)
    except (OSError, UnicodeDecodeError):
        return str(path)


def _located(settings: Settings, path: Path, text: str) -> Settings:
    """Make paths absolute, and look that the certificate and key are there together."""
    base = path.resolve().parent

    def at(name: str) -> str:
        return str(base / name) if name else ""

    plain = frames.plain(settings)
    plain["storage"]["data"] = at(settings.storage.data)
    plain["judge"]["url_hosts"] = at(settings.judge.url_hosts)
    plain["log"]["file"] = at(settings.log.file)
    for key in ("certificate", "key"):
        name = plain["tls"][key] = at(plain["tls"][key])
        if bool(plain["tls"][key]) != bool(settings.tls.certificate or settings.tls.key):
            raise Wrong([Fault(_line(path, text, "tls"), "names only one of certificate and key",
                               "name both, or neither: then TLS is not offered")])  # fmt: skip
        if name and not os.access(name, os.R_OK):
            where = _line(path, text, "tls", key)
            do = "make the file, or correct the name"
            if os.path.exists(name):  # Path.exists raises where we may not look
                do = "run this as the user that owns it, or let this one read it"
            raise Wrong([Fault(where, f"{name} cannot be read", do)])
    if settings.edge.listen_tls and not settings.tls.certificate:
        where = _line(path, text, "edge", "listen_tls")
        raise Wrong([Fault(where, "edge.listen_tls needs a certificate", "set it in [tls]")])
    # 107 bytes are all that a unix socket's address holds (unix(7)).
    if len(os.fsencode(plain["storage"]["data"])) > 80:
        where = _line(path, text, "storage", "data")
        raise Wrong([Fault(where, "storage.data is too long for the sockets in it (80 bytes)",
                           "choose a shorter path")])  # fmt: skip
    return typing.cast(Settings, frames.convert(plain, Settings))


def _widen(value: object, kind: object) -> object:
    """Let a whole number stand where a fraction may."""
    if kind is float and type(value) is int:
        return float(value)
    if kind == tuple[float, ...] and isinstance(value, list):
        return [_widen(each, float) for each in value]
    return value


def _mean(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "known here: " + ", ".join(known)


def _from_environment(
    environment: Mapping[str, str], kinds: Mapping[str, type[Section]]
) -> tuple[dict[str, dict[str, object]], list[Fault]]:
    """Return POSTWEIR_SECTION__KEY values by section, read as TOML or else as text."""
    found: dict[str, dict[str, object]] = {}
    faults: list[Fault] = []
    for name, text in environment.items():
        if not name.startswith("POSTWEIR_") or "__" not in name:
            continue
        section, _, key = name.removeprefix("POSTWEIR_").lower().partition("__")
        if section not in kinds:
            faults.append(Fault(name, f"[{section}] is not known", _mean(section, kinds)))
            continue
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        found.setdefault(section, {})[key] = value
    return found, faults


def _line(path: Path, text: str, section: str, key: str = "") -> str:
    """Return `file:line` of a section or key, as near as can be found."""
    here, at = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if words.startswith("["):
            here = words.strip("[] \t").partition("]")[0].strip()
            if here == section:
                at = number
                if not key:
                    break
            continue
        name = words.partition("=")[0].partition(".")[0].strip(" \t\"'")
        if (here == section and name == key) or (not here and name == section):
            at = number
            break
    return f"{path}:{at}" if at else str(path)
