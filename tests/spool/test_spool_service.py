"""A shard over its socket: what it says, to whom, and what it hands out to whom."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.spool.given import ACCEPT, accept, name, settle, until

from postweir.judge.ports import Asked
from postweir.runtime import clock, link
from postweir.runtime.frames import encode, unpack
from postweir.runtime.log import quiet
from postweir.runtime.metrics import Metrics
from postweir.runtime.settings import Settings, Spool
from postweir.spool import service as service_module
from postweir.spool.client import Shards
from postweir.spool.ports import (
    Committed,
    Content,
    Credit,
    Full,
    Health,
    Hello,
    Out,
    Page,
    Read,
    Refusal,
    Request,
    Safe,
    Settle,
    Settled,
    ShardFrame,
    Sited,
    Unknown,
    Unsafe,
    Wake,
)
from postweir.spool.service import Service
from postweir.spool.states import bucket_of
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite_spool import SqliteStore

FAR = bucket_of("far.example")
WAIT_S = 5.0


class Wishes:
    """A table of requests."""

    def __init__(self) -> None:
        self.rows: list[Request] = []

    def after(self, number: int) -> list[Request]:
        return [r for r in self.rows if r.number > number]


class Minds:
    """A judge that answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = Asked(None, "down")

    async def ask(self, ask: Any, wait_s: float) -> Asked:
        self.asked.append(ask.message)
        return self.answer

    def uncount(self, account: str, message: str) -> None:
        raise AssertionError("the shard never uncounts")


class Peer:
    """One raw connection to a shard, and all it has heard."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.link: link.Link | None = None
        self.lost = asyncio.Event()
        self._more = asyncio.Event()

    async def call(self, path: Path, hello: Hello | None) -> "Peer":
        self.link = await link.connect(path, ShardFrame, self._on_frames, lambda _: self.lost.set())
        if hello is not None:
            self.link.send(hello)
        return self

    def _on_frames(self, _: link.Link, frames: list[Any]) -> None:
        self.heard += frames
        self._more.set()

    def say(self, *frames: Any) -> None:
        assert self.link is not None
        for frame in frames:
            self.link.send(frame)

    async def until(self, true: Callable[[], Any]) -> Any:
        """Wait until something is so, by what was heard."""
        async with asyncio.timeout(WAIT_S):
            while not (found := true()):
                self._more.clear()
                await self._more.wait()
        return found

    def all(self, kind: type) -> list[Any]:
        return [frame for frame in self.heard if isinstance(frame, kind)]

    async def get(self, kind: type, count: int = 1) -> list[Any]:
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)

    async def beats(self, count: int) -> None:
        """Wait for so many more beats: whatever was under way has arrived by then."""
        await self.get(Health, len(self.all(Health)) + count)

    def outs(self) -> list[tuple[str, int, bool]]:
        return [(o.message, o.attempt, o.possible_duplicate) for o in self.all(Out)]


class Stand:
    """One shard in a folder, which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, Settings(spool=Spool(free_bytes_min=0))
        self.wishes, self.minds = Wishes(), Minds()
        self.failed: list[dict[str, Any]] = []
        self.service: Service | None = None
        self.peers: list[Peer] = []
        self.store: Any = None
        self.incarnation = 0

    @property
    def path(self) -> Path:
        return self.folder / "shard-1.sock"

    async def start(self) -> None:
        self.incarnation += 1

        def open_store() -> SqliteStore:
            self.store = SqliteStore(
                self.folder / "s.db", self.folder / "bodies", settings=self.settings.spool
            )
            return self.store

        self.service = Service(
            1,
            run=self.folder,
            bodies=self.folder / "bodies",
            settings=self.settings,
            open_store=open_store,
            open_reader=lambda out: SqliteReader(self.folder / "s.db", shard=1, in_hand=out),
            requests=self.wishes,
            judge=self.minds,
            log=quiet(),
            metrics=Metrics(),
            fail=lambda event, **fields: self.failed.append({"event": event, **fields}),
            incarnation=self.incarnation,
        )
        await self.service.start()

    async def stop(self) -> None:
        if self.service is not None:
            service, self.service = self.service, None
            await service.close()

    async def peer(self, process: str = "edge", hello: Hello | None = None) -> Peer:
        one = await Peer().call(self.path, hello or Hello(1, process, 1, 1, 3, ""))
        self.peers.append(one)
        return one

    async def delivery(self, incarnation: int = 5, credit: int = 10, **more: Any) -> Peer:
        hello = Hello(1, "delivery", 1, 1, incarnation, "", **more)
        one = await self.peer(hello=hello)
        if credit:
            one.say(*(Credit(b, credit) for b in range(64)))
        return one

    async def ledger(self) -> list[Any]:
        reader = SqliteReader(self.folder / "s.db", shard=1)
        try:
            return list(reader.ledger())
        finally:
            reader.close()


@pytest.fixture
async def stand(tmp_path) -> AsyncIterator[Stand]:
    one = Stand(tmp_path)
    await one.start()
    yield one
    for peer in one.peers:
        if peer.link is not None:
            peer.link.close()
    await one.stop()


async def test_a_message_lives(stand):
    """Accepted, safe, handed out with its content, settled, gone."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1))

    (safe,) = await edge.get(Safe)
    (out,) = await delivery.get(Out)
    (content,) = await delivery.get(Content)
    assert safe.ask == 1
    assert (out.message, out.attempt, content.message) == (name(1), 1, name(1))
    assert content.added + content.body == b"Received: by us\r\n" + accept(1).body
    delivery.say(settle(out.recipient))
    (settled,) = await delivery.get(Settled)
    assert settled.done == [(out.recipient, 1)]
    (line,) = await stand.ledger()
    assert (line.accepted, line.delivered, line.residual) == (1, 1, 0)


async def test_health_says_that_it_lives(stand):
    """Unasked, to all who have said Hello, with whether it takes mail."""
    edge = await stand.peer()
    beats = await edge.get(Health, 3)

    assert beats[-1].accepts
    assert beats[-1].settings == stand.settings.hash


async def test_who_does_not_say_hello_is_hung_up_on(stand):
    """The first frame is Hello, of a version there is."""
    stranger = await Peer().call(stand.path, None)
    stranger.say(accept(1))
    old = await Peer().call(stand.path, Hello(0, "edge", 1, 1, 1, ""))

    async with asyncio.timeout(WAIT_S):
        await stranger.lost.wait()
        await old.lost.wait()
    assert await stand.ledger() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"message": "not-an-id"},
        {"body": None},
        {"body_file": "../escape", "body": None},
        {"length": 1},
        {"verdict": ACCEPT.__class__("refuse")},
    ],
)
async def test_an_unsound_accept_is_not_taken(stand, wrong):
    """And the next one on the same connection is."""
    edge = await stand.peer()
    edge.say(accept(1, **wrong), accept(2))

    (unsafe,) = await edge.get(Unsafe)
    assert (unsafe.ask, unsafe.reason) == (1, "corrupt")
    await edge.get(Safe)


async def test_a_late_accept_is_not_begun(stand):
    """Past its deadline nobody waits for it: it must not become ours as well."""
    edge = await stand.peer()
    edge.say(accept(1, by_ns=clock.monotonic_ns() - 1))

    (unsafe,) = await edge.get(Unsafe)
    assert unsafe.reason == "late"
    assert await stand.ledger() == []


async def test_a_full_shard_takes_nothing_and_delivers_on(stand):
    """It says so in its health, refuses at once, and goes on handing out."""
    edge, delivery = await stand.peer(), await stand.delivery(credit=0)
    edge.say(accept(1))
    await edge.get(Safe)
    stand.service.settings = Settings(spool=Spool(queued_max=1, free_bytes_min=0))
    edge.say(accept(2))

    (unsafe,) = await edge.get(Unsafe)
    await edge.until(lambda: not edge.all(Health)[-1].accepts)
    assert (unsafe.reason, edge.all(Health)[-1].reason) == ("full", "full")
    delivery.say(Credit(FAR, 1))
    (out,) = await delivery.get(Out)
    delivery.say(settle(out.recipient))
    await edge.until(lambda: edge.all(Health)[-1].accepts)


async def test_a_worker_that_returns_keeps_what_it_has(stand):
    """Same incarnation: what it lists is not handed out again, what it missed is, unmarked."""
    edge, old = await stand.peer(), await stand.delivery()
    edge.say(accept(1), accept(2))
    outs = await old.get(Out, 2)
    old.link.abort()
    new = await stand.delivery(in_hand=[(outs[0].recipient, 1)])

    await new.get(Out)
    await new.beats(3)
    assert new.outs() == [(outs[1].message, 1, False)]
    new.say(settle(outs[0].recipient), settle(outs[1].recipient))
    await new.until(lambda: sum(len(s.done) for s in new.all(Settled)) == 2)
    (line,) = await stand.ledger()
    assert (line.delivered, line.queued) == (2, 0)


async def test_a_dead_workers_mail_is_a_possible_duplicate(stand):
    """Another incarnation: all it had goes out again, marked."""
    edge, old = await stand.peer(), await stand.delivery()
    edge.say(accept(1))
    await old.get(Out)
    old.link.abort()
    new = await stand.delivery(incarnation=6)

    await new.get(Out)
    assert new.outs() == [(name(1), 1, True)]


async def test_a_new_connection_ends_the_old_one(stand):
    """Of the same worker; nothing is handed out twice."""
    edge, old = await stand.peer(), await stand.delivery()
    edge.say(accept(1))
    (out,) = await old.get(Out)
    new = await stand.delivery(in_hand=[(out.recipient, 1)])

    async with asyncio.timeout(WAIT_S):
        await old.lost.wait()
    await new.beats(3)
    assert new.outs() == []


async def test_unsettled_outcomes_are_committed_once(stand):
    """What a Hello repeats is settled, also when it was before."""
    edge, old = await stand.peer(), await stand.delivery()
    edge.say(accept(1))
    (out,) = await old.get(Out)
    for _ in range(3):
        new = await stand.delivery(unsettled=[settle(out.recipient)])
        (settled,) = await new.get(Settled)
        assert settled.done == [(out.recipient, 1)]
    (line,) = await stand.ledger()
    assert (line.delivered, line.residual) == (1, 0)


async def test_a_shards_restart_doubles_nothing(stand):
    """Everything queued is due again, but for what a Hello says is in hand."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1), accept(2), accept(3, verdict=None))
    outs = await delivery.get(Out, 2)
    await stand.stop()
    await stand.start()
    new = await stand.delivery(in_hand=[(outs[0].recipient, 1)])

    await new.get(Out)
    await new.beats(5)
    assert new.outs() == [(outs[1].message, 1, False)]
    assert [c.message for c in new.all(Content)] == [outs[1].message]


async def test_a_starting_shard_waits_for_every_worker(stand):
    """Two workers: nothing goes to the first before the second has said what it has."""
    edge = await stand.peer()
    await stand.delivery()
    edge.say(accept(1))
    await edge.get(Safe)
    await stand.stop()
    await stand.start()
    index = FAR % 2 + 1
    owner = await stand.peer(hello=Hello(1, "delivery", index, 2, 5, ""))
    owner.say(*(Credit(b, 10) for b in range(64)))
    await owner.beats(5)

    assert owner.outs() == []
    await stand.peer(hello=Hello(1, "delivery", 3 - index, 2, 5, ""))
    await owner.get(Out)


async def test_a_deferred_recipient_comes_back_from_disk(stand):
    """With its content, and the next attempt's number."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1))
    (out,) = await delivery.get(Out)
    delivery.say(settle(out.recipient, "deferred", retry_in_s=0.05), Credit(FAR, 1))

    outs = await delivery.get(Out, 2)
    assert (outs[1].attempt, outs[1].tries) == (2, 1)
    assert len(delivery.all(Content)) == 2


async def test_a_failure_hands_out_its_bounce(stand):
    """The bounce leaves like any other message, from the null sender."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1))
    (out,) = await delivery.get(Out)
    delivery.say(settle(out.recipient, "failed"))

    outs = await delivery.get(Out, 2)
    assert outs[1].address == "joe@customer.example"
    assert delivery.all(Content)[1].mail_from == ""


async def test_a_site_that_is_anothers_moves(stand):
    """The recipient comes out of the other bucket, when that has credit."""
    edge, delivery = await stand.peer(), await stand.delivery(credit=0)
    site = next(f"mx{n}.example" for n in range(99) if bucket_of(f"mx{n}.example") != FAR)
    delivery.say(Credit(FAR, 5))
    edge.say(accept(1))
    (out,) = await delivery.get(Out)
    delivery.say(Sited(out.recipient, 1, site))
    await delivery.beats(3)

    assert len(delivery.all(Out)) == 1
    delivery.say(Credit(bucket_of(site), 1))
    outs = await delivery.get(Out, 2)
    assert outs[1].recipient == out.recipient


async def test_operators_requests_are_done(stand):
    """Release, suspend, resume and drop, by row and wake-up."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1, verdict=ACCEPT.__class__("hold")))
    await edge.get(Safe)

    async def ask(verb: str, scope: str) -> None:
        number = len(stand.wishes.rows) + 1
        stand.wishes.rows.append(Request(number, verb, scope, "because", "operator", 0))
        edge.say(Wake())

    await ask("release", name(1))
    (out,) = await delivery.get(Out)
    delivery.say(settle(out.recipient), Credit(FAR, 1))
    await ask("suspend", "account=acme")
    await edge.until(lambda: stand.store.request_done() == 2)
    edge.say(accept(2))
    await edge.get(Safe, 2)
    await delivery.beats(4)
    assert len(delivery.all(Out)) == 1
    await ask("resume", "account=acme")
    await delivery.get(Out, 2)
    assert delivery.outs()[1] == (name(2), 1, False)


async def test_pending_mail_is_judged_when_the_judge_is_back(stand):
    """Nothing of it leaves before; then it goes."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1, verdict=None))
    await edge.get(Safe)
    await edge.until(lambda: stand.minds.asked)

    assert delivery.outs() == []
    stand.minds.answer = Asked(ACCEPT, "", b"facts")
    await delivery.get(Out)
    assert delivery.outs() == [(name(1), 1, False)]


async def test_a_damaged_file_never_leaves(stand):
    """It is read before it goes; what is not what was accepted is held."""
    edge, delivery = await stand.peer(), await stand.delivery()
    good = _file(stand, "good", b"Subject: x\r\n\r\nbody\r\n")
    bad = _file(stand, "bad", b"Subject: y\r\n\r\nbody\r\n")
    (stand.folder / "bodies" / "bad").write_bytes(b"Subject: y\r\n\r\nBODY\r\n")
    edge.say(accept(1, **bad), accept(2, **good))
    await edge.get(Safe, 2)

    await delivery.get(Out)
    await delivery.beats(3)
    assert delivery.outs() == [(name(2), 1, False)]
    await edge.until(lambda: stand.store.pending(0, 1) == [])
    (line,) = await stand.ledger()
    assert (line.held, line.residual) == (1, 0)


async def test_questions_are_answered(stand):
    """A command's page, with what is in hand now."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1))
    await delivery.get(Out)
    command = await stand.peer("command")
    command.say(Read(4, "queue", "", 0, 10), Read(5, "nonsense", "", 0, 10))

    pages = await command.get(Page, 2)
    assert [(p.ask, len(p.rows)) for p in pages] == [(4, 1), (5, 0)]


async def test_a_fault_of_the_disk_ends_the_process(stand, monkeypatch):
    """No Safe is said any more; the process is to end, and the file is the truth."""
    edge = await stand.peer()
    edge.say(accept(1))
    await edge.get(Safe)

    def broken(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stand.store, "commit", broken)
    edge.say(accept(2))
    await edge.until(lambda: stand.failed)

    assert stand.failed[0]["event"] == "spool.fault"
    assert len(edge.all(Safe)) == 1
    assert edge.all(Unsafe) == []
    stand.store.close()
    stand.service._writer._thread.join(WAIT_S)


async def test_torn_bytes_end_only_their_connection(stand):
    """Another goes on."""
    edge = await stand.peer()
    _, writer = await asyncio.open_unix_connection(str(stand.path))
    writer.write(b"\xff" * 100)
    half = encode([accept(7)])
    _, writer2 = await asyncio.open_unix_connection(str(stand.path))
    writer2.write(encode([Hello(1, "edge", 2, 2, 9, "")]) + half[: len(half) // 2])
    await writer2.drain()
    for w in (writer, writer2):
        w.close()
        with contextlib.suppress(ConnectionError):
            await w.wait_closed()
    edge.say(accept(1))

    await edge.get(Safe)
    (line,) = await stand.ledger()
    assert line.accepted == 1


async def shards(stand: Stand) -> Shards:
    """Return a client that has heard from the shard."""
    one = Shards(stand.folder, count=1, hello=Hello(1, "edge", 1, 1, 4, ""), log=quiet())
    await until(lambda: not one.reason())
    return one


async def test_a_client_accepts_and_reads(stand):
    """Through any healthy shard; asks of one are told apart."""
    client = await shards(stand)
    try:
        answers = await asyncio.gather(*(client.accept(accept(n)) for n in range(1, 50)))
        page = await client.read(1, "queue", count_max=10)
        first = await client.after({}, 0, whole=True)
        then = await client.after(first.cursors, 0, whole=True)
    finally:
        await client.close()

    assert {type(a).__name__ for a in answers} == {"Safe"}
    assert (len(page.rows), page.next is not None) == (10, True)
    assert (len(first.rows), first.more, first.unread) == (49, False, [])
    assert {r.kind for r in first.rows} == {"accepted"}
    assert (then.rows, then.cursors) == ([], first.cursors)
    assert len({r.ask for r in answers}) == 49


async def test_a_client_learns_that_a_shard_went_down(stand):
    """No shard: `down`; an accept to it was surely not sent; a read is a ConnectionError."""
    client = await shards(stand)
    try:
        await stand.stop()
        await until(client.reason)

        assert client.reason() == "down"
        with pytest.raises(Unknown):
            client.choose()
        assert (await client.accept(accept(1), shard=1)) == Unsafe(1, "down")
        with pytest.raises(ConnectionError):
            await client.read(1, "status", wait_s=0.05)
        await stand.start()
        await until(lambda: not client.reason())
        assert isinstance(await client.accept(accept(1)), Safe)
    finally:
        await client.close()


async def test_a_client_is_told_what_a_dead_shard_had_committed(stand):
    """The answers to two accepts are lost with the process; the next one knows one of them."""
    client = await shards(stand)
    try:
        said = link.Link.send
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(link.Link, "send", lambda one, frame: (
                None if isinstance(frame, Safe) else said(one, frame)
            ))  # fmt: skip
            asked = [asyncio.create_task(client.accept(accept(n))) for n in (1, 2)]
            await until(lambda: stand.store is not None and stand.store.queued() == 2)
            stand.store._db.execute("DELETE FROM msg WHERE id = 2").fetchall()  # as if not begun
            await stand.stop()
        await stand.start()
        answers = await asyncio.gather(*asked)
    finally:
        await client.close()

    assert [type(a).__name__ for a in answers] == ["Safe", "Unsafe"]


async def test_names_are_looked_up_beside_slow_questions(stand):
    """An edge that lost its shard does not wait behind everyone's ledgers."""
    edge = await stand.peer()
    edge.say(accept(1))
    await edge.get(Safe)
    blocked = asyncio.Event()
    lane = stand.service._reading._lanes[False]
    slow = lane.pool.submit(lambda: asyncio.run_coroutine_threadsafe(
        blocked.wait(), stand.service._loop).result())  # fmt: skip
    edge.say(Read(1, "ledger", "", 0, 10), Read(2, "committed", f"{name(1)} {name(2)}", 0, 10))
    (page,) = await edge.get(Page)
    blocked.set()

    assert page.ask == 2
    assert [unpack(row, Committed) for row in page.rows] == [
        Committed(name(1), True), Committed(name(2), False),
    ]  # fmt: skip
    await edge.get(Page, 2)
    slow.result()


async def test_a_question_that_cannot_be_answered_is_not_answered_wrongly(stand):
    """A command's link is closed; an edge keeps its own, for its accepts are on it."""

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    edge, command = await stand.peer(), await stand.peer("command")
    for lane in stand.service._reading._lanes.values():
        lane._open_reader = broken
    edge.say(Read(1, "committed", name(1), 0, 10))
    command.say(Read(2, "ledger", "", 0, 10))
    async with asyncio.timeout(WAIT_S):
        await command.lost.wait()
    edge.say(accept(1))

    await edge.get(Safe)
    assert edge.all(Page) == command.all(Page) == []


async def test_a_drain_answers_all_it_has_taken(stand):
    """Each accept hears Safe, and is in the file, or Unsafe, and is not."""
    edge = await stand.peer()
    edge.say(*(accept(n) for n in range(1, 301)))
    await edge.get(Safe)
    await stand.stop()

    async with asyncio.timeout(WAIT_S):
        await edge.lost.wait()
    assert len(edge.all(Safe)) + len(edge.all(Unsafe)) == 300
    assert {u.reason for u in edge.all(Unsafe)} <= {"draining"}
    assert edge.all(Health)[-1].reason == "draining"
    (line,) = await stand.ledger()
    assert line.accepted == len(edge.all(Safe))


async def test_a_drain_does_not_wait_for_who_reads_nothing(stand):
    """A stopped edge: its link is left to its fate after a moment."""
    edge = await stand.peer()
    edge.link._transport.pause_reading()
    for n in range(60):
        edge.say(Read(n, "committed", " ".join(["x" * 16] * 1000), 0, 1000))
    await until(lambda: [
        one for one in stand.service._links if one._transport.get_write_buffer_size() > 500_000
    ])  # fmt: skip
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stand.stop()

    assert 0.9 < loop.time() - began < 3.0


@pytest.mark.parametrize("spoilt", ["removed", "a file", "read-only"])
async def test_a_folder_that_takes_no_files_is_seen_within_a_second(stand, spoilt):
    """It takes no mail, says why, goes on delivering, and heals by itself."""
    edge, delivery = await stand.peer(), await stand.delivery(credit=0)
    edge.say(accept(1))
    await edge.get(Safe)
    bodies, loop = stand.folder / "bodies", asyncio.get_running_loop()
    began = loop.time()
    if spoilt == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write there")
        bodies.chmod(0o500)
    else:
        bodies.rmdir()
    if spoilt == "a file":
        bodies.write_bytes(b"")
    await edge.until(lambda: edge.all(Health)[-1].reason == "unwritable")
    assert loop.time() - began < 1.0
    edge.say(accept(2))
    delivery.say(Credit(FAR, 1))

    (unsafe,) = await edge.get(Unsafe)
    assert unsafe.reason == "unwritable"
    await delivery.get(Out)
    if spoilt == "a file":
        bodies.unlink()
    if spoilt == "read-only":
        bodies.chmod(0o700)
    else:
        bodies.mkdir()
    await edge.until(lambda: edge.all(Health)[-1].accepts)
    assert stand.failed == []


async def test_a_large_message_whose_folder_is_away_leaves_when_it_is_back(stand):
    """It is neither lost, nor held as damaged, nor read without a pause."""
    edge = await stand.peer()
    edge.say(accept(1, **_file(stand, "large", b"Subject: x\r\n\r\nbody\r\n")))
    await edge.get(Safe)
    await stand.stop()
    bodies, away = stand.folder / "bodies", stand.folder / "away"
    bodies.rename(away)
    await stand.start()
    delivery = await stand.delivery()
    await delivery.beats(8)

    assert delivery.outs() == []
    assert delivery.all(Health)[-1].reason == "unwritable"
    away.rename(bodies)
    await delivery.get(Out)
    (line,) = await stand.ledger()
    assert (line.queued, line.held) == (1, 0)


async def test_records_of_refusals_do_not_pile_up(stand, monkeypatch):
    """More than fit are lost, and counted; mail is taken all the same."""
    monkeypatch.setattr("postweir.spool.room.RECORDS_WAITING_MAX", 10)
    edge = await stand.peer()
    a = accept(1)
    record = Refusal(name(9), 0, "data", a.sender, a.envelope, "", settle(1).reply, None, b"")
    edge.say(*[record] * 50, a)
    await edge.get(Safe)

    assert stand.service._room.records_lost == 40
    edge.say(record, accept(2))
    await edge.get(Safe, 2)
    assert stand.service._room.records_lost == 40


def _file(stand: Stand, name_: str, text: bytes) -> dict[str, Any]:
    (stand.folder / "bodies" / name_).write_bytes(text)
    check = hashlib.blake2b(text, digest_size=16).digest()
    return {"body": None, "body_file": name_, "length": len(text), "check": check}


async def test_while_outcomes_cannot_be_recorded_nothing_is_handed_out(stand):
    """And no mail is taken, with the reason; a proven write opens both, and one outcome is one."""
    edge, delivery = await stand.peer(), await stand.delivery()
    edge.say(accept(1), accept(2, verdict=None))
    await edge.get(Safe, 2)
    (out,) = await delivery.get(Out)
    committed, proven, tried = stand.store.commit, stand.store.prove, []

    def full(changes: list[Any]) -> Any:
        tried.extend(changes)
        raise Full("no room")

    stand.store.commit, stand.store.prove = full, _no_room
    for _ in range(3):  # as delivery does while it hears nothing
        delivery.say(settle(out.recipient))
        await delivery.beats(2)
    delivery.say(settle(out.recipient))
    await edge.until(lambda: not edge.all(Health)[-1].records)
    edge.say(accept(3))
    (unsafe,) = await edge.get(Unsafe)
    assert (unsafe.ask, unsafe.reason) == (3, "full")
    assert edge.all(Health)[-1].reason == "full"
    assert stand.service._writer.latch == "full"
    # What comes due meanwhile stays where it is.
    stand.store.commit = lambda changes: full(changes) if _outcomes(changes) else committed(changes)
    stand.service._giving.marked([(FAR, lane, 0) for lane in range(256)])
    await delivery.beats(4)
    assert len(delivery.all(Out)) == 1
    assert len(_outcomes(tried)) == 1
    stand.store.commit, stand.store.prove = committed, proven
    (settled,) = await delivery.get(Settled)
    assert settled.done == [(out.recipient, 1)]
    await edge.until(lambda: edge.all(Health)[-1].accepts)
    edge.say(accept(4))
    await edge.get(Safe, 3)
    assert (await delivery.get(Out, 2))[1].message == name(4)
    assert stand.failed == []


def _outcomes(changes: list[Any]) -> list[Any]:
    return [change for change in changes if isinstance(change, Settle)]


async def test_nothing_is_said_to_be_committed_before_it_is_proven(stand):
    """After a failed sync a new process can read what the disk does not have."""
    edge = await stand.peer()
    edge.say(accept(1))
    await edge.get(Safe)
    await stand.stop()
    proven = SqliteStore.prove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteStore, "prove", lambda _: _no_room())
        await stand.start()
        edge, delivery = await stand.peer(), await stand.delivery()
        edge.say(Read(1, "committed", name(1), 0, 10), accept(2))
        (unsafe,) = await edge.get(Unsafe)
        await edge.beats(3)
        assert unsafe.ask == 2
        assert edge.all(Health)[-1].reason == "unproven"
        assert edge.all(Page) == []
        assert delivery.all(Out) == []
        patch.setattr(SqliteStore, "prove", proven)
        (page,) = await edge.get(Page)

    assert unpack(page.rows[0], Committed) == Committed(name(1), True)
    assert (await delivery.get(Out))[0].message == name(1)


async def test_a_start_that_cannot_prove_says_why(stand, monkeypatch):
    """Once: else an operator sees only that no mail is taken."""
    monkeypatch.setattr(service_module, "UNPROVEN_S", 0.0)
    monkeypatch.setattr(SqliteStore, "prove", lambda _: _no_room())
    await stand.stop()
    await stand.start()
    stand.service._log = log = Mock()
    edge = await stand.peer()
    await edge.beats(4)

    (told,) = log.error.call_args_list
    assert told.args == ("spool.latched",)
    assert told.kwargs["reason"] == "unproven"
    assert told.kwargs["why"]


async def test_a_drain_leaves_no_log(stand):
    """Though somebody has asked, and the reader that answered was the last to have the file."""
    edge = await stand.peer("command")
    edge.say(Read(1, "ledger", "", 0, 10))
    await edge.get(Page)
    await stand.stop()

    assert not (stand.folder / "s.db-wal").exists()


def _no_room() -> None:
    raise Full("no room")
