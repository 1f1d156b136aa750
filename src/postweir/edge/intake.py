"""Read this first: one message's way in, from the final dot to our 250.

A 250 means safe. It is said only when a shard has committed the message, and a large body is on
disk before the commit that names it. Until then every way out of `take_in` is a refusal that the
client hears, and leaves nothing behind. Rules of this file:

* Nobody waits for the judge longer than `judge.wait_ms`. No verdict means pending: the message
  is accepted and waits inside; it is never refused, and never delivered unjudged.
* An accept once sent is never sent again. When its outcome is unknown the client hears 451 and
  comes again; the file stays where the shard may have named it. What comes again is taken, and
  recorded as a possible duplicate (`doubts`).
* What was judged and then not taken by our own fault is taken off the counters again.
* A refusal is recorded under the name that its reply carries, and does not wait for the record.
"""

import asyncio
import contextlib
import hmac
from dataclasses import dataclass

from postweir.edge import replies
from postweir.edge.arriving import Arriving
from postweir.edge.bodies import check_of
from postweir.edge.worker import Worker
from postweir.identity.sender import Account, Sender
from postweir.judge.ports import Ask, Asked
from postweir.mail.envelope import Envelope
from postweir.mail.headers import written
from postweir.mail.received import loop_trace, received
from postweir.mail.reply import Reply
from postweir.policy.verdict import VERBS, Verdict
from postweir.runtime import clock
from postweir.spool.ports import Accept, Refusal, Unknown, Unsafe

# Past it a shard does not begin the commit: a client that heard 451 from a stopped shard must
# not be answered by a delivery when the shard wakes up (borders.md).
COMMIT_BEGINS_S = 1.5
# In all, from the dot to our answer. Programs that wait for us give up after a minute, mail servers
# after ten (RFC 5321 4.5.3.2.6); who gives up and comes again must not find it taken already.
ANSWER_S = 30.0
COMMIT_S = 5.0  # of them, that are kept for the shard when the disk and the judge take their time
CLEAR_S = 1.0  # that an answer waits for a file to go; a disk that hangs ends it later
JUDGE_MARGIN_S = 0.005  # for the way back: what the judge counts, we still hear of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message, for the reply, the log and the counters."""

    kind: str  # accepted, held, pending, refused, deferred, trouble, gone
    reply: Reply
    verdict: Verdict | None = None
    reason: str = ""


async def take_in(arriving: Arriving) -> Reply:
    """Take a whole message in, or say why not; within ANSWER_S, whatever disks and shards do."""
    began_ns = clock.monotonic_ns()
    arriving.by_ns = began_ns + int(ANSWER_S * 1e9)
    arriving.task = asyncio.current_task()
    try:
        outcome = await _decide(arriving)
    except asyncio.CancelledError:
        if not arriving.late:
            raise  # we stop
        assert arriving.task is not None
        arriving.task.uncancel()
        _uncount(arriving)
        outcome = Outcome("trouble", _named(arriving, replies.TROUBLE), None, "late")
    finally:
        arriving.task = None
        await _cleared_away(arriving)
    _note(arriving, outcome, (clock.monotonic_ns() - began_ns) / 1e9)
    return outcome.reply


def give_up(arriving: Arriving, since_s: float) -> None:
    """So long ago its dot came: past ANSWER_S what is not done by then ends as a 451.

    The sweeper looks; a timer for each message would cost as much as all the other bounds.
    """
    if since_s >= ANSWER_S and arriving.task is not None and not arriving.late:
        arriving.late = True
        arriving.task.cancel()


async def _decide(arriving: Arriving) -> Outcome:
    if arriving.fault is not None:
        return _turned_down(arriving, arriving.fault)
    try:
        if arriving.spill is not None:
            await arriving.spill.written()
    except OSError as fault:
        return _disk_trouble(arriving, fault)
    asked = arriving.asked = await _judged(arriving)
    verdict = asked.verdict
    if verdict is not None and verdict.verb not in VERBS:
        # From a newer judge: we cannot do what we do not know, and it is asked again later.
        arriving.worker.log.warning("edge.verb_unknown", message=arriving.id, rule=verdict.rule)
        asked, verdict = Asked(None, "verb", asked.facts), None
    if verdict is not None and not verdict.takes_mail:
        return _refused(arriving, verdict, asked.facts)
    try:
        check = await arriving.spill.finish() if arriving.spill else check_of(arriving.body())
    except OSError as fault:
        _uncount(arriving)
        return _disk_trouble(arriving, fault)
    if arriving.gone:
        # Nobody would hear our 250, and the client will send it again: taking it doubles it.
        _uncount(arriving)
        return Outcome("gone", replies.TROUBLE)
    return await _accepted(arriving, asked, check)


async def _judged(arriving: Arriving) -> Asked:
    """Ask the judge, for a bounded time."""
    worker = arriving.worker
    began_ns = clock.monotonic_ns()
    left_s = (arriving.by_ns - began_ns) / 1e9 - COMMIT_S
    wait_s = max(min(worker.settings.judge.wait_ms / 1000, left_s), 0.0)
    by_ns = began_ns + int((wait_s - min(JUDGE_MARGIN_S, wait_s / 10)) * 1e9)
    spill = arriving.spill
    asked = await worker.judge.ask(
        Ask(
            ask=0,  # numbered by who sends it
            message=arriving.id,
            by_ns=by_ns,
            late=False,
            envelope=arriving.envelope,
            sender=sender_of(arriving),
            client=arriving.visitor.client,
            tls=bool(arriving.visitor.tls),
            body=None if spill else arriving.body(),
            body_file=str(spill.path) if spill else None,
            authenticated=bool(arriving.visitor.auth_username),
            loops=arriving.loops,
        ),
        wait_s,
    )
    worker.meters.judge_s.observe((clock.monotonic_ns() - began_ns) / 1e9)
    return asked


async def _accepted(arriving: Arriving, asked: Asked, check: bytes) -> Outcome:
    """Have a shard commit it; say 250 when that is done."""
    worker, verdict = arriving.worker, asked.verdict
    before = worker.doubting.before(
        arriving.account.name, arriving.envelope, _name(arriving, check)
    )
    accept = _accept(arriving, asked, check, before)
    arriving.handed_over = True
    try:
        answer = await worker.shards.accept(accept, shard=arriving.shard)
    except asyncio.CancelledError:  # too late, or we stop: the shard may still take it
        _doubt(arriving, check)
        raise
    except Unknown:
        _doubt(arriving, check)
        _uncount(arriving)
        return Outcome("trouble", _named(arriving, replies.TROUBLE), verdict, "unknown")
    if isinstance(answer, Unsafe):
        arriving.handed_over = False
        _uncount(arriving)
        reply = _named(arriving, replies.of_storage(answer.reason))
        return Outcome("trouble", reply, verdict, answer.reason)
    if arriving.gone:
        _doubt(arriving, check)  # it hears no 250, and comes again
    if before:
        worker.meters.possible_duplicates.inc()
        worker.log.info("edge.possible_duplicate", message=arriving.id, before=before)
    kind = "pending" if verdict is None else "held" if verdict.verb == "hold" else "accepted"
    reply = Reply(250, "2.0.0", f"Ok: queued as {arriving.id}")
    return Outcome(kind, reply, verdict, asked.reason)


def _doubt(arriving: Arriving, check: bytes) -> None:
    """Remember it: when it comes again, it may be there twice."""
    worker = arriving.worker
    worker.meters.unknown_outcomes.inc()
    worker.doubting.note(
        arriving.account.name, arriving.envelope, _name(arriving, check), message=arriving.id
    )


def _name(arriving: Arriving, check: bytes) -> bytes:
    return arriving.name or check


def _accept(arriving: Arriving, asked: Asked, check: bytes, before: str) -> Accept:
    account, spill = arriving.account, arriving.spill
    body = None if spill else arriving.body()
    visitor = arriving.visitor
    return Accept(
        ask=0,
        message=arriving.id,
        by_ns=min(clock.monotonic_ns() + int(COMMIT_BEGINS_S * 1e9), arriving.by_ns),
        origin="smtp",
        envelope=arriving.envelope,
        sender=sender_of(arriving),
        client=visitor.client,
        tls=bool(visitor.tls),
        added=added(arriving) + _tag(arriving, asked.verdict),
        body=body,
        body_file=spill.path.name if spill else None,
        length=spill.length if spill else len(body or b""),
        check=check,
        verdict=asked.verdict,
        reason=asked.reason,
        facts=asked.facts,
        lifetime_s=account.lifetime_s,
        log={
            "helo": arriving.envelope.helo,
            "tls": visitor.tls,
            "auth": visitor.auth_username,
            "protocol": visitor.protocol,
            "customer_id": arriving.attribution.customer_id if arriving.attribution else "",
            **({"possible_duplicate_of": before} if before else {}),
        },
        bounces_1h_max=account.bounces_1h_max,
        return_path=account.return_path,
        eight_bit=arriving.envelope.eight_bit,
        authenticated=bool(visitor.auth_username),
        loops=arriving.loops,
    )


def added(arriving: Arriving) -> bytes:
    """Return the header fields that we put before the message."""
    edge, visitor = arriving.worker.settings.edge, arriving.visitor
    secret = arriving.worker.secret
    client = visitor.client if edge.received_client == "address" else ""
    if edge.received_client == "hashed":
        client = f"client-{_hashed(secret, visitor.client)[:16]}"
    key = sender_of(arriving).key
    # A hash lets us find the sender of a complaint; nobody else learns who it is.
    shown = key if arriving.account.sender_plain else _hashed(secret, key)
    trace = received(
        helo=arriving.envelope.helo,
        client=client,
        rdns="",
        by=edge.hostname,
        protocol=visitor.protocol,
        id=arriving.id,
        tls=visitor.tls,
        at_s=clock.wall_us() / 1e6,
        recipients=len(arriving.envelope.recipients),
    )
    ours = f"X-Postweir-Id: {arriving.id}\r\nX-Postweir-Sender: {shown}\r\n"
    return trace + ours.encode("ascii", "replace") + loop_trace(edge.hostname, arriving.id)


def _tag(arriving: Arriving, verdict: Verdict | None) -> bytes:
    """Return the header field that a verdict asks for; what would be no field is left out."""
    if verdict is None or not verdict.header:
        return b""
    line = written(verdict.header)
    if line is None:
        arriving.worker.log.warning("edge.header_dropped", message=arriving.id, rule=verdict.rule)
    return line or b""


def sender_of(arriving: Arriving) -> Sender:
    """Return who answers for it; before its header is whole, the account by the client."""
    if arriving.attribution is not None:
        return arriving.attribution.sender
    return Sender(arriving.account.name, "account", arriving.visitor.client)


def _hashed(secret: bytes, text: str) -> str:
    return hmac.digest(secret, text.encode("utf-8", "replace"), "sha256").hex()[:32]


def _refused(arriving: Arriving, verdict: Verdict, facts: bytes) -> Outcome:
    """Say no, or not now, by a verdict."""
    reply = replies.of_verdict(verdict, arriving.id, arriving.worker.settings.edge.help_url)
    _record(arriving, "verdict", reply, verdict, facts)
    return Outcome("refused" if verdict.verb == "refuse" else "deferred", reply, verdict)


def _turned_down(arriving: Arriving, fault: Reply) -> Outcome:
    """Say no to what is no mail, or more than we take."""
    reply = _named(arriving, fault)
    if fault.transient:
        return Outcome("trouble", reply, None, "down")
    _record(arriving, "data", reply, None, b"")
    return Outcome("refused", reply, None, fault.status)


def _disk_trouble(arriving: Arriving, fault: OSError) -> Outcome:
    arriving.worker.log.error("edge.body_unwritten", message=arriving.id, fault=str(fault))
    return Outcome("trouble", _named(arriving, replies.of_disk(fault)), None, "disk")


def _named(arriving: Arriving, reply: Reply) -> Reply:
    return replies.named(reply, arriving.id)


def _record(
    arriving: Arriving, stage: str, reply: Reply, verdict: Verdict | None, facts: bytes
) -> None:
    arriving.worker.shards.refuse(
        Refusal(
            message=arriving.id,
            at_us=clock.wall_us(),
            stage=stage,
            sender=sender_of(arriving),
            envelope=arriving.envelope,
            client=arriving.visitor.client,
            reply=reply,
            verdict=verdict,
            facts=facts,
        )
    )


def suspended(worker: Worker, account: Account, envelope: Envelope, client: str) -> Reply:
    """Turn a transaction of a suspended account down, on record."""
    message = worker.names.next()
    reply = replies.of_verdict(replies.SUSPENDED, message, worker.settings.edge.help_url)
    worker.shards.refuse(
        Refusal(
            message=message,
            at_us=clock.wall_us(),
            stage="mail",
            sender=Sender(account.name, "account", client),
            envelope=envelope,
            client=client,
            reply=reply,
            verdict=replies.SUSPENDED,
            facts=b"",
        )
    )
    worker.log.info(
        "edge.refused", message=message, account=account.name, client=client,
        stage="mail", code=reply.code, reason="suspended",
    )  # fmt: skip
    return reply


def _uncount(arriving: Arriving) -> None:
    if arriving.asked is not None and arriving.asked.verdict is not None:
        arriving.worker.judge.uncount(arriving.account.name, arriving.id)


async def _cleared_away(arriving: Arriving) -> None:
    """Clear away, and wait for it as long as an answer may."""
    if arriving.spill is None or arriving.handed_over:
        arriving.let_go()
        return
    arriving.step_aside()
    clearing = arriving.worker.clearing
    task = asyncio.create_task(clear_away(arriving))
    clearing.add(task)
    task.add_done_callback(clearing.discard)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), CLEAR_S)


async def clear_away(arriving: Arriving) -> None:
    """Leave nothing in memory, and no file that nobody will name."""
    if arriving.spill is not None and not arriving.handed_over:
        await asyncio.shield(arriving.spill.drop())
    arriving.let_go()


def _note(arriving: Arriving, outcome: Outcome, took_s: float) -> None:
    """Count it, and write its line."""
    worker, verdict = arriving.worker, outcome.verdict
    worker.meters.messages.labels(outcome.kind).inc()
    worker.meters.bytes.inc(arriving.received)
    worker.meters.reply_s.observe(took_s)
    worker.pace.answered(took_s)
    if outcome.kind == "pending":
        worker.meters.pending.labels(outcome.reason or "none").inc()
    said = {
        "rule": verdict.rule if verdict else "",
        "reason": outcome.reason,
        "customer_id": arriving.attribution.customer_id if arriving.attribution else "",
    }
    worker.log.info(
        f"edge.{outcome.kind}",
        message=arriving.id,
        account=arriving.account.name,
        sender=sender_of(arriving).key,
        client=arriving.visitor.client,
        bytes=arriving.received,
        recipients=len(arriving.envelope.recipients),
        verdict=verdict.verb if verdict else "none",
        code=outcome.reply.code,
        took_ms=round(took_s * 1000, 1),
        **{name: value for name, value in said.items() if value},
    )
