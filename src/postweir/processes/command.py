"""`postweir …`: builds what the commands stand on, and runs one."""

import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from postweir.cli import app
from postweir.cli.words import Doors
from postweir.desk.ports import Office, ShardFile, Verified
from postweir.processes import child, start, supervisor
from postweir.runtime import clock, settings
from postweir.runtime.log import quiet
from postweir.spool import questions
from postweir.spool.client import Shards
from postweir.spool.ports import Hello, Page, Read
from postweir.storage import spool_inspect
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite_policies import SqlitePolicies
from postweir.storage.sqlite_tables import SqliteTables

ANSWER_S = 1.0  # a shard silent for so long is read from its file
WAKE_S = 0.3  # a hint; those that miss it look at the tables within a second
VERSION = 1  # of what is said to a shard


class Reach:
    """The shards as a command reaches them: over their sockets, or else in their files."""

    def __init__(self, now: settings.Settings) -> None:
        self._now = now
        self.numbers: Sequence[int] = range(1, child.shards_total(now) + 1)
        # Nobody listens, or was silent once: not asked again, or each question costs a second.
        self._gone = {n for n in self.numbers if not _listens(now.run / f"shard-{n}.sock")}
        self._client: Shards | None = None

    async def read(
        self, shard: int, question: str, argument: str, after: int, count_max: int
    ) -> Page:
        """Ask one shard. Raises ConnectionError when it is silent or down."""
        if shard in self._gone:
            raise ConnectionError(f"shard {shard} is down")
        try:
            return await self._shards().read(
                shard, question, argument, after, count_max, wait_s=ANSWER_S
            )
        except ConnectionError:
            self._gone.add(shard)
            raise

    async def wake(self) -> None:
        """Tell every living shard to look at the requests; a hint."""
        if len(self._gone) < len(self.numbers):
            await self._shards().wake(WAKE_S)

    def read_file(
        self, shard: int, question: str, argument: str, after: int, count_max: int
    ) -> Page:
        """Answer from the file of a silent shard, in short transactions. Raises OSError."""
        path = self._now.data / "spool" / f"shard-{shard}.db"
        if not path.exists() and not path.with_name(path.name + "-wal").exists():
            return self._nothing(path)
        reader = SqliteReader(path, shard=shard)
        try:
            return questions.answer(reader, Read(0, question, argument, after, count_max))
        finally:
            reader.close()

    def _nothing(self, path: Path) -> Page:
        """Return that this shard has never promised anything; raises OSError when it may have."""
        data = self._now.data
        if not data.exists():
            raise FileNotFoundError(
                f"there is no data directory {data}: never started, or storage.data is wrong"
            )
        if path.with_name(path.stem.replace("shard", "bodies")).exists():
            raise FileNotFoundError(f"{path} is gone: this shard had one")
        return Page(0, [], None)

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.close()

    def _shards(self) -> Shards:
        if self._client is None:
            hello = Hello(VERSION, "command", 0, 1, 0, self._now.hash)
            self._client = Shards(self._now.run, count=len(self.numbers), hello=hello, log=quiet())
        return self._client


class Files:
    """The shards' files as a command looks at them."""

    def __init__(self, now: settings.Settings) -> None:
        self._folder = now.data / "spool"

    def inspect(self, shard: int) -> ShardFile:
        """Look at what can be had in a moment."""
        return spool_inspect.inspect(shard, self._file(shard), self._bodies(shard))

    def verify(self, shard: int, tell: Callable[[int, int], None]) -> Verified:
        """Read every page and body. Raises OSError."""
        return spool_inspect.verify(self._file(shard), self._bodies(shard), tell)

    def _file(self, shard: int) -> Path:
        return self._folder / f"shard-{shard}.db"

    def _bodies(self, shard: int) -> Path:
        return self._folder / f"bodies-{shard}"


def _listens(path: Path) -> bool:
    """True when a process has this socket open, be it a stopped one."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
    return True


def _operator() -> str:
    """Return who types; through sudo, the person and not root."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _become_owner(data: Path) -> None:
    """As root, act as the user whose data this is: what is made here must be theirs to write."""
    if os.geteuid() != 0 or not data.exists():
        return
    owner = data.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


@asynccontextmanager
async def office(path: Path) -> AsyncIterator[Office]:
    """Open what the commands stand on. Raises settings.Wrong, OSError."""
    now = settings.read(path)
    by = _operator()
    _become_owner(now.data)
    shards = Reach(now)
    try:
        tables = SqliteTables(now.data / "tables.db")
        yield Office(
            settings=now,
            tables=tables,
            shards=shards,
            by=by,
            now_us=clock.wall_us,
            files=Files(now),
            policies=SqlitePolicies(tables),
        )
    finally:
        await shards.close()


def run(words: Sequence[str]) -> int:
    """Run what was typed; returns the exit status."""
    return app.main(
        words, Doors(open=office, up=supervisor.run, process=lambda kind: start.process(list(kind)))
    )
