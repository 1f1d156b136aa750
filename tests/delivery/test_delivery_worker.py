"""A message's way out, against hosts that behave well, badly, or not at all."""

import asyncio
import contextlib
import gc
import hashlib
import socket
import threading
import time

import pytest
from tests.delivery.remote import (
    DROP,
    HANG,
    OK,
    Hands,
    Remote,
    certificate,
    delivering,
    message,
)
from tests.runtime.nameserver import Nameserver

from postweir.delivery import contents, reach, schedule, session
from postweir.delivery import worker as worker_module
from postweir.delivery.contents import Contents, Unfit
from postweir.delivery.session import Session
from postweir.runtime.dns import Resolver
from postweir.runtime.metrics import Metrics
from postweir.runtime.net import server_context
from postweir.spool.ports import Content
from postweir.spool.states import bucket_of


def to(remote):
    return {"*": f"127.0.0.1:{remote.port}"}


async def test_delivers_byte_for_byte():
    """What arrives is header and body as they were, dots and 8 bits and long lines too."""
    body = b".first\r\n..\r\n" + b"x" * 5000 + b"\r\n\xe4\r\n.\r\nlast\r\n"
    async with Remote() as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", body=body))
        settle = (await hands.until(1))[1]

        assert remote.got[0].data == b"X: 1\r\n\r\n" + body
        assert remote.got[0].mail_from == "from@here.example"
        assert settle.outcome == "delivered"
        assert settle.reply.text == "Taken"
        assert settle.peer == f"127.0.0.1[127.0.0.1]:{remote.port}"
        assert settle.source == "127.0.0.1"
        assert settle.tls == ""
        assert settle.retry_in_s is None


async def test_each_recipient_has_its_own_reply():
    """One transaction; who is refused fails, who is greylisted waits, the others have it."""

    def rcpt(line):
        if "dead@" in line:
            return b"550-5.1.1 No\r\n550 5.1.1 such user\r\n"
        return b"450 4.7.1 Later\r\n" if "grey@" in line else b"250 2.1.5 Ok\r\n"

    async with Remote({"RCPT": rcpt}) as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", "dead@b.example", "grey@b.example"))
        found = await hands.until(3)

        assert [found[n].outcome for n in (1, 2, 3)] == ["delivered", "failed", "deferred"]
        assert found[2].reply.status == "5.1.1"
        assert found[2].reply.text == "No such user"
        assert found[3].retry_in_s == pytest.approx(300 * 1.05)
        assert [got.recipients for got in remote.got] == [["a@b.example"]]


async def test_a_hundred_recipients_a_transaction():
    """More recipients than a host must take go in several transactions."""
    async with Remote() as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", *(f"r{n}@b.example" for n in range(250))))
        await hands.until(250)

        assert sorted(len(got.recipients) for got in remote.got) == [50, 100, 100]


@pytest.mark.parametrize(
    ("stage", "reply", "outcome", "status"),
    [
        ("GREET", b"421 4.3.2 Busy!\r\n", "deferred", "4.3.2"),
        ("GREET", b"554 5.7.1 Not you\r\n", "deferred", "4.4.1"),
        ("GREET", DROP, "deferred", "4.4.2"),
        ("GREET", HANG, "deferred", "4.4.2"),
        ("GREET", b"HTTP/1.1 200 OK\r\n", "deferred", "4.5.0"),
        ("EHLO", b"421 4.3.2 Busy\r\n", "deferred", "4.3.2"),
        ("EHLO", HANG, "deferred", "4.4.2"),
        ("MAIL", b"451 4.3.0 Later\r\n", "deferred", "4.3.0"),
        ("MAIL", b"550 5.7.1 Never\r\n", "failed", "5.7.1"),
        ("MAIL", DROP, "deferred", "4.4.2"),
        ("MAIL", HANG, "deferred", "4.4.2"),
        ("RCPT", b"421 4.7.0 Enough!\r\n", "deferred", "4.7.0"),
        ("RCPT", HANG, "deferred", "4.4.2"),
        ("DATA", b"451 4.3.0 Later\r\n", "deferred", "4.3.0"),
        ("DATA", b"554 5.7.1 Spam\r\n", "failed", "5.7.1"),
        ("CONTENT", DROP, "deferred", "4.4.2"),
        ("DOT", b"452 4.3.1 Full\r\n", "deferred", "4.3.1"),
        ("DOT", b"554 5.7.1 Spam\r\n", "failed", "5.7.1"),
        ("DOT", DROP, "deferred", "4.4.2"),
        ("DOT", HANG, "deferred", "4.4.2"),
        ("DOT", b"250-" + b"x" * 500_000 + b"\r\n250 2.0.0 Taken\r\n", "delivered", "2.0.0"),
        ("DOT", b"250-more\r\n" * 20_000, "deferred", "4.5.0"),
        ("DOT", [b"2"] * 1000, "deferred", "4.4.2"),
    ],
    ids=lambda value: value[:20].decode() if isinstance(value, bytes) else None,
)
async def test_trouble_at_each_stage(stage, reply, outcome, status):
    """4xx, 5xx, silence, garbage and the end, wherever they come, decide only what they may."""
    quick = {"reply_s": 0.3, "final_reply_s": 0.3}
    async with Remote({stage: reply}) as remote, delivering(to(remote), **quick) as (worker, hands):
        worker.take(message("m1", "a@b.example"))
        settle = (await hands.until(1, within_s=3))[1]

        assert settle.outcome == outcome
        assert settle.reply.status == status
        assert len(settle.reply.text) <= 1000
        assert settle.reply.text.isprintable()


class Lines:
    """A log that keeps what it is told."""

    def __init__(self):
        self.events = []

    def info(self, event, **_):
        self.events.append(event)

    debug = warning = error = info


@pytest.mark.parametrize(
    ("says", "doubtful"),
    [
        ({"DOT": DROP}, True),
        ({"DOT": HANG}, True),
        ({"DOT": b"250 2.0.0 Taken!\r\n"}, False),
        ({"DOT": b"421 4.3.2 Going down!\r\n"}, False),
        ({"DATA": b"451 4.3.0 Later!\r\n"}, False),
        ({"RCPT": DROP}, False),
    ],
)
async def test_possible_duplicates_are_noted(says, doubtful):
    """Only what was sent and never answered may come twice."""
    log = Lines()
    async with Remote(says) as remote, delivering(to(remote), log=log, final_reply_s=0.3) as it:
        worker, hands = it
        worker.take(message("m1", "a@b.example"))
        await hands.until(1)

        assert ("delivery.possible_duplicate" in log.events) is doubtful


async def test_one_connection_carries_many():
    """Messages follow each other on a connection, up to its bound."""
    limits = {"connections_per_site_max": 1, "messages_per_connection_max": 10}
    async with Remote() as remote, delivering(to(remote), **limits) as (worker, hands):
        for n in range(25):
            worker.take(message(f"m{n}", "a@b.example", first=n))
        await hands.until(25)

        assert [sum(g.connection == c for g in remote.got) for c in (1, 2, 3)] == [10, 10, 5]
        assert remote.connections == 3


async def test_an_idle_connection_is_used_again_and_then_left():
    """What comes within idle_s needs no new connection; after it we say goodbye."""
    async with Remote() as remote, delivering(to(remote), idle_s=0.3) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1))
        await hands.until(1)
        worker.take(message("m2", "a@b.example", first=2))
        await hands.until(2)

        assert remote.connections == 1
        await asyncio.wait_for(remote.goodbye.wait(), 2)


async def test_a_host_that_hung_up_while_idle_costs_no_attempt():
    """A second transaction that nobody answered at all is sent again at once, not deferred."""
    seen = []

    def mail(line):
        seen.append(line)
        return DROP if len(seen) == 2 else OK["MAIL"]

    async with Remote({"MAIL": mail}) as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1))
        await hands.until(1)
        worker.take(message("m2", "a@b.example", first=2))
        found = await hands.until(2)

        assert found[2].outcome == "delivered"
        assert remote.connections == 2


async def test_a_421_that_crosses_our_command_costs_no_attempt():
    """A host that says goodbye to an idle connection just as we use it answers nothing we asked."""
    seen = []

    def mail(line):
        seen.append(line)
        return b"421 4.4.2 Idle for too long!\r\n" if len(seen) == 2 else OK["MAIL"]

    async with Remote({"MAIL": mail}) as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1))
        await hands.until(1)
        worker.take(message("m2", "a@b.example", first=2))
        found = await hands.until(2)

        assert found[2].outcome == "delivered"
        assert remote.connections == 2


async def test_a_host_that_hangs_up_while_we_read_the_body_costs_no_attempt(tmp_path, monkeypatch):
    """Between two messages a connection may end: the next one finds out before it is begun."""
    lost = asyncio.Event()
    real_lost, real_take = Session.connection_lost, Contents.take

    def connection_lost(self, fault):
        real_lost(self, fault)
        lost.set()

    async def take(self, content):
        if content.message == "m2" and not lost.is_set():
            goodbye.set()
            await lost.wait()
        return await real_take(self, content)

    goodbye = asyncio.Event()
    monkeypatch.setattr(Session, "connection_lost", connection_lost)
    monkeypatch.setattr(Contents, "take", take)

    async with (
        Remote({"DOT": hanging_up(goodbye)}) as remote,
        delivering(to(remote), idle_s=5) as (worker, hands),
    ):
        log = Lines()
        worker._log = log
        worker.take(message("m1", "a@b.example", first=1))
        await hands.until(1)
        worker.take(message("m2", "a@b.example", first=2))
        found = await hands.until(2)

        assert found[2].outcome == "delivered"
        assert "delivery.failed" not in log.events


def hanging_up(goodbye):
    """A host that takes the first message, and hangs up in silence when it is told to."""
    first = [True]

    def taken(_):
        if not first:
            return OK["DOT"]
        first.clear()
        return [OK["DOT"], goodbye, DROP]

    return taken


async def test_a_host_that_hangs_up_on_everything_is_not_hammered():
    """Hundreds of messages for a host that ends each connection cost it a few connections."""
    async with (
        Remote({"MAIL": b"421 4.7.0 Not now!\r\n"}) as remote,
        delivering(to(remote)) as (worker, hands),
    ):
        for n in range(300):
            worker.take(message(f"m{n}", "a@b.example", first=n))
        found = await hands.until(300)

        assert {s.outcome for s in found.values()} == {"deferred"}
        assert {s.reply.text for s in found.values()} == {"Not now!"}
        assert remote.connections <= 8


async def test_a_silent_first_host_does_not_hide_the_second(monkeypatch):
    """A best host that takes connections and never speaks costs its share of the time, no more."""
    monkeypatch.setattr(reach, "SHARE_S_MIN", 0.3)
    async with (
        Remote({"GREET": HANG}, host="127.0.0.3") as silent,
        Remote(host="127.0.0.2", port=silent.port) as remote,
    ):
        zone = {("b.example", "MX"): ["10 mx1.b.example.", "20 mx2.b.example."],
                ("mx1.b.example", "A"): ["127.0.0.3"],
                ("mx2.b.example", "A"): ["127.0.0.2"]}  # fmt: skip
        patient = {"connect_s": 0.1, "reply_s": 60.0}
        async with by_dns(zone, remote.port, **patient) as (worker, hands):
            worker.take(message("m1", "a@b.example"))
            found = await hands.until(1, within_s=3)

        assert found[1].outcome == "delivered"
        assert found[1].peer.startswith("mx2.b.example")
        assert silent.connections == 1


async def test_nineteen_dead_hosts_and_one_that_works():
    """All hosts of a site are tried in one attempt, however many are down."""
    async with Remote(host="127.0.0.50") as remote:
        zone = {("b.example", "MX"): [f"{n} mx{n}.b.example." for n in range(31, 51)]}
        zone |= {(f"mx{n}.b.example", "A"): [f"127.0.0.{n}"] for n in range(31, 51)}
        async with by_dns(zone, remote.port) as (worker, hands):
            worker.take(message("m1", "a@b.example"))
            found = await hands.until(1)

        assert found[1].peer == f"mx50.b.example[127.0.0.50]:{remote.port}"


async def test_where_nothing_moves_what_is_in_hand_is_freed(monkeypatch):
    """A host that hangs keeps a few messages waiting, not all that may be in hand."""
    monkeypatch.setattr(schedule, "QUIET_S", 0.2)
    monkeypatch.setattr(worker_module, "LOOK_S", 0.05)
    async with (
        Remote({"MAIL": HANG}) as remote,
        delivering(to(remote), reply_s=60) as (worker, hands),
    ):
        for n in range(100):
            worker.take(message(f"m{n}", "a@b.example", first=n))
        found = await hands.until(100 - schedule.QUIET_WAITING_MAX - schedule.FIRST_MAX)

        assert {s.outcome for s in found.values()} == {"deferred"}
        assert {s.reply.status for s in found.values()} == {"4.4.1"}


async def test_our_own_mistake_in_connecting_leaves_nobody_waiting(monkeypatch):
    """What no one foresaw is logged and defers what waited for it."""

    async def broken(*_, **__):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(reach, "open_session", broken)
    log = Lines()
    async with delivering({"*": "127.0.0.1:9"}, log=log) as (worker, hands):
        worker.take(message("m1", "a@b.example"))
        settle = (await hands.until(1))[1]

    assert (settle.outcome, settle.reply.status) == ("deferred", "4.3.0")
    assert "delivery.failed" in log.events


async def test_eight_bits_for_a_host_of_seven():
    """Nothing is re-encoded, so it fails, clearly; and the next message goes on."""
    says = {"EHLO": b"250-mx.example\r\n250 PIPELINING\r\n"}
    async with Remote(says) as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1, body=b"Gr\xfc\xdfe\r\n"))
        worker.take(message("m2", "a@b.example", first=2))
        found = await hands.until(2)

        assert (found[1].outcome, found[1].reply.status) == ("failed", "5.6.3")
        assert found[2].outcome == "delivered"
        assert remote.connections == 1


async def test_connections_grow_with_the_queue():
    """A long queue gets more connections than a short one, never more than the site may have."""

    async def slow(_=None):
        await asyncio.sleep(0.02)
        return OK["DOT"]

    async with (
        Remote({"DOT": lambda _: slow()}) as remote,
        delivering(to(remote), connections_per_site_max=7) as (worker, hands),
    ):
        worker.take(message("m0", "a@b.example", first=0))
        await hands.until(1)
        assert remote.connections == 1

        for n in range(1, 100):
            worker.take(message(f"m{n}", "a@b.example", first=n))
        await hands.until(100)

        assert remote.connections == 7


async def test_a_dead_site_delays_nobody_else():
    """One sender's backlog to a dead domain is deferred at once; another's mail goes out."""
    async with Remote() as remote:
        route = {"dead.example": "127.0.0.1:1", "*": f"127.0.0.1:{remote.port}"}
        async with delivering(route) as (worker, hands):
            for n in range(500):
                worker.take(message(f"d{n}", "x@dead.example", first=n, sender="a|s|bulk"))
            worker.take(message("m", "a@b.example", first=1000, sender="a|s|other"))
            found = await hands.until(501, within_s=3)

            assert found[1000].outcome == "delivered"
            assert {found[n].outcome for n in range(500)} == {"deferred"}
            assert found[0].reply.status == "4.4.1"


async def test_a_silent_site_costs_one_wait_for_all():
    """A host that takes connections and says nothing defers all that wait there, together."""
    async with (
        Remote({"MAIL": HANG}) as remote,
        delivering(to(remote), reply_s=0.4, connections_per_site_max=1) as (worker, hands),
    ):
        began = time.monotonic()
        for n in range(50):
            worker.take(message(f"m{n}", "a@b.example", first=n))
        found = await hands.until(50, within_s=3)

        assert {s.outcome for s in found.values()} == {"deferred"}
        assert time.monotonic() - began < 2


async def test_a_site_that_came_back_is_found_by_a_probe():
    """After its back-off a site gets one connection; when that is answered, as many as it needs."""
    async with Remote() as remote:
        port = remote.port
    async with delivering({"*": f"127.0.0.1:{port}"}, retry_s=(0.2,)) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1))
        assert (await hands.until(1))[1].outcome == "deferred"
        worker.take(message("m2", "a@b.example", first=2))
        assert (await hands.until(2))[2].outcome == "deferred"
        async with Remote(port=port) as remote:
            await asyncio.sleep(0.12)  # the back-off itself
            worker.take(message("m3", "a@b.example", first=3))
            found = await hands.until(3)

            assert found[3].outcome == "delivered"
            assert remote.connections == 1


async def test_opportunistic_tls(tmp_path):
    """TLS is used where it is offered, whatever the certificate says, and noted."""
    context = server_context(*certificate(tmp_path))
    says = {"EHLO": b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"}
    async with Remote(says, context) as remote, delivering(to(remote), tls=True) as (worker, hands):
        worker.take(message("m1", "a@b.example"))
        settle = (await hands.until(1))[1]

        assert settle.outcome == "delivered"
        assert settle.tls.startswith("TLSv1.3 TLS_")
        assert [c.split(" ")[0] for c in remote.commands[:3]] == ["EHLO", "STARTTLS", "EHLO"]


@pytest.mark.parametrize("answer", [b"220 Go on\r\n", b"220 Go on\r\n250 injected\r\n", HANG, DROP])
async def test_broken_tls_is_not_the_end(answer):
    """Where TLS fails the mail goes in clear on a new connection, or waits: it never fails."""
    says = {"EHLO": b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n", "STARTTLS": answer}
    async with Remote(says) as remote:
        quick = {"connect_s": 0.5, "reply_s": 0.5}
        async with delivering(to(remote), tls=True, **quick) as (worker, hands):
            worker.take(message("m1", "a@b.example"))
            settle = (await hands.until(1))[1]

            garbage = answer == b"220 Go on\r\n"  # then it answers our handshake in plain text
            assert settle.outcome == ("delivered" if garbage else "deferred")
            assert settle.tls == ""
            assert remote.connections == (2 if garbage else 1)


async def test_tls_that_ends_at_the_first_word_inside_has_failed(tmp_path):
    """A host that shakes hands and then hangs up gets the mail in clear."""
    context = server_context(*certificate(tmp_path))
    greetings = []

    def ehlo(line):
        greetings.append(line)
        return DROP if len(greetings) == 2 else b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"

    async with Remote({"EHLO": ehlo}, context) as remote:
        async with delivering(to(remote), tls=True) as (worker, hands):
            worker.take(message("m1", "a@b.example"))
            settle = (await hands.until(1))[1]

        assert (settle.outcome, settle.tls) == ("delivered", "")
        assert remote.connections == 2


async def test_large_bodies_come_from_files(tmp_path):
    """A body beside the spool is read, checked and sent in pieces."""
    body = b"".join(b"%07d\r\n" % n for n in range(300_000))
    path = tmp_path / "body"
    path.write_bytes(body)
    async with Remote() as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", body=body, body_file=str(path)))
        await hands.until(1)

        assert remote.got[0].data == b"X: 1\r\n\r\n" + body


async def test_a_host_that_stops_reading_is_left(tmp_path):
    """A stalled write has a deadline like every other wait."""
    body = b"x" * 998 + b"\r\n"
    body *= 20_000
    path = tmp_path / "body"
    path.write_bytes(body)
    async with (
        Remote({"CONTENT": HANG}) as remote,
        delivering(to(remote), reply_s=0.4, final_reply_s=30) as (worker, hands),
    ):
        worker.take(message("m1", "a@b.example", body=body, body_file=str(path)))
        settle = (await hands.until(1, within_s=4))[1]

        assert settle.outcome == "deferred"


class Drain:
    """A host on a thread of its own that takes all it is given and says yes, or reads no more."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.bytes = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        self._thread.join(10)

    def _run(self):
        peer, _ = self._listener.accept()
        with peer:
            for reply in (
                b"220 mx\r\n",
                b"250 mx\r\n",
                b"250 Ok\r\n",
                b"250 Ok\r\n",
                b"354 Go\r\n",
            ):
                peer.sendall(reply)
                tail = peer.recv(65536) if not reply.startswith(b"354") else b""
            while not tail.endswith(b"\r\n.\r\n"):
                piece = peer.recv(1 << 20)
                if not piece:
                    return
                self.bytes += len(piece)
                tail = (tail + piece)[-5:]
            peer.sendall(b"250 Taken\r\n")


@contextlib.asynccontextmanager
async def stretches():
    """Notes how long the loop works at a stretch: on its own processor time, without the garbage
    of the whole test run, so that only what is ours counts."""
    found = []

    async def watch():
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(0)
            found.append(time.thread_time() - began_s)

    gc.disable()
    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        gc.enable()


async def test_a_large_body_never_holds_the_loop(tmp_path):
    """50 MB leave, and nothing on the loop works at a stretch for more than 50 ms."""
    body = (b"x" * 76 + b"\r\n") * (50 * 1024 * 1024 // 78)
    path = tmp_path / "body"
    path.write_bytes(body)
    one = message("m1", "a@b.example", body=body, body_file=str(path))

    with Drain() as drain:
        route = {"*": f"127.0.0.1:{drain.port}"}
        async with (
            delivering(route, reply_s=30.0) as (worker, hands),
            stretches() as stretches_s,
        ):
            worker.take(one)
            found = await hands.until(1, within_s=30)

    assert found[1].outcome == "delivered"
    assert drain.bytes == len(body) + len(b"X: 1\r\n\r\n.\r\n")
    assert max(stretches_s) < 0.05


async def test_a_large_body_over_tls(tmp_path):
    """What leaves in pieces inside TLS arrives as it was."""
    body = b"".join(b".%07d\r\n" % n for n in range(500_000))
    path = tmp_path / "body"
    path.write_bytes(body)
    context = server_context(*certificate(tmp_path))
    says = {"EHLO": b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"}
    async with Remote(says, context) as remote:
        async with delivering(to(remote), tls=True, reply_s=10, final_reply_s=10) as it:
            worker, hands = it
            worker.take(message("m1", "a@b.example", body=body, body_file=str(path)))
            settle = (await hands.until(1, within_s=10))[1]

        assert settle.tls.startswith("TLSv1.3")
        assert remote.got[0].data == b"X: 1\r\n\r\n" + body


async def test_a_full_hand_is_deferred_without_holding_the_loop():
    """All that waits for a dead site is settled in slices."""
    count = 5000
    async with delivering({"*": "127.0.0.1:1"}) as (worker, hands):
        batch = [message(f"m{n}", "a@b.example", first=n)[0] for n in range(count)]
        worker.take(batch)
        async with stretches() as stretches_s:
            found = await hands.until(count)

    assert {s.outcome for s in found.values()} == {"deferred"}
    assert max(stretches_s) < 0.05


async def test_a_host_that_reads_a_little_now_and_then_is_left(tmp_path, monkeypatch):
    """A large message has a bounded time to leave, however alive its host looks."""
    monkeypatch.setattr(session, "CONTENT_BYTES_S_MIN", 1e9)
    body = b"x" * 998 + b"\r\n"
    body *= 20_000
    path = tmp_path / "body"
    path.write_bytes(body)

    async def talk(reader, writer):
        writer.write(b"220 mx\r\n")
        for reply in (b"250 mx\r\n", b"250 Ok\r\n", b"250 Ok\r\n", b"354 Go\r\n"):
            await reader.readline()
            writer.write(reply)
        with contextlib.suppress(OSError):
            while not left.is_set() and await reader.read(100_000):  # noqa: ASYNC110 - a slow reader, not a wait
                await asyncio.sleep(0.05)
        writer.transport.abort()
        ended.set()

    left, ended = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with delivering({"*": f"127.0.0.1:{port}"}, reply_s=0.5) as (worker, hands):
        began = time.monotonic()
        worker.take(message("m1", "a@b.example", body=body, body_file=str(path)))
        settle = (await hands.until(1, within_s=5))[1]

        assert settle.outcome == "deferred"
        assert time.monotonic() - began < 2
        left.set()
    await asyncio.wait_for(ended.wait(), 5)
    server.close()
    await server.wait_closed()


async def test_only_so_many_large_bodies_at_once(tmp_path, monkeypatch):
    """The next waits until one is given back, and those who gave up waiting cost nobody a turn."""
    monkeypatch.setattr(contents, "FILES_MAX", 2)
    path = tmp_path / "body"
    path.write_bytes(b"Hello\r\n")
    content = message("m", "a@b.example", body=b"Hello\r\n", body_file=str(path))[0].content
    mine = Contents()
    first, second = await mine.take(content), await mine.take(content)
    third, fourth = [asyncio.create_task(mine.take(content)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not third.done()

    third.cancel()
    mine.give_back(first)
    letter = await asyncio.wait_for(fourth, 2)
    assert b"".join([piece async for piece in read(letter)]) == b"X: 1\r\n\r\nHello\r\n"
    mine.give_back(second)
    mine.give_back(letter)


async def read(letter):
    pieces = iter(letter)
    while True:
        await letter.ready()
        piece = next(pieces, None)
        if piece is None:
            return
        yield piece


async def test_a_body_that_changed_after_we_looked_is_never_ended(tmp_path):
    """The dot is sent only when what has left has the right checksum."""
    path = tmp_path / "body"
    path.write_bytes(b"Hello\r\n")
    content = message("m", "a@b.example", body=b"Hello\r\n", body_file=str(path))[0].content
    mine = Contents()
    letter = await mine.take(content)
    path.write_bytes(b"Hullo\r\n")

    with pytest.raises(Unfit, match="checksum"):
        [piece async for piece in read(letter)]
    mine.give_back(letter)


async def test_what_is_not_what_we_accepted_never_leaves(tmp_path):
    """A body with another length or checksum, or none, is deferred with an alarm."""
    path = tmp_path / "body"
    path.write_bytes(b"Hellx\r\n")
    log = Lines()
    async with Remote() as remote, delivering(to(remote), log=log) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1, body_file=str(path)))
        worker.take(message("m2", "a@b.example", first=2, body_file=str(tmp_path / "none")))
        found = await hands.until(2)

        assert {s.outcome for s in found.values()} == {"deferred"}
        assert {s.reply.status for s in found.values()} == {"4.3.0"}
        assert log.events.count("delivery.unfit") == 2
        assert remote.got == []


async def test_a_longer_file_is_found_out(tmp_path):
    """A body that grew is as wrong as one that shrank."""
    path = tmp_path / "body"
    path.write_bytes(b"Hello\r\nmore")
    digest = hashlib.blake2b(b"Hello\r\n", digest_size=16).digest()

    with pytest.raises(Unfit, match="11 bytes, not 7"):
        await Contents().take(Content("m", "", b"", None, str(path), 7, digest))


async def test_what_no_client_may_send_harms_nobody():
    """A message that is our own mistake is deferred, and the next one goes."""
    async with Remote() as remote, delivering(to(remote)) as (worker, hands):
        worker.take(message("m1", "a@b.example", first=1, body=b"bare\nnewline\r\n"))
        worker.take(message("m2", "a@b.example", first=2))
        found = await hands.until(2)

        assert (found[1].outcome, found[1].reply.status) == ("deferred", "4.3.0")
        assert found[2].outcome == "delivered"


async def test_a_lifetime_ends_after_a_failed_attempt():
    """The last attempt is made, and its reply stands in the failure."""
    async with (
        Remote({"RCPT": b"450-4.7.1 Grey\r\n450 4.7.1 listed\r\n"}) as remote,
        delivering(to(remote)) as (worker, hands),
    ):
        worker.take(message("m1", "a@b.example", first=1, age_s=7201.0, lifetime_s=7200))
        worker.take(
            message("m2", "a@b.example", first=2, age_s=7201.0, lifetime_s=7200, may_expire=False)
        )
        found = await hands.until(2)

        assert found[1].outcome == "failed"
        assert found[1].reply.status == "4.4.7"
        assert "450 4.7.1 Grey listed" in found[1].reply.text
        assert "2 hours" in found[1].reply.text
        assert found[2].outcome == "deferred"


async def test_we_do_not_talk_to_ourselves():
    """A route to one of our own listeners is no way."""
    async with Remote() as remote:
        ports = frozenset({remote.port})
        async with delivering(to(remote), own_ports=ports) as (worker, hands):
            worker.take(message("m1", "a@b.example"))
            settle = (await hands.until(1))[1]

            assert (settle.outcome, settle.reply.status) == ("deferred", "4.4.6")
            assert remote.got == []


async def test_a_site_of_another_worker_is_handed_on():
    """With several workers, a recipient goes to the one that owns its site, and stays there."""
    here = bucket_of("b.example")
    hands = Hands(mine=lambda bucket: bucket == here)
    async with Remote() as remote:
        zone = {
            ("b.example", "MX"): ["10 mx.c.example."],
            ("other.example", "MX"): ["10 mx.c.example."],
            ("mx.c.example", "A"): ["127.0.0.1"],
        }
        async with Nameserver(zone) as server:
            names = Resolver((server.address,), Metrics())
            private = {"private_networks": True, "port": remote.port}
            async with delivering({}, names=names, hands=hands, **private) as (worker, hands):
                worker.take(message("m1", "a@b.example", first=1))
                await asyncio.wait_for(hands.passed.wait(), 2)
                worker.take(message("m2", "a@other.example", first=2))  # came by its site
                found = await hands.until(1)
            await names.close()

        assert bucket_of("mx.c.example") != here
        assert hands.handed_on == [(1, "mx.c.example")]
        assert found[2].outcome == "delivered"


async def test_the_operators_hop_is_every_workers():
    """A static route moves nothing between workers."""
    here = bucket_of("b.example")
    hands = Hands(mine=lambda bucket: bucket == here)
    async with Remote() as remote, delivering(to(remote), hands=hands) as (worker, hands):
        worker.take(message("m1", "a@b.example"))

        assert (await hands.until(1))[1].outcome == "delivered"


@contextlib.asynccontextmanager
async def by_dns(zone, port, **changes):
    """A worker that finds its way by a zone of the test's own."""
    async with Nameserver(zone) as server:
        names = Resolver((server.address,), Metrics())
        private = {"private_networks": True, "port": port}
        async with delivering({}, names=names, **private, **changes) as it:
            yield it
        await names.close()


async def test_by_real_dns_to_the_second_host():
    """MX over real DNS: the first host is dead, the second takes it, and is tried first then."""
    async with Remote(host="127.0.0.2") as remote:
        zone = {
            ("b.example", "MX"): ["10 mx1.b.example.", "20 mx2.b.example."],
            ("mx1.b.example", "A"): ["127.0.0.3"],
            ("mx2.b.example", "A"): ["127.0.0.2"],
        }
        async with Nameserver(zone) as server:
            names = Resolver((server.address,), Metrics())
            log = Lines()
            private = {"private_networks": True, "port": remote.port, "idle_s": 0.0}
            async with delivering({}, names=names, log=log, **private) as (worker, hands):
                worker.take(message("m1", "a@b.example", first=1))
                found = await hands.until(1)
                worker.take(message("m2", "a@none.example", first=2, tries=1))
                worker.take(message("m3", "a@b.example", first=3))
                found = await hands.until(3)
            await names.close()

        assert found[1].outcome == found[3].outcome == "delivered"
        assert found[1].peer == f"mx2.b.example[127.0.0.2]:{remote.port}"
        assert found[1].site == "mx1.b.example,mx2.b.example"
        assert log.events.count("delivery.unreached") == 1
        assert (found[2].outcome, found[2].reply.status) == ("failed", "5.1.2")


async def test_few_descriptors_are_shared():
    """More sites than there may be connections: all are served in turn."""
    async with Remote() as remote:
        route = {"*": f"127.0.0.1:{remote.port}"}
        route |= {f"d{n}.example": f"localhost:{remote.port}" for n in range(5)}
        async with delivering(route, connections_max=1, idle_s=5) as (worker, hands):
            for n in range(10):
                name = f"d{n % 5}.example" if n % 2 else "b.example"
                worker.take(message(f"m{n}", f"a@{name}", first=n))
            found = await hands.until(10, within_s=4)

            assert {s.outcome for s in found.values()} == {"delivered"}


async def test_draining_finishes_what_is_being_sent_and_begins_nothing():
    """At the end, who was asked answers; what waits stays in hand, to be handed out again."""
    asked = asyncio.Event()

    async def slow():
        asked.set()
        await asyncio.sleep(0.2)
        return OK["DOT"]

    async with (
        Remote({"DOT": lambda _: slow()}) as remote,
        delivering(to(remote), connections_per_site_max=1) as (worker, hands),
    ):
        for n in range(4):
            worker.take(message(f"m{n}", "a@b.example", first=n))
        await asyncio.wait_for(asked.wait(), 2)
        await worker.drain(2)

        assert [s.outcome for s in hands.settles] == ["delivered"]
        assert len(remote.got) == 1


async def test_draining_waits_for_no_connection_that_is_only_being_opened():
    """A host that does not greet holds up no end; what waits for it stays in hand."""
    async with (
        Remote({"GREET": HANG}) as remote,
        delivering(to(remote), reply_s=30, connect_s=30) as (worker, hands),
    ):
        worker.take(message("m1", "a@b.example"))
        await asyncio.wait_for(remote.called.wait(), 2)
        began = time.monotonic()
        await worker.drain(5)

        assert time.monotonic() - began < 1
        assert hands.settles == []


async def test_a_drain_that_runs_out_says_what_may_come_twice():
    """Cut off before the final reply: noted, and not settled, so it is handed out again."""
    log = Lines()
    async with (
        Remote({"DOT": HANG}) as remote,
        delivering(to(remote), log=log, final_reply_s=30) as (worker, hands),
    ):
        batch = message("m1", "a@b.example")
        worker.take(batch)
        await asyncio.wait_for(remote.taken.wait(), 2)
        await worker.drain(0.1)

        assert log.events.count("delivery.possible_duplicate") == 1
        assert hands.settles == []
        assert [one.doubtful for one in batch] == [True]


async def test_what_cannot_be_recorded_is_given_back_unsent():
    """While its shard cannot commit outcomes nothing more is sent; then all goes on."""
    async with Remote() as remote, delivering(to(remote)) as (worker, hands):
        hands.records = False
        worker.take(message("m1", "a@b.example", "c@b.example"))
        await asyncio.wait_for(hands.passed.wait(), 5)

        assert hands.handed_on == [(1, "b.example"), (2, "b.example")]
        assert hands.settles == []
        assert remote.got == []
        hands.records = True
        worker.take(message("m2", "a@b.example", first=3))
        assert (await hands.until(1))[3].outcome == "delivered"
