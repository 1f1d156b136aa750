"""The judge as those who ask see it: verdicts, levels, deadlines, and what it does in trouble."""

import asyncio
import base64
import threading

import pytest
from tests.judge.serving import HAM, WORKER, Feed, ask, asking, every_scanner, judging

from postweir.identity.sender import Account, Directory, SenderRecord
from postweir.judge.ports import Used
from postweir.mail.envelope import message_id
from postweir.policy.evaluation import Evaluate
from postweir.runtime import clock, frames
from postweir.runtime.log import quiet
from postweir.scan.content import GTUBE
from postweir.scan.finding import Seen

KEY = "acme|sasl|joe@example.com"
SPAM = HAM + GTUBE + b"\r\n"


def limited(messages_1h: int, state: str = "") -> Directory:
    senders = {KEY: SenderRecord(KEY, state, "", "op", 1)} if state else {}
    accounts = {"acme": Account("acme", sender_messages_1h=messages_1h)}
    return Directory(1, accounts, senders=senders)


async def known(judge) -> None:
    async with asyncio.timeout(5):
        while not judge.service.usage_known:  # noqa: ASYNC110 - one turn of the loop does it
            await asyncio.sleep(0)


async def test_the_default_policy_end_to_end(tmp_path):
    """Ham is accepted, spam and programs are refused, with the rule, the policy and the facts."""
    program = (
        b"Content-Type: application/pdf; name=invoice.pdf\r\nContent-Transfer-Encoding: base64\r\n"
        b"\r\n" + base64.encodebytes(b"\x7fELF" + b"\0" * 60)
    )
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        ham = await judges.ask(ask("m1"), 5.0)
        spam = await judges.ask(ask("m2", body=SPAM), 5.0)
        virus = await judges.ask(ask("m3", body=program), 5.0)

        assert (ham.verdict.verb, ham.verdict.policy) == ("accept", judge.evaluator.policy)
        assert (spam.verdict.verb, spam.verdict.rule, spam.verdict.code) == ("refuse", "spam", "SS")
        assert (virus.verdict.rule, virus.verdict.code) == ("attachment-dangerous", "CS")
        kept = frames.unpack(spam.facts, dict)
        assert kept["facts"]["findings.spam"] == 1.0
        assert kept["findings"] == [["content", "spam", "GTUBE", 1.0, "1"]]
        assert judges.policy() == judge.evaluator.policy
        assert judge.service.open_asks == 0


async def test_a_stopped_sender_is_refused(tmp_path):
    """What an operator decided counts."""
    async with judging(tmp_path, directory=limited(10, "stopped")), asking(tmp_path) as judges:
        verdict = (await judges.ask(ask(), 5.0)).verdict

        assert (verdict.verb, verdict.code) == ("refuse", "ESA")


async def test_three_hundred_in_a_minute_from_a_new_sender(tmp_path):
    """The shipped default lets an ordinary newsletter go."""
    async with judging(tmp_path, directory=limited(1000)) as judge, asking(tmp_path) as judges:
        await known(judge)
        answers = await asyncio.gather(*(judges.ask(ask(f"m{i}"), 10.0) for i in range(300)))

        assert {a.verdict.verb for a in answers} == {"accept"}
        level = judge.counters.sender(KEY, judge.service.levels.now_s())
        assert level.messages_1m == 300


async def test_above_its_limit_a_sender_is_put_off_alone(tmp_path):
    """Deferred, with a time; trying again counts nothing; another sender is not touched."""
    async with judging(tmp_path, directory=limited(3)) as judge, asking(tmp_path) as judges:
        await known(judge)
        answers = [await judges.ask(ask(f"m{i}"), 5.0) for i in range(6)]
        other = await judges.ask(ask("n1", identity="kim@example.com"), 5.0)

        assert [a.verdict.verb for a in answers] == ["accept"] * 3 + ["defer"] * 3
        assert (answers[3].verdict.code, answers[3].verdict.retry_after_s) == ("STF", 900)
        assert other.verdict.verb == "accept"
        level = judge.counters.sender(KEY, judge.service.levels.now_s())
        assert level.messages_1h == 3


async def test_uncount_and_repeat(tmp_path):
    """One id counts once; taken off by our own fault, it frees its place."""
    async with judging(tmp_path, directory=limited(2)) as judge, asking(tmp_path) as judges:
        await known(judge)
        for _ in range(4):
            assert (await judges.ask(ask("m1"), 5.0)).verdict.verb == "accept"
        assert (await judges.ask(ask("m2"), 5.0)).verdict.verb == "accept"
        assert (await judges.ask(ask("m3"), 5.0)).verdict.verb == "defer"
        judges.uncount("acme", "m1")

        assert (await judges.ask(ask("m4"), 5.0)).verdict.verb == "accept"


THROTTLED = """
[[throttle]]
id = "slow"
key = "sender"
of = "recipients"
rate = 1
per_s = 600
burst = 3

[[rule]]
id = "slow"
when = "throttle.slow > 0"
then = { verb = "throttle", throttle = "slow", code = "STF", text = "Too many recipients." }
"""


async def test_a_throttle_costs_what_is_taken(tmp_path):
    """Put off, a message costs nothing, nor does a repeat; what we failed to take is given back."""
    two = ("a@x.example", "b@x.example")
    async with judging(tmp_path, policy=THROTTLED) as judge, asking(tmp_path) as judges:
        assert (await judges.ask(ask("m1", recipients=two), 5.0)).verdict.verb == "accept"
        for message in ("m2", "m3"):
            answer = await judges.ask(ask(message, recipients=two), 5.0)
            assert answer.verdict.verb == "throttle"
            assert 550 < frames.unpack(answer.facts, dict)["facts"]["throttle.slow"] <= 600
        assert (await judges.ask(ask("m1", recipients=two), 5.0)).verdict.verb == "accept"
        assert (await judges.ask(ask("m4"), 5.0)).verdict.verb == "accept"
        other = ask("n1", identity="kim@example.com", recipients=two)
        assert (await judges.ask(other, 5.0)).verdict.verb == "accept"
        judges.uncount("acme", "m1")

        assert (await judges.ask(ask("m5", recipients=two), 5.0)).verdict.verb == "accept"
        level = judge.counters.sender(KEY, judge.service.levels.now_s())
        assert level.recipients_1h == 3


async def test_levels_after_a_restart(tmp_path):
    """Until the shards have told, levels are not known and limit nothing; then they are."""
    now_us = clock.wall_us()
    feed = Feed([Used("accepted", now_us - i, "acme", KEY, f"m{i}", 1) for i in range(5)], down=2)
    async with judging(tmp_path, directory=limited(3), feed=feed) as judge:
        assert not judge.service.usage_known
        async with asking(tmp_path) as judges:
            first = await judges.ask(ask("n1"), 5.0)
            assert first.verdict.verb == "accept"
            async with asyncio.timeout(10):
                while not judge.service.usage_known:  # noqa: ASYNC110 - it asks again by itself
                    await asyncio.sleep(0.01)

            assert (await judges.ask(ask("n2"), 5.0)).verdict.verb == "defer"
            assert (await judges.ask(ask("m1"), 5.0)).verdict.verb == "defer"  # a repeat is no new


async def test_a_late_message_counts_when_it_came(tmp_path):
    """Judged half an hour later, it is in the hour but not in the minute."""
    born = message_id(at_ms=clock.wall_us() // 1000 - 1_800_000, incarnation=1, counter=1)
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        answer = await judges.ask(ask(born, late=True), 5.0)

        assert answer.verdict.verb == "accept"
        level = judge.counters.sender(KEY, judge.service.levels.now_s())
        assert (level.messages_1m, level.messages_1h) == (0, 1)


async def test_past_its_deadline_an_ask_is_neither_judged_nor_counted(tmp_path):
    """Nobody waits for it any more."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        answer = await judges.ask(ask("m1", wait_s=-1.0), 5.0)

        assert (answer.verdict, answer.reason) == (None, "late")
        assert not judge.counters.counted("m1")


async def test_without_an_engine_the_baseline_objects_or_it_is_pending(tmp_path):
    """Spam for sure is refused with every worker dead; the rest waits."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        judge.evaluator.dead = True
        ham = await judges.ask(ask("m1"), 5.0)
        spam = await judges.ask(ask("m2", body=SPAM), 5.0)

        assert (ham.verdict, ham.reason) == (None, "engine")
        assert (spam.verdict.verb, spam.verdict.policy) == ("refuse", "baseline")


async def test_with_the_engine_off_the_baseline_objects_or_it_is_pending(tmp_path):
    """An operator wants no engine: nobody asks one, and what is recorded says so."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        judge.evaluator.mask(["spam"], True)
        ham = await judges.ask(ask("m1"), 5.0)
        spam = await judges.ask(ask("m2", body=SPAM), 5.0)

        assert (ham.verdict, ham.reason) == (None, "off")
        assert (spam.verdict.verb, spam.verdict.policy) == ("refuse", "baseline")
        kept = frames.unpack(spam.facts, dict)
        assert (kept["engine"], kept["killed"]) == ("off", ["spam"])
        judge.evaluator.mask([], False)
        again = await judges.ask(ask("m3"), 5.0)
        assert again.verdict.verb == "accept"
        assert not frames.unpack(again.facts, dict).keys() & {"engine", "killed", "errors"}


OWN = """
[limits]
few = 1
[[set]]
id = "partners"
of = "recipient_domains"
items = ["example.org"]
[[pattern]]
id = "greeting"
of = "subject"
pattern = "(?i)^hi$"
[[throttle]]
id = "slow"
key = "sender"
of = "messages"
rate = 1
per_s = 3600
burst = 1
[[rule]]
id = "tried"
when = "pattern.greeting && set.partners && envelope.recipients == limit.few"
then = { verb = "refuse", code = "SS", text = "No." }
mode = "shadow"
[[rule]]
id = "slower"
when = "throttle.slow > 0 && set.partners"
then = { verb = "throttle", throttle = "slow", code = "STF", text = "Slower." }
"""


async def test_a_verdict_can_be_repeated_from_what_is_recorded(tmp_path):
    """Facts, what was derived and the throttle's level give the same verdict, byte for byte."""
    async with judging(tmp_path, policy=OWN) as judge, asking(tmp_path) as judges:
        asked = [await judges.ask(ask(f"m{i}"), 5.0) for i in range(3)]

        assert [a.verdict.verb for a in asked] == ["accept", "throttle", "throttle"]
        assert asked[1].verdict.retry_after_s > 3000
        for each in asked:
            kept = frames.unpack(each.facts, dict)
            assert kept["derived"] == {"set.partners": True, "pattern.greeting": True}
            assert kept["shadow"] == ["tried"]
            assert kept["policy"] == judge.evaluator.policy
            again = judge.evaluator._made.evaluate(Evaluate(1, kept["facts"] | kept["derived"]))
            assert frames.pack(again.verdict) == frames.pack(each.verdict)
            assert (again.shadow, again.errors) == (["tried"], [])


async def test_poison_is_held(tmp_path):
    """A message that has cost two workers costs no third."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        judge.evaluator.poisonous.add("m1")

        verdict = (await judges.ask(ask("m1"), 5.0)).verdict
        assert (verdict.verb, verdict.rule) == ("hold", "poison")


async def test_bodies_in_files(tmp_path):
    """A large message is judged by its file; one whose file is gone stays pending."""
    path = tmp_path / "body"
    path.write_bytes(HAM + b"x" * 100_000 + b"\r\n" + GTUBE)
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        found = await judges.ask(ask("m1", body=None, body_file=str(path)), 5.0)
        gone = await judges.ask(ask("m2", body=None, body_file=str(tmp_path / "no")), 5.0)
        nothing = await judges.ask(ask("m3", body=None), 5.0)

        assert found.verdict.rule == "spam"
        assert (gone.verdict, gone.reason) == (None, "gone")
        assert (nothing.verdict, nothing.reason) == (None, "gone")
        assert judge.service.open_asks == 0


async def test_a_broken_scanner_is_a_fact(tmp_path):
    """`findings.unavailable` says it, and a rule may act on it."""

    class Broken:
        name, version, instant, facts = "broken", "1", True, {}

        def scan(self, message):
            raise ValueError("no")

    policy = """
    [[rule]]
    id = "blind"
    when = "findings.unavailable > 0"
    then = { verb = "hold" }
    """
    async with (
        judging(tmp_path, scanners=[Broken()], policy=policy),
        asking(tmp_path) as judges,
    ):
        assert (await judges.ask(ask(), 5.0)).verdict.rule == "blind"


async def test_a_flood_is_turned_away_and_life_shown(tmp_path):
    """Asks of one account beyond its bound are pending at once, another's are still taken."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        judge.evaluator.held = []
        tasks = [
            asyncio.create_task(judges.ask(ask(f"m{i}", wait_s=60), 60.0)) for i in range(6000)
        ]
        async with asyncio.timeout(30):
            while sum(t.done() for t in tasks) < 1000:  # noqa: ASYNC110 - frames are on their way
                await asyncio.sleep(0.01)

        assert {t.result().reason for t in tasks if t.done()} == {"busy"}
        assert judges.reason("acme") == ""  # heard all the while
        assert judge.service.open_asks <= 5000
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_flood_of_one_account_waits_behind_itself(tmp_path):
    """Two thousand asks come first; the one of another account is answered among the first."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        answered: list[str] = []

        async def one(message: str, account: str) -> None:
            answer = await judges.ask(ask(message, account=account, wait_s=60), 60.0)
            assert answer.verdict is not None, answer
            answered.append(account)

        flood = [asyncio.create_task(one(f"m{i}", "acme")) for i in range(2000)]
        await asyncio.sleep(0)
        await one("other", "quiet")

        assert len(answered) < 1000
        await asyncio.gather(*flood)
        assert judge.service.open_asks == 0


async def test_reading_back_an_hour_holds_up_nobody(tmp_path):
    """Fifty thousand messages counted before: asks are answered meanwhile, and then all count."""
    now_us = clock.wall_us()
    feed = Feed([Used("accepted", now_us - i, "acme", KEY, f"m{i}", 1) for i in range(50_000)])
    async with judging(tmp_path, feed=feed) as judge, asking(tmp_path) as judges:
        lately = [
            await judges.ask(ask(f"n{i}", account="b"), 5.0)
            for i in range(5)
            if not judge.service.usage_known
        ]
        assert lately, "it was read back in one step"
        assert all(a.verdict is not None for a in lately)
        async with asyncio.timeout(30):
            while not judge.service.usage_known:  # noqa: ASYNC110 - it goes on by itself
                await asyncio.sleep(0.01)

        assert judge.counters.sender(KEY, judge.service.levels.now_s()).messages_1h == 50_000


async def test_what_could_not_be_looked_at_in_time_is_pending(tmp_path):
    """A scanner that is stuck lets nothing through unseen; asked later, it is judged."""
    path = tmp_path / "body"
    path.write_bytes(HAM + b"x" * 100_000)
    stuck = Stuck()
    async with (
        judging(tmp_path, scanners=[*every_scanner(quiet()), stuck], scan_s=0.02) as judge,
        asking(tmp_path) as judges,
    ):
        first = await judges.ask(ask("m1", body=None, body_file=str(path)), 5.0)
        small = await judges.ask(ask("m2"), 5.0)

        assert (first.verdict, first.reason) == (None, "scan")
        assert judge.counters.counted("m1")
        assert (small.verdict, small.reason) == (None, "scan")
        stuck.let_go.set()
        late = await judges.ask(ask("m1", body=None, body_file=str(path), late=True), 5.0)
        assert late.verdict.verb == "accept"


class Stuck:
    """A scanner that is stuck until it is let go."""

    name, version, instant, facts = "stuck", "1", False, {}

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def scan(self, message):
        self.let_go.wait(10)
        return Seen()


@pytest.mark.parametrize("body", [b"", b"\x00" * 1000, b"\r\n\r\n", b"From\xff: \xfe\r\n\r\n"])
async def test_any_message_has_an_answer(tmp_path, body):
    """Bytes that are hardly mail are judged like all others."""
    async with judging(tmp_path) as judge, asking(tmp_path) as judges:
        assert (await judges.ask(ask("m1", body=body), 5.0)).verdict is not None
        assert judge.service.open_asks == 0


@pytest.mark.real
async def test_a_stall_in_the_engine_costs_one_message(tmp_path):
    """With real workers: the one that spins is pending, then held; all others are in time."""
    from tests.judge.test_judge_engine import faulty

    bad = b"Subject: x\r\n\r\n" + b"y" * (666 - 14)
    async with (
        judging(tmp_path, command=faulty("spin"), evaluate_s=0.1),
        asking(tmp_path) as judges,
    ):
        poison, *rest = await asyncio.gather(
            judges.ask(ask("bad", body=bad), 10.0),
            *(judges.ask(ask(f"m{i}"), 10.0) for i in range(30)),
        )
        assert poison.verdict is None
        assert poison.reason in ("engine", "loading")  # a spare that is not ready yet loads
        assert {a.verdict.verb for a in rest} == {"accept"}
        held = None
        async with asyncio.timeout(60):
            while held is None:  # on a starved machine a death may not be blamed on it
                held = (await judges.ask(ask("bad", body=bad, late=True), 10.0)).verdict
        assert (held.verb, held.rule) == ("hold", "poison")


@pytest.mark.real
async def test_the_shipped_policy_in_a_real_worker(tmp_path):
    """The same verdicts as in this process."""
    async with judging(tmp_path, command=WORKER), asking(tmp_path) as judges:
        assert (await judges.ask(ask("m1"), 10.0)).verdict.verb == "accept"
        assert (await judges.ask(ask("m2", body=SPAM), 10.0)).verdict.rule == "spam"
