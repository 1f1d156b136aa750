"""From a row or an accept to what leaves: read, built and checked, each a function by itself."""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from postweir.mail.address import domain_of
from postweir.mail.envelope import RECIPIENTS_MAX, is_message_id
from postweir.spool.ports import Accept, Away, Content, Done, Out
from postweir.spool.shard import Fetch
from postweir.spool.states import bucket_of, lane_of, lifetime_of, pool_of, recipients_of
from postweir.spool.writer import RoomyStore

ORPHAN_AGE_S = 600.0  # the longest transaction: a younger file may still be named by an accept
ORPHANS_MAX = 1000
AWAY_US = 1_000_000  # until a folder of bodies that is not there is looked for again


def outs_of(
    accept: Accept, answer: Done, bodies: Path, now_us: int
) -> tuple[list[tuple[Out, int, int]], Content]:
    """Return what leaves of a message that was just committed, from memory."""
    first, lane = recipients_of(answer.number)[0], lane_of(accept.sender.key)
    ready, lifetime_s = set(answer.ready), lifetime_of(accept.verdict, accept.lifetime_s)
    outs = [
        (
            Out(
                recipient=first + n,
                attempt=1,
                message=accept.message,
                sender=accept.sender.key,
                address=address,
                accepted_at_us=now_us,
                age_s=0.0,
                tries=0,
                lifetime_s=lifetime_s,
            ),
            bucket_of(domain_of(address)),
            lane,
        )
        for n, address in enumerate(accept.envelope.recipients)
        if first + n in ready
    ]
    content = Content(
        message=accept.message,
        mail_from=accept.envelope.mail_from,
        added=accept.added,
        body=accept.body,
        body_file=str(bodies / accept.body_file) if accept.body_file else None,
        length=accept.length,
        check=accept.check,
        eight_bit=accept.eight_bit or accept.envelope.eight_bit,
        origin=accept.origin,
        pool=pool_of(accept.verdict),
    )
    return outs, content


@dataclass(slots=True)
class Found:
    """What one look at a lane has found, and when to look there again."""

    leaving: list[tuple[Out, Content]]
    next_us: int | None


def read_lane(store: RoomyStore, fetch: Fetch, known: AbstractSet[int]) -> Found:
    """On the writer's thread: what is due in one lane."""
    outs = store.due(fetch.bucket, fetch.lane, fetch.until_us, known, fetch.count_max)
    found = Found([], None)
    try:
        contents = {message: store.content(message) for message in {out.message for out in outs}}
    except Away:
        found.next_us = fetch.until_us + AWAY_US
        return found
    for out in outs:
        content = contents[out.message]
        if content is not None:
            found.leaving.append((out, content))
    if len(outs) >= fetch.count_max:
        found.next_us = fetch.until_us
    else:
        found.next_us = store.next_due(fetch.bucket, fetch.lane, fetch.until_us)
    return found


def damage_of_file(content: Content) -> str:
    """Return what is wrong with a body file, or "". Reads all of it. Raises OSError: look later."""
    digest, length = hashlib.blake2b(digest_size=16), 0
    path = Path(content.body_file or "")
    try:
        with path.open("rb") as file:
            while piece := file.read(1024 * 1024):
                digest.update(piece)
                length += len(piece)
    except OSError as fault:
        if fault.errno == errno.EIO:
            return "unreadable"
        if isinstance(fault, FileNotFoundError) and path.parent.is_dir():
            return "missing"
        raise  # the folder is away, or this process has no descriptor left
    if length != content.length:
        return "length"
    return "" if digest.digest() == content.check else "check"


def orphans(bodies: Path) -> list[str]:
    """Return the names of files that are older than any transaction may be. Raises OSError."""
    before_s = time.time() - ORPHAN_AGE_S
    old: list[str] = []
    with os.scandir(bodies) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # settled meanwhile
                if entry.is_file() and entry.stat().st_mtime < before_s:
                    old.append(entry.name)
            if len(old) >= ORPHANS_MAX:
                break
    return old


def forget_file(name: str) -> Callable[[RoomyStore], bool]:
    return lambda store: store.forget_file(name)


def sound(accept: Accept) -> bool:
    """True when an accept may be committed at all; what it says of its body is checked there."""
    return (
        is_message_id(accept.message)
        and 1 <= len(accept.envelope.recipients) <= RECIPIENTS_MAX
        and (accept.body is None) != (accept.body_file is None)
        and (accept.body_file is None or _plain_name(accept.body_file))
        and (accept.verdict is None or accept.verdict.takes_mail)
        and accept.length >= 0
        and accept.lifetime_s >= 0
    )


def _plain_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and not name.startswith(".")
