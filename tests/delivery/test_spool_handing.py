"""Delivery's side of the shards, against shards that we play over real sockets."""

import asyncio
import contextlib
import hashlib
import itertools
from collections import Counter

import pytest

from postweir.mail.reply import Reply
from postweir.runtime import link
from postweir.runtime.log import quiet
from postweir.spool import handing
from postweir.spool.handing import Handing
from postweir.spool.ports import (
    BUCKETS,
    Content,
    Credit,
    Health,
    Hello,
    Out,
    Settle,
    Settled,
    ShardFrame,
    Sited,
)
from postweir.spool.states import bucket_of

BODY = b"Hello\r\n"


def content(message):
    check = hashlib.blake2b(BODY, digest_size=16).digest()
    return Content(message, "from@here.example", b"", BODY, None, len(BODY), check)


def out(recipient, *, attempt=1, message="m", address="a@b.example"):
    return Out(recipient, attempt, message, "a|s|x", address, 0, 0.0, 0, 1000)


def settle(one, outcome="delivered"):
    return Settle(one.out.recipient, one.out.attempt, 0, outcome, None, Reply(250, "", "Ok"), "",
                  "", "")  # fmt: skip


class Shard:
    """One shard: notes what is said, and spends credit honestly."""

    def __init__(self, run, number=1):
        self._path = run / f"shard-{number}.sock"
        self.hellos, self.settles, self.sited = [], [], []
        self.credit = Counter()
        self.granted_max = 0
        self._links = []
        self._changed = asyncio.Event()

    async def open(self):
        self._server = await link.serve(
            self._path, ShardFrame, self._links.append, self._heard, lambda _: None
        )

    async def close(self):
        self._server.close()
        for each in self._links:
            each.abort()
        await asyncio.sleep(0)

    def _heard(self, _, frames):
        for frame in frames:
            match frame:
                case Hello():
                    self.hellos.append(frame)
                    self.credit.clear()
                case Credit() if frame.more < 0:
                    back = min(-frame.more, self.credit[frame.bucket])
                    self.credit[frame.bucket] -= back
                    self._links[-1].send(Credit(frame.bucket, -back))
                case Credit():
                    self.credit[frame.bucket] += frame.more
                case Settle():
                    self.settles.append(frame)
                case Sited():
                    self.sited.append(frame)
        self.granted_max = max(self.granted_max, self.credit.total())
        self._changed.set()

    def say(self, *frames):
        for frame in frames:
            if isinstance(frame, Out):
                self.credit[bucket_of(frame.address.partition("@")[2])] -= 1
            self._links[-1].send(frame)

    def hang_up(self):
        self._links[-1].abort()

    async def until(self, holds, within_s=3.0):
        async with asyncio.timeout(within_s):
            while not holds():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.01)


@contextlib.asynccontextmanager
async def playing(tmp_path, *, count=1, in_hand_max=2000, index=1, of=1):
    shards = [Shard(tmp_path, k) for k in range(1, count + 1)]
    for shard in shards:
        await shard.open()
    got = []
    hands = Handing(
        tmp_path, count=count, hello=lambda: Hello(1, "delivery", index, of, 7, "hash"),
        in_hand_max=in_hand_max, on_handed=got.extend, log=quiet(),
    )  # fmt: skip
    hands.start()
    try:
        for shard in shards:
            await shard.until(lambda shard=shard: shard.credit)
        yield hands, got, *shards
    finally:
        await hands.close()
        for shard in shards:
            await shard.close()


async def test_a_recipient_from_hand_to_settled(tmp_path):
    """Handed out with its content, settled, confirmed, forgotten."""
    async with playing(tmp_path) as (hands, got, shard):
        assert (shard.hellos[0].process, shard.hellos[0].incarnation) == ("delivery", 7)
        shard.say(Health("hash", True, "", 1, 0), content("m"), out(1), out(2))
        await shard.until(lambda: len(got) == 2)
        assert got[0].content.body == BODY
        hands.settle(got[0], settle(got[0]))
        await shard.until(lambda: shard.settles)
        assert (hands.in_hand, hands.unsettled) == (2, 1)

        shard.say(Settled([(1, 1)]))
        await shard.until(lambda: not hands.unsettled)
        assert hands.in_hand == 1
        shard.say(out(3))  # the content is still ours, for the second
        await shard.until(lambda: len(got) == 3)


async def test_reconnecting_tells_what_is_in_hand_and_owed(tmp_path):
    """A shard that comes back hears what we have, gets each outcome again, and grants anew."""
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(content("m"), out(1), out(2), out(3))
        await shard.until(lambda: len(got) == 3)
        hands.settle(got[0], settle(got[0]))
        await shard.until(lambda: len(shard.settles) == 1)
        await shard.close()  # the Settled is lost with it
        hands.settle(got[1], settle(got[1]))  # and this one is never heard
        await shard.open()
        await shard.until(lambda: len(shard.hellos) == 2)

        hello = shard.hellos[1]
        assert hello.in_hand == [(3, 1)]
        assert [s.recipient for s in hello.unsettled] == [1, 2]
        shard.say(Settled([(1, 1), (2, 1)]))
        await asyncio.wait_for(hands.confirmed(), 2)
        assert hands.in_hand == 1
        await shard.until(lambda: shard.credit[bucket_of("b.example")] > 0)


async def test_an_outcome_is_said_again_until_it_is_confirmed(tmp_path, monkeypatch):
    """On a living connection too, should the shard have overlooked it."""
    monkeypatch.setattr(handing, "REPEAT_S", 0.05)
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(content("m"), out(1))
        await shard.until(lambda: got)
        hands.settle(got[0], settle(got[0]))

        await shard.until(lambda: len(shard.settles) >= 3)
        assert len({(s.recipient, s.attempt) for s in shard.settles}) == 1


async def test_many_outcomes_fit_a_frame(tmp_path, monkeypatch):
    """More than a Hello may carry are named in hand, and follow one by one."""
    monkeypatch.setattr(handing, "UNSETTLED_IN_HELLO_MAX", 2)
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(content("m"), *(out(n) for n in range(5)))
        await shard.until(lambda: len(got) == 5)
        await shard.close()
        for one in got:
            hands.settle(one, settle(one))
        await shard.open()
        await shard.until(lambda: len(shard.settles) == 3)

        hello = shard.hellos[1]
        assert [s.recipient for s in hello.unsettled] == [0, 1]
        assert hello.in_hand == [(2, 1), (3, 1), (4, 1)]


async def test_handed_out_again_while_in_hand(tmp_path):
    """One attempt goes on, under the new number: never two at once."""
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(content("m"), out(1), out(2))
        await shard.until(lambda: len(got) == 2)
        hands.settle(got[1], settle(got[1]))
        shard.say(content("m"), out(1, attempt=2), out(2, attempt=2))
        await shard.until(lambda: len(shard.settles) == 2)
        hands.settle(got[0], settle(got[0]))
        await shard.until(lambda: len(shard.settles) == 3)

        assert len(got) == 2
        assert [(s.recipient, s.attempt) for s in shard.settles] == [(2, 1), (2, 2), (1, 2)]


async def test_a_recipient_without_content_ends_the_connection(tmp_path):
    """Such a shard is broken: it gets a new Hello, and nobody is in hand for nothing."""
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(out(1))
        await shard.until(lambda: len(shard.hellos) == 2)

        assert (got, hands.in_hand) == ([], 0)


async def test_each_worker_grants_for_its_own_buckets(tmp_path):
    """Worker 2 of 3 has every third bucket."""
    async with playing(tmp_path, index=2, of=3) as (hands, _, shard):
        await shard.until(lambda: len(shard.credit) == len(range(1, BUCKETS, 3)))

        assert all(bucket % 3 == 1 for bucket in shard.credit)
        assert hands.is_mine(1)
        assert not hands.is_mine(2)


async def test_credit_is_taken_of_the_bucket_that_is_named(tmp_path):
    """A recipient that was moved by its site took its site's credit, not its domain's."""
    async with playing(tmp_path) as (_, got, shard):
        here = bucket_of("b.example")
        moved = (here + 1) % BUCKETS
        count = shard.credit[moved]
        shard.credit[moved] = shard.credit[here] = 0
        one = [Out(n, 1, "m", "a|s|x", "a@b.example", 0, 0.0, 0, 1000, bucket=moved)
               for n in range(count)]  # fmt: skip
        shard.say(content("m"), *one)
        await shard.until(lambda: len(got) == count)

        await shard.until(lambda: shard.credit[moved] > 0)


async def test_handing_on_to_the_sites_worker(tmp_path):
    """It is out of hand at once; the shard is told the site."""
    async with playing(tmp_path, index=1 + bucket_of("b.example") % 2, of=2) as it:
        hands, got, shard = it
        shard.say(content("m"), out(1))
        await shard.until(lambda: got)
        hands.hand_on(got[0], "mx.example")
        await shard.until(lambda: shard.sited)

        assert shard.sited == [Sited(1, 1, "mx.example")]
        assert hands.in_hand == 0


@pytest.mark.parametrize("in_hand_max", [64, 300, 2000])
async def test_in_hand_and_promised_are_bounded(tmp_path, in_hand_max):
    """However fast a shard hands out, hand and credit together stay within the bound."""
    bound = max(in_hand_max, 2 * BUCKETS)  # one for each bucket, or some would never move
    async with playing(tmp_path, count=2, in_hand_max=in_hand_max) as (hands, _, *shards):
        domains = [f"d{n}.example" for n in range(300)]
        number = 0
        for _ in range(60):
            for shard in shards:
                frames = [content("m")]
                spare = Counter(shard.credit)
                for domain in domains:
                    for _ in range(spare[bucket_of(domain)]):
                        number += 1
                        spare[bucket_of(domain)] -= 1
                        frames.append(out(number, address=f"a@{domain}"))
                shard.say(*frames)
            await asyncio.sleep(0.002)
            assert hands.in_hand + sum(s.credit.total() for s in shards) <= bound

        assert hands.in_hand >= min(in_hand_max, bound) * 0.9


async def test_a_hot_bucket_gets_hundreds_but_not_all(tmp_path):
    """One busy domain grows to a quarter; a quiet one still gets its share at once."""
    async with playing(tmp_path, in_hand_max=2000) as (hands, got, shard):
        hot = bucket_of("hot.example")
        first = shard.credit[hot]
        number = 0
        for _ in range(100):
            frames = [content("m")]
            for _ in range(shard.credit[hot]):
                number += 1
                frames.append(out(number, address="a@hot.example"))
            shard.say(*frames)
            await asyncio.sleep(0.002)

        assert first <= 8
        assert hands.in_hand == 500
        assert shard.credit[hot] == 0
        assert all(shard.credit[b] >= 1 for b in range(BUCKETS) if b != hot)

        for one in list(got):
            hands.settle(one, settle(one))
        await shard.until(lambda: len(shard.settles) == 500)
        shard.say(Settled([(one.out.recipient, 1) for one in got]))
        await shard.until(lambda: not hands.in_hand)
        await shard.until(lambda: shard.credit[hot] >= 1)


async def test_the_starved_are_fed_in_turn(tmp_path):
    """When the pool was empty and something comes free, the others get it."""
    async with playing(tmp_path, in_hand_max=200) as (hands, got, shard):
        domains = {bucket_of(f"d{n}.example"): f"d{n}.example" for n in range(1000)}
        number = 0
        for _ in range(30):
            frames = [content("m")]
            for bucket, credit in list(shard.credit.items()):
                for _ in range(credit):
                    number += 1
                    frames.append(out(number, address=f"a@{domains[bucket]}"))
            shard.say(*frames)
            await asyncio.sleep(0.002)
        assert shard.credit.total() == 0
        full = hands.in_hand
        done = got[:50]
        for one in done:
            hands.settle(one, settle(one))
        shard.say(Settled([(one.out.recipient, 1) for one in done]))
        await shard.until(lambda: hands.in_hand == full - 50)
        await shard.until(lambda: shard.credit.total() == 50)


async def test_credit_that_lies_unused_is_had_back(tmp_path, monkeypatch):
    """After a burst to many buckets the one that still has mail gets more than its own share."""
    monkeypatch.setattr(handing, "RECALL_S", 0.05)
    async with playing(tmp_path, in_hand_max=300) as (hands, got, shard):
        domains = {bucket_of(f"d{n}.example"): f"d{n}.example" for n in range(1000)}
        numbers = itertools.count(1)

        def spend(buckets):
            frames = [content("m")]
            for bucket in buckets:
                frames += [
                    out(next(numbers), address=f"a@{domains[bucket]}")
                    for _ in range(shard.credit[bucket])
                ]
            shard.say(*frames)

        for _ in range(30):
            spend(range(BUCKETS))
            await asyncio.sleep(0.002)
        for one in got:
            hands.settle(one, settle(one))
        shard.say(Settled([(one.out.recipient, 1) for one in got]))
        await shard.until(lambda: not hands.in_hand)
        await shard.until(lambda: shard.credit.total() > 200)
        async with asyncio.timeout(3):
            while hands.in_hand < 70:
                spend([0])
                await asyncio.sleep(0.01)
                assert hands.in_hand + shard.credit.total() <= 300

        assert all(shard.credit[b] >= 1 for b in range(1, BUCKETS))


async def test_a_smaller_bound_is_kept_from_then_on(tmp_path):
    """After a reload nothing more is granted until hand and credit are below the new bound."""
    async with playing(tmp_path, in_hand_max=2000) as (hands, got, shard):
        hands.bound(64)
        hot = bucket_of("hot.example")
        before = shard.credit.total()
        count = shard.credit[hot]
        shard.say(content("m"), *(out(n, address="a@hot.example") for n in range(count)))
        await shard.until(lambda: len(got) == count)
        await asyncio.sleep(0.01)

        assert shard.credit.total() <= before - count
        assert shard.credit[hot] == 0
        await shard.until(lambda: shard.credit.total() <= 64)  # the rest is asked back


async def test_stopping_grants_nothing_more(tmp_path):
    """A draining worker takes what was on its way, and no more."""
    async with playing(tmp_path) as (hands, got, shard):
        hands.stop()
        bucket = bucket_of("b.example")
        count = shard.credit[bucket]
        shard.say(content("m"), *(out(n) for n in range(count)))
        await shard.until(lambda: len(got) == count)
        await asyncio.sleep(0.01)

        assert shard.credit[bucket] == 0


async def test_at_the_end_what_no_host_can_have_is_given_back(tmp_path):
    """Not what is settled, nor what a host may have: that is for the shard to mark."""
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(content("m"), out(1), out(2), out(3))
        await shard.until(lambda: len(got) == 3)
        hands.settle(got[0], settle(got[0]))
        got[1].doubtful = True
        hands.stop()
        await hands.close()
        await shard.until(lambda: shard.sited)

        assert [(s.recipient, s.attempt, s.site) for s in shard.sited] == [(3, 1, "b.example")]


async def test_much_is_said_before_a_line_is_closed(tmp_path):
    """More than a socket holds at once: all of it arrives before the end."""
    async with playing(tmp_path, in_hand_max=100_000) as (hands, got, shard):
        shard.say(content("m"), *(out(n) for n in range(20_000)))
        await shard.until(lambda: len(got) == 20_000)
        hands.stop()
        await hands.close()

        await shard.until(lambda: len(shard.sited) == 20_000)


async def test_a_shard_that_cannot_record_gets_no_more_outcomes(tmp_path):
    """By its word, and by its silence: what it handed out would be sent again."""
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(Health("", True, "", 1, 0), content("m"), out(1))
        await shard.until(lambda: got)
        assert hands.may_send(got[0])
        shard.say(Health("", False, "full", 0, 0, records=False))
        await shard.until(lambda: not hands.may_send(got[0]))
        shard.say(Health("", True, "", 1, 0))
        await shard.until(lambda: hands.may_send(got[0]))


async def test_a_shard_that_is_gone_gets_no_more_outcomes(tmp_path, monkeypatch):
    """After a moment, in which one that was killed is back."""
    monkeypatch.setattr(handing, "UNHEARD_S", 0.3)
    async with playing(tmp_path) as (hands, got, shard):
        shard.say(Health("", True, "", 1, 0), content("m"), out(1))
        await shard.until(lambda: got)
        await shard.close()
        assert hands.may_send(got[0])
        await shard.until(lambda: not hands.may_send(got[0]))
        await shard.open()
        await shard.until(lambda: hands.may_send(got[0]))
