"""From a row or an accept to what leaves: read, built and checked, each a function by itself."""

import hashlib
import os
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

from postweir.mail.envelope import RECIPIENTS_MAX, is_message_id
from postweir.spool.ports import Accept, Content, Done, Out
from postweir.spool.shard import Fetch
from postweir.spool.states import bucket_of, domain_of, lane_of, recipients_of
from postweir.spool.writer import RoomyStore

ORPHAN_AGE_S = 600.0  # the longest transaction: a younger file may still be named by an accept
ORPHANS_MAX = 1000


def outs_of(
    accept: Accept, answer: Done, bodies: Path, now_us: int
) -> tuple[list[tuple[Out, int, int]], Content]:
    """Return what leaves of a message that was just committed, from memory."""
    first, lane = recipients_of(answer.number)[0], lane_of(accept.sender.key)
    ready = set(answer.ready)
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
                lifetime_s=accept.lifetime_s,
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
    )
    return outs, content


def read_lane(
    store: RoomyStore, fetch: Fetch, known: AbstractSet[int]
) -> tuple[list[tuple[Out, Content]], int | None]:
    """On the writer's thread: what is due in one lane, and when to look there again."""
    outs = store.due(fetch.bucket, fetch.lane, fetch.until_us, known, fetch.count_max)
    contents = {message: store.content(message) for message in {out.message for out in outs}}
    found = [(out, content) for out in outs if (content := contents[out.message]) is not None]
    if len(outs) >= fetch.count_max:
        return found, fetch.until_us
    return found, store.next_due(fetch.bucket, fetch.lane, fetch.until_us)


def damage_of_file(content: Content) -> str:
    """Return what is wrong with a body file, or "". Reads all of it."""
    digest, length = hashlib.blake2b(digest_size=16), 0
    try:
        with Path(content.body_file or "").open("rb") as file:
            while piece := file.read(1024 * 1024):
                digest.update(piece)
                length += len(piece)
    except OSError:
        return "missing"
    if length != content.length:
        return "length"
    return "" if digest.digest() == content.check else "check"


def orphans(bodies: Path) -> list[str]:
    """Return the names of files that are older than any transaction may be."""
    before_s = time.time() - ORPHAN_AGE_S
    with os.scandir(bodies) as entries:
        old = [e.name for e in entries if e.is_file() and e.stat().st_mtime < before_s]
    return old[:ORPHANS_MAX]


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
