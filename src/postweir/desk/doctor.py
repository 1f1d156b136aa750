"""Is it healthy: what recovery found, what will soon be wrong, and what to do about each."""

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from postweir.desk import service
from postweir.desk.ports import Files, Office, ShardFile
from postweir.runtime import frames, settings
from postweir.runtime.frames import Struct
from postweir.runtime.metrics import asked
from postweir.runtime.settings import Settings

FINE, WARNING, ERROR = "ok", "warning", "error"
STATUS = {FINE: 0, WARNING: 1, ERROR: 2}
ASK_S = 1.0
LOG_BYTES_MANY = 512 * 1024 * 1024  # four times what the writer lets it grow to
FREE_TIMES = 4  # of spool.free_bytes_min, as docs/metrics.md says
STEP_US = 60 * 1_000_000
FILES_OTHER = 200  # descriptors that a process of the edge needs for more than its connections
FAULTS_SHOWN = 20
# File systems on which a sync is no promise, or is one of somebody else's machine.
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "fuse.glusterfs", "ceph")
KERNEL_MIN = (4, 13)  # before it, a write that failed could be forgotten before the sync


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    severity: str  # ok, warning, error
    about: str  # settings, service, disk, limits, clock, shard 1, ...
    what: str
    do: str = ""


class Health(Struct, frozen=True):
    """All that was looked at; `status` is the exit status."""

    status: int
    findings: list[Finding]


def sick(path: Path) -> Health | None:
    """Return what is wrong with settings that cannot be read; None: they can."""
    try:
        settings.read(path)
    except settings.Wrong as wrong:
        return _sum([Finding(ERROR, "settings", f"{f.where}: {f.what}", f.do)
                     for f in wrong.faults])  # fmt: skip
    return None


async def doctor(
    office: Office, path: Path, *, verify: bool, tell: Callable[[str, int, int], None]
) -> Health:
    """Look at everything; with `verify` read every page and body too."""
    found = await asyncio.to_thread(lambda: _settings(path))
    running = _running(office.settings.run)
    found += await asyncio.to_thread(lambda: list(_service(office, running)))
    found += [*_disk(office.settings.data), *_limits(office.settings, running)]
    files = office.files
    assert files is not None
    if _absent(office.settings.data / "spool"):
        found.append(_nothing(office.settings.data))
        return _sum(found)
    for shard in office.shards.numbers:
        one = await asyncio.to_thread(files.inspect, shard)
        found += _shard(one, office.settings)
        if verify and one.there:
            found.append(await asyncio.to_thread(_verified, files, one, tell))
    return _sum(found)


def _sum(found: list[Finding]) -> Health:
    return Health(max((STATUS[one.severity] for one in found), default=0), found)


def _settings(path: Path) -> list[Finding]:
    checked = service.check(path)
    found = [Finding(ERROR, "settings", f"{f.where}: {f.what}", f.do) for f in checked.faults]
    found += [Finding(WARNING, "settings", f"{f.where}: {f.what}", f.do) for f in checked.warnings]
    return found or [Finding(FINE, "settings", f"good ({checked.hash})")]


def _running(run: Path) -> int | None:
    try:
        return service.supervisor(run)
    except OSError:
        return None


def _service(office: Office, running: int | None) -> Iterator[Finding]:
    """Does it run, and does each process say that it is well."""
    if running is None:
        yield Finding(WARNING, "service", "does not run here", "start it: postweir up")
        return
    run = office.settings.run
    for port in sorted(run.glob("*-*.port")):
        kind, _, index = port.stem.partition("-")
        name = f"{kind} {index}"
        page = asked(port, "/health", ASK_S)
        said = _said(page)
        if page is None or not said.get("ok"):
            why = str(said.get("reason") or ("does not answer" if page is None else "is not well"))
            yield Finding(ERROR, name, why, f"its log says why; look for process={name!r}")
        elif said.get("settings") != office.settings.hash:
            yield Finding(WARNING, name, f"runs settings {said.get('settings')}, the file is"
                          f" {office.settings.hash}", "postweir reload")  # fmt: skip
        else:
            yield Finding(FINE, name, "answers")


def _said(page: bytes | None) -> dict[str, Any]:
    try:
        found: dict[str, Any] = frames.from_json(page or b"{}", dict[str, Any])
    except frames.Torn:
        return {}
    return found


def _disk(data: Path) -> Iterator[Finding]:
    """Is the data where a sync means what it says."""
    kind = _file_system(data)
    if kind in IN_MEMORY:
        yield Finding(ERROR, "disk", f"{data} is on {kind}: all mail is lost with the power",
                      "put storage.data on a disk")  # fmt: skip
    elif kind in REMOTE or kind.startswith("fuse"):
        yield Finding(WARNING, "disk", f"{data} is on {kind}: a sync is another's promise",
                      "put storage.data on a local disk: ext4 or xfs")  # fmt: skip
    else:
        yield Finding(FINE, "disk", f"{data} is on {kind or 'an unknown file system'}")
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if os.uname().sysname == "Linux" and version < KERNEL_MIN:
        yield Finding(ERROR, "disk", f"kernel {release} may forget that a write failed",
                      "run Linux 4.13 or newer")  # fmt: skip


def _file_system(data: Path) -> str:
    """Return the kind of the file system that a path is on, "" when nobody says."""
    at = data if data.exists() else data.parent
    try:
        device = os.stat(at).st_dev
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in reversed(lines):
        words = line.split()
        if len(words) > 6 and words[2] == wanted and "-" in words:
            return words[words.index("-") + 1]
    return ""


def _limits(now: Settings, running: int | None) -> Iterator[Finding]:
    """Has each edge process descriptors enough: one a connection, one a body."""
    most = _descriptors(running)
    need = 2 * now.edge.connections_max + FILES_OTHER
    what = f"{most} file descriptors a process, edge.connections_max asks for {need}"
    if most is not None and most < need:
        yield Finding(WARNING, "limits", what, f"raise LimitNOFILE (ulimit -n) to {need}, or lower"
                      " edge.connections_max: fewer connections are taken")  # fmt: skip
    elif most is not None:
        yield Finding(FINE, "limits", what)


def _descriptors(running: int | None) -> int | None:
    """Return the hard limit of the service, or of this process when it does not run."""
    if running is not None:
        try:
            lines = Path(f"/proc/{running}/limits").read_text().splitlines()
            words = next(line for line in lines if line.startswith("Max open files")).split()
            return int(words[4]) if words[4].isdecimal() else None
        except (OSError, StopIteration, IndexError):
            return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _absent(path: Path) -> bool:
    """True for what is surely not there; what may not be looked at is another matter."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _nothing(data: Path) -> Finding:
    what = f"{data / 'spool'} is not there: never started, or storage.data is wrong or not mounted"
    return Finding(WARNING, "spool", what,
                   "if there was mail, bring it back before the next start, which makes a new one"
                   )  # fmt: skip


def _shard(one: ShardFile, now: Settings) -> list[Finding]:
    """All that is to be said of one shard; when nothing is, that it is fine."""
    found = [*_file(one), *_after(one), *_room(one, now)]
    if any(finding.severity != FINE for finding in found):
        return found
    sums = "page checksums" if one.checksums else "no page yet"
    return [Finding(FINE, f"shard {one.shard}", f"schema {one.schema}, {sums},"
                    f" {_size(one.bytes + one.log_bytes)}")]  # fmt: skip


def _file(one: ShardFile) -> Iterator[Finding]:
    about = f"shard {one.shard}"
    if one.damaged:
        do = "it is salvaged when its process starts; start the service, or wait"
        yield Finding(ERROR, about, f"{one.path} is damaged: {one.fault}", do)
    elif one.doubted:
        do = "it is looked over when its process starts: restart the service"
        yield Finding(ERROR, about, f"{one.path} may be damaged: {one.fault}", do)
    elif one.fault:
        yield Finding(ERROR, about, one.fault, "see docs/spool.md; leave the file as it is")
    elif not one.there:
        yield Finding(WARNING, about, f"{one.path} is not there", "it is made at the first start;"
                      " if there was one, put it back before that")  # fmt: skip
    elif not one.schema:
        yield Finding(FINE, about, "empty")
    if one.schema and one.schema < one.schema_known:
        yield Finding(WARNING, about, f"schema {one.schema}, this version has {one.schema_known}",
                      "it is brought up when its process starts; older versions cannot read it then"
                      )  # fmt: skip
    if one.there and not one.fault and one.checksums is False:
        yield Finding(WARNING, about, "made without page checksums: damage is found later",
                      "nothing to do; a salvage or a new shard has them")  # fmt: skip
    if not one.extension:
        yield Finding(WARNING, about, "this installation of apsw has no cksumvfs: new files have no"
                      " page checksums", "install apsw's wheel from PyPI")  # fmt: skip


def _after(one: ShardFile) -> Iterator[Finding]:
    """What damage has left behind."""
    about = f"shard {one.shard}"
    for past in one.salvages:
        lost = past.held or past.unreadable
        yield Finding(
            WARNING, about, f"was salvaged: {past.what}; {past.messages} messages kept,"
            f" {past.held} of them not whole, {past.unreadable} rows unreadable",
            f"check the disk; the damaged file is {past.kept}: this is said until it is removed"
            + ("; postweir audit shows what is missing" if lost else "; nothing was lost"),
        )  # fmt: skip
    if one.held_corrupt:
        yield Finding(ERROR, about, f"{one.held_corrupt} messages are held: damaged",
                      "postweir queue ls --state held; tell their senders, then message drop"
                      )  # fmt: skip
    if one.bodies_missing:
        yield Finding(ERROR, about, f"{one.bodies_missing} messages name a body file that is gone",
                      "put the files back; else they are held when they are due")  # fmt: skip
    if one.bodies_unnamed:
        yield Finding(WARNING, about, f"{one.bodies_unnamed} body files (or more) belong to no"
                      " message", "they are swept within ten minutes, but for those from before a"
                      " salvage: remove these by hand")  # fmt: skip
    if abs(one.clock_set_us) > STEP_US:
        yield Finding(WARNING, about, f"the clock was set by {one.clock_set_us / 1e6:.0f} s since"
                      " the shard last looked", "nothing expires for an hour; look at what sets it"
                      )  # fmt: skip


def _room(one: ShardFile, now: Settings) -> Iterator[Finding]:
    if one.fault and not one.bytes:
        return  # nobody could look
    about, free = f"shard {one.shard}", one.free_bytes
    least = now.spool.free_bytes_min
    if free < least:
        yield Finding(ERROR, about, f"{_size(free)} free, too little: no mail is taken",
                      "make room; delivery goes on, and frees some")  # fmt: skip
    elif free < FREE_TIMES * least:
        yield Finding(WARNING, about, f"{_size(free)} free; below {_size(least)} no mail is"
                      " taken", "make room")  # fmt: skip
    if one.log_bytes > LOG_BYTES_MANY:
        yield Finding(WARNING, about, f"its log has {_size(one.log_bytes)}",
                      "a reader that does not end pins it: look who has the file open")  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _verified(files: Files, one: ShardFile, tell: Callable[[str, int, int], None]) -> Finding:
    about = f"shard {one.shard}"
    try:
        found = files.verify(
            one.shard, lambda done, of: tell(f"{about}, {'pages' if of else 'messages'}", done, of)
        )
    except OSError as fault:
        return Finding(ERROR, about, f"cannot be read: {fault}", "see the finding before this one")
    looked = f"{found.pages} pages and {found.messages} waiting messages read"
    if not found.fault_count:
        return Finding(FINE, about, f"{looked}: all whole")
    shown = "; ".join(found.faults[:FAULTS_SHOWN])
    do = ("restart the service: this file is looked over then, and salvaged; check the disk"
          if found.damaged else
          "these are held when they are due, and never delivered; check the disk")  # fmt: skip
    return Finding(ERROR, about, f"{one.path}: {looked}, {found.fault_count} faults: {shown}", do)
