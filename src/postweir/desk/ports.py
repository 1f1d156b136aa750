"""What a command needs of others, and what it stands on."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from postweir.identity.sender import Credential, Directory
from postweir.judge.ports import Deployment, Loadable
from postweir.runtime.frames import Value
from postweir.runtime.settings import Settings
from postweir.spool.ports import Page, Request


class Note(Value, frozen=True):
    """Who changed what, and why: a line of the audit log, written with the change."""

    at_us: int
    by: str  # the operating system's name of the operator
    verb: str  # such as "account suspend"
    object: str  # the account, user name, sender key or scope
    reason: str = ""


class Tables(Protocol):
    """The operator's tables. Each write is one transaction with its note in the audit log.

    All raise OSError when the file cannot be read or written.
    """

    def directory(self, newer_than: int) -> Directory | None:
        """Return the picture now, or None when its version is `newer_than`."""
        ...

    def add_account(self, name: str, settings: Mapping[str, Any], note: Note) -> bool:
        """Add an account with these settings, others at their defaults; False: it exists."""
        ...

    def set_account(self, name: str, settings: Mapping[str, Any], note: Note) -> bool:
        """Change these settings of an account; False: there is none."""
        ...

    def suspend_account(self, name: str, suspended: bool, note: Note) -> bool:
        """Suspend an account or lift that; False: there is none."""
        ...

    def add_credential(self, credential: Credential, note: Note) -> bool:
        """Add a credential; False: the user name is taken."""
        ...

    def revoke_credential(self, username: str, note: Note) -> bool:
        """Put a credential out of force; False: there is none in force."""
        ...

    def decide_sender(self, state: str, note: Note) -> None:
        """Record that the sender in `note.object` is "stopped" or "allowed"."""
        ...

    def request(self, verb: str, scope: str, note: Note, until_us: int | None = None) -> int:
        """Write a request for all shards; returns its number."""
        ...

    def note(self, note: Note) -> None:
        """Write a line of the audit log alone: what it tells of was done elsewhere."""
        ...

    def after(self, number: int) -> Sequence[Request]:
        """Return requests with a higher number, oldest first, at most 1,000."""
        ...

    def notes(self, after: int, count_max: int) -> Sequence[tuple[int, Note]]:
        """Return numbered lines of the audit log after that number, oldest first."""
        ...


class KeptPolicy(Value, frozen=True):
    """A policy as it was first deployed; its sets are kept apart."""

    policy: str
    canonical: bytes
    source: str  # the TOML, as it was written
    at_us: int
    by: str


class Policies(Protocol):
    """The policies that were ever deployed: written once, never changed. All raise OSError."""

    def deploy(self, verb: str, policy: Loadable, source: str, schema: bytes, note: Note) -> int:
        """Keep a policy with its sets and facts schema, and put it in force; returns the number.

        What is there already stays as it is. It is one transaction, with its note.
        """
        ...

    def last(self) -> Deployment | None:
        """Return the deployment that counts, None before the first."""
        ...

    def deployments(self) -> Sequence[Deployment]:
        """Return the last 1,000 deployments, oldest first."""
        ...

    def kept(self, policy: str) -> KeptPolicy | None:
        """Return a policy as it was first deployed, None when it never was."""
        ...

    def loadable(self, policy: str) -> Loadable | None:
        """Return it with its sets. None: it was never deployed, or its sets are no longer kept."""
        ...


class Shards(Protocol):
    """The shards of this installation, read-only and never for long."""

    @property
    def numbers(self) -> Sequence[int]:
        """Which there are: those of the settings, and any that a file is left of."""
        ...

    async def read(self, shard: int, question: str, argument: str, after: int,
                   count_max: int) -> Page:  # fmt: skip
        """Ask one shard. Raises ConnectionError when it is silent or down."""
        ...

    async def wake(self) -> None:
        """Tell every living shard to look at the requests; a hint."""
        ...

    def read_file(self, shard: int, question: str, argument: str, after: int,
                  count_max: int) -> Page:  # fmt: skip
        """Answer from the file of a silent shard, in one short transaction. Raises OSError.

        No file: an empty page, for that shard has never promised anything.
        """
        ...


class Salvage(Value, frozen=True):
    """One salvage of a damaged file that was done."""

    at_us: int
    what: str
    kept: str  # where the damaged file is
    messages: int
    held: int  # messages that were not whole
    unreadable: int


class ShardFile(Value, frozen=True):
    """How one shard's file stands, found without changing it."""

    shard: int
    path: str
    owned: bool  # a process has it
    there: bool = True
    fault: str = ""  # why it could not be read
    damaged: bool = False  # the fault is in its bytes, or a process has said so
    doubted: bool = False  # it is looked over when its process starts
    schema: int = 0
    schema_known: int = 0
    checksums: bool | None = None
    extension: bool = True  # for checksums, in this installation
    bytes: int = 0
    log_bytes: int = 0
    free_bytes: int = 0
    held_corrupt: int = 0
    bodies_unnamed: int = 0  # files that no row names, and that are older than any accept
    bodies_missing: int = 0  # rows whose file is not there
    clock_set_us: int = 0  # by how much, within this boot
    salvages: list[Salvage] = []


class Verified(Value, frozen=True):
    """What reading all of a shard's file came to."""

    pages: int
    messages: int
    faults: list[str]  # some of them
    fault_count: int
    damaged: bool = False  # some are of the file itself; its shard's next process knows of it


class Files(Protocol):
    """The shards' files, looked at as they are."""

    def inspect(self, shard: int) -> ShardFile:
        """Look at what can be had in a moment. Faults are told in it."""
        ...

    def verify(self, shard: int, tell: Callable[[int, int], None]) -> Verified:
        """Read every page and body, in short transactions; `tell` hears (done, of). OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Office:
    """What the verbs stand on; `processes.command` builds it."""

    settings: Settings
    tables: Tables
    shards: Shards
    by: str  # who is at the desk
    now_us: Callable[[], int]
    files: Files | None = None
    policies: Policies | None = None

    def note(self, verb: str, about: str, reason: str = "") -> Note:
        """Return the line that the audit log gets for a change made now."""
        return Note(at_us=self.now_us(), by=self.by, verb=verb, object=about, reason=reason)


# Reads the settings and opens all of it. Raises settings.Wrong, OSError.
Opener = Callable[[Path], AbstractAsyncContextManager[Office]]


class Trouble(Exception):
    """A verb that could not be done: one line for the operator, with what to do."""


class Missing(Trouble):
    """What was named is not there."""


class Misused(Trouble):
    """The words make no sense: a bad name, an unknown key."""


class Unusable(Misused):
    """A policy that cannot be evaluated."""


class Unreadable(Trouble):
    """Nobody could be reached who knows."""
