"""What becomes of a message: each reply, and what is left behind."""

import asyncio
import hashlib
import os
import threading

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tests.edge.stand import ACCEPT, stand, until

from postweir.edge import bodies, intake
from postweir.identity.sender import Account
from postweir.judge.ports import Asked
from postweir.policy.verdict import Verdict

SMALL = b"Subject: hi\r\nX-AuthUser: joe@Customer.example\r\n\r\nHello.\r\n"
LARGE = b"Subject: large\r\nX-AuthUser: joe\r\n\r\n" + b"line\r\n" * 40_000


async def test_a_message_is_promised(tmp_path):
    """250 names the message; the shard has it whole, with sender, verdict, facts and trace."""
    async with stand(tmp_path) as on:
        client = await on.login()
        said = await client.send(SMALL, "kim@fine.example", "lee@grey.example")
        await client.hang_up()

        accept = on.shards.accepted[0]
        assert said == f"250 2.0.0 Ok: queued as {accept.message}"
        assert accept.body == b"Subject: hi\r\n\r\nHello.\r\n"
        assert accept.length == len(accept.body)
        assert accept.check == hashlib.blake2b(accept.body, digest_size=16).digest()
        assert accept.sender.key == "acme|x-authuser|joe@customer.example"
        assert accept.envelope.recipients == ("kim@fine.example", "lee@grey.example")
        assert accept.envelope.mail_from == "joe@customer.example"
        assert (accept.verdict, accept.facts) == (ACCEPT, b"facts")
        assert accept.added.startswith(b"Received: from mail.customer.example ([127.0.0.1])")
        assert f"X-Postweir-Id: {accept.message}\r\n".encode() in accept.added
        assert b"X-Postweir-Loop: relay.test" in accept.added
        assert b"joe@" not in accept.added
        assert on.judge.bodies == [accept.body]
        assert on.judge.asks[0].sender == accept.sender
        assert on.files() == []


@pytest.mark.parametrize(
    ("verdict", "code", "words"),
    [
        (Verdict("refuse", code="SS", text="Looks like spam."), "550 5.7.1 [SS] Looks like spam.",
         "https://relay.example.net/help/SS"),
        (Verdict("defer", code="STF", text="Too many.", retry_after_s=900),
         "450 4.7.1 [STF] Too many.", "Retry in 900 s."),
        (Verdict("throttle", code="STF", text="Too fast.", retry_after_s=61),
         "450 4.7.1 [STF] Too fast. Retry in 61 s. ref=", "https://relay.example.net/help/STF"),
        (Verdict("throttle"), "450 4.7.1 Not accepted by policy.", "Retry in 300 s."),
        (Verdict("refuse", text="two\r\nlines"), "550 5.7.1 two lines ref=", "ref="),
    ],
)  # fmt: skip
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_a_verdict_refuses(tmp_path, verdict, code, words, content):
    """A refusal has code, sentence, name and link; it is on record, and no file stays."""
    async with stand(tmp_path) as on:
        on.judge.asked = Asked(verdict, facts=b"f")
        client = await on.login()
        said = await client.send(content)
        await client.hang_up()
        await on.quiet()

        assert said.startswith(code)
        assert words in said
        refusal = on.shards.refused[0]
        assert f"ref={refusal.message}" in said
        assert (refusal.stage, refusal.verdict, refusal.facts) == ("verdict", verdict, b"f")
        assert str(refusal.reply) == said
        assert on.shards.accepted == []
        assert on.files() == []


@pytest.mark.parametrize("verb", ["tag", "route", "hold"])
async def test_verdicts_that_take_mail(tmp_path, verb):
    """What is held or routed is accepted, with its verdict."""
    async with stand(tmp_path) as on:
        on.judge.asked = Asked(Verdict(verb))
        client = await on.login()

        assert (await client.send(SMALL))[:3] == "250"
        assert on.shards.accepted[0].verdict == Verdict(verb)
        await client.hang_up()


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("X-Class: bulk", b"X-Class: bulk\r\n"),
        ("X-Class: bulk\r\nBcc: eve@evil.example", b""),
        ("X-Class: bulk\r\n\r\nAnother body", b""),
        ("no field", b""),
        ("", b""),
    ],
)
async def test_a_tag_is_put_before_the_message(tmp_path, header, line):
    """Behind our own fields; what would be more or less than one field is left out."""
    async with stand(tmp_path) as on:
        verdict = on.judge.asked = Asked(Verdict("tag", header=header))
        client = await on.login()
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()

        (accept,) = on.shards.accepted
        before, trace, rest = accept.added.partition(b"X-Postweir-Loop: relay.test")
        assert before and trace  # noqa: PT018
        assert rest.partition(b"\r\n")[2] == line
        assert accept.body == b"Subject: hi\r\n\r\nHello.\r\n"
        assert accept.verdict == verdict.verdict


async def test_a_verb_nobody_here_knows_means_pending(tmp_path):
    """A newer judge's word is neither obeyed nor refused: the message is safe, and asked again."""
    async with stand(tmp_path) as on:
        on.judge.asked = Asked(Verdict("teleport", code="X"), facts=b"f")
        client = await on.login()
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()

        (accept,) = on.shards.accepted
        assert (accept.verdict, accept.reason, accept.facts) == (None, "verb", b"f")
        assert on.shards.refused == []


async def test_a_silent_judge_means_pending(tmp_path):
    """A judge that never answers costs its time and no more: accepted, with no verdict."""
    async with stand(tmp_path) as on:
        on.judge.asked = None
        client = await on.login()
        began = asyncio.get_running_loop().time()
        said = await client.send(SMALL)
        took_s = asyncio.get_running_loop().time() - began
        await client.hang_up()

        assert said[:3] == "250"
        assert took_s < 1.0
        assert (on.shards.accepted[0].verdict, on.shards.accepted[0].reason) == (None, "silent")


@pytest.mark.parametrize(
    ("answer", "code"),
    [("unknown", "451 4.3.0"), ("full", "452 4.3.1"), ("late", "451 4.3.0"), ("failed", "451 4.")],
)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_a_shard_in_trouble(tmp_path, answer, code, content):
    """Not surely safe is never 250; it is taken off the counters; a file the shard may have
    named stays, any other goes."""
    async with stand(tmp_path) as on:
        on.shards.answer = answer
        client = await on.login()
        said = await client.send(content)
        await client.hang_up()
        await on.quiet()

        assert said.startswith(code)
        assert "ref=" in said
        assert on.judge.uncounted == [on.judge.asks[0].message]
        left = [on.judge.asks[0].message] if answer == "unknown" and content is LARGE else []
        assert on.files() == left


@pytest.mark.parametrize(
    ("why", "code"), [("full", "452 4.3.1"), ("down", "451 4.3.0"), ("starting", "451 4.3.0")]
)
async def test_no_shard_accepts(tmp_path, why, code):
    """When no shard takes mail the client hears it before its data, and later all is well."""
    async with stand(tmp_path) as on:
        client = await on.login()
        on.shards.why = why
        assert (await client.begin()).startswith(code)
        on.shards.why = ""
        assert (await client.ask("DATA"))[:3] == "354"
        client.say(SMALL + b".\r\n")
        assert (await client.hear())[:3] == "250"
        await client.hang_up()


async def test_folders_that_take_no_files(tmp_path):
    """A spool whose folders cannot be written: 451 before 354."""
    async with stand(tmp_path) as on:
        client = await on.login()
        for shard in (1, 2):
            (on.spool / f"bodies-{shard}").rmdir()
            (on.spool / f"bodies-{shard}").write_bytes(b"no folder")
        await asyncio.to_thread(on.worker.folders.look)

        assert (await client.begin()).startswith("451 4.3.0")
        await client.hang_up()


async def test_a_large_body_goes_to_a_file(tmp_path):
    """A large message is written to a folder of the chosen shard, byte for byte, header cut."""
    async with stand(tmp_path) as on:
        client = await on.login()
        said = await client.send(LARGE)
        await client.hang_up()
        await on.quiet()

        accept = on.shards.accepted[0]
        wanted = LARGE.replace(b"X-AuthUser: joe\r\n", b"")
        assert said[:3] == "250"
        assert accept.body is None
        assert accept.body_file == accept.message
        assert (on.spool / "bodies-2" / accept.message).read_bytes() == wanted
        assert accept.length == len(wanted)
        assert accept.check == hashlib.blake2b(wanted, digest_size=16).digest()
        assert on.judge.bodies == [wanted]


async def test_a_file_that_cannot_be_written(tmp_path):
    """A body that cannot be written is 451, and nothing is asked or promised."""
    async with stand(tmp_path) as on:
        (on.spool / "bodies-2").rmdir()
        client = await on.login()
        said = await client.send(LARGE)
        assert said.startswith("451 4.3.0")
        on.shards.chooses = False
        assert (await client.send(LARGE)).startswith("451 4.3.0")
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()

        assert len(on.judge.asks) == 1
        assert len(on.shards.accepted) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"Subject: a\n\r\nb\r\n", "550 5.6.0"),
        (b"Subject: a\r\n\r\nb\rc\r\n", "550 5.6.0"),
        (b"Subject: a\r\n\r\nb\0c\r\n", "550 5.6.0"),
        (b"Subject: " + b"x" * 5000 + b"\r\n\r\nb\r\n", "552 5.3.4"),
        (b"a: b\r\n" * 1500 + b"\r\nb\r\n", "552 5.3.4"),
        # What is no field takes a place as well: behind it an identity would not be seen.
        (b"x\r\n" * 1000 + b"X-AuthUser: eve\r\n\r\nb\r\n", "552 5.3.4"),
        (b"Subject: a\r\n\r\n" + b"x" * 30_000 + b"\r\n", "552 5.3.4"),
        (b"Received: by x; now\r\n" * 51 + b"\r\nb\r\n", "554 5.4.6"),
        (b"X-Postweir-Loop: relay.test 1\r\n" * 4 + b"\r\nb\r\n", "554 5.4.6"),
    ],
)
async def test_what_is_no_mail(tmp_path, content, code):
    """Each kind of fault has its reply and is on record; the next message is none the worse."""
    async with stand(tmp_path, message_bytes_max=20_000, header_bytes_max=4096) as on:
        client = await on.login()
        said = await client.send(content)
        assert said.startswith(code)
        assert on.shards.refused[0].stage == "data"
        assert f"ref={on.shards.refused[0].message}" in said
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()

        assert len(on.judge.asks) == 1


async def test_a_header_may_be_long_by_folding(tmp_path):
    """Lines that go on with a field are not counted as fields."""
    async with stand(tmp_path) as on:
        client = await on.login()
        content = b"References: a\r\n" + b"\t<b@c>\r\n" * 3000 + b"X-AuthUser: joe\r\n\r\nb\r\n"
        assert (await client.send(content))[:3] == "250"
        await client.hang_up()

        assert on.shards.accepted[0].sender.identity == "joe"
        assert b"X-AuthUser" not in on.shards.bodies[0]


async def test_bare_newlines_by_setting(tmp_path):
    """An account may have its stray CRs and LFs made whole."""
    async with stand(tmp_path, account=Account(name="acme", bare_newline="normalise")) as on:
        client = await on.login()
        assert (await client.send(b"Subject: a\nX-AuthUser: joe\n\nb\r\n"))[:3] == "250"
        await client.hang_up()

        assert on.shards.accepted[0].body == b"Subject: a\r\n\r\nb\r\n"
        assert on.shards.accepted[0].sender.identity == "joe"


async def test_twice_through_us_is_no_loop(tmp_path):
    """Customers forward to each other: a trace of ours alone is no loop."""
    async with stand(tmp_path) as on:
        client = await on.login()
        content = b"X-Postweir-Loop: relay.test 1\r\nX-Postweir-Id: old\r\n\r\nb\r\n"
        assert (await client.send(content))[:3] == "250"
        await client.hang_up()

        assert on.shards.accepted[0].body == b"X-Postweir-Loop: relay.test 1\r\n\r\nb\r\n"
        assert on.judge.asks[0].loops == 1


async def test_a_client_that_left_is_not_promised(tmp_path):
    """Who is gone before the promise will send again: nothing is taken, nothing counted."""
    async with stand(tmp_path) as on:
        on.judge.go.clear()
        client = await on.login()
        assert (await client.begin())[:3] == "354"
        client.say(SMALL + b".\r\n")
        await until(lambda: on.judge.asks)
        await client.hang_up()
        await until(lambda: not on.worker.counts.connections)
        on.judge.go.set()
        await on.quiet()

        assert on.shards.accepted == []
        assert on.judge.uncounted == [on.judge.asks[0].message]


@pytest.mark.parametrize("shown", ["address", "hashed", "omit"])
async def test_the_clients_address_as_the_setting_says(tmp_path, shown):
    """Our Received line shows the client's address, a name for it, or nothing."""
    account = Account(name="acme", sender_plain=True)
    async with stand(tmp_path, account=account, received_client=shown) as on:
        client = await on.login()
        await client.send(SMALL)
        await client.hang_up()

        added = on.shards.accepted[0].added
        assert (b"127.0.0.1" in added) == (shown == "address")
        assert (b"client-" in added) == (shown == "hashed")
        assert b"X-Postweir-Sender: acme|x-authuser|joe@customer.example\r\n" in added


IDENTITY = (b"X-AuthUser: a@b\r\n", b"X-PHP-Originating-Script: 1:s\r\n\tx\r\n")
FIELDS = st.lists(
    st.sampled_from(
        [b"Subject: hi\r\n", b"To: x\r\n y\r\n", b"DKIM-Signature: v=1; b=\r\n\tabc\r\n",
         b"no field at all\r\n", b"X-Empty:\r\n", b"From: \xff\xfe\r\n", *IDENTITY]
    ),
    max_size=8,
)  # fmt: skip
BODY = st.lists(st.sampled_from([b"..x\r\n", b".\r\n", b"\r\n", b"a" * 2000 + b"\r\n", b"x:y\r\n"]))


@examples(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fields=FIELDS, body=BODY, cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_nothing_but_identity_is_touched(fields, body, cuts, tmp_path_factory):
    """However a message is cut on its way, all of it but identity fields is kept byte for byte."""
    content = b"".join(fields) + b"\r\n" + b"".join(body)
    wanted = b"".join(f for f in fields if f not in IDENTITY) + b"\r\n" + b"".join(body)
    wire = content.replace(b"\r\n.", b"\r\n..") + b".\r\n"

    async def talk():
        async with stand(tmp_path_factory.mktemp("x")) as on:
            client = await on.login()
            await client.begin()
            at = 0
            for cut in sorted(cuts):
                client.say(wire[at:cut])
                await client.writer.drain()
                await asyncio.sleep(0)
                at = max(at, cut)
            client.say(wire[at:])
            assert (await client.hear())[:3] == "250"
            await client.hang_up()
            return on.shards.bodies[0]

    assert asyncio.run(talk()) == wanted


async def test_names_do_not_repeat(tmp_path):
    """Every message has a name of its own, and they sort as they came."""
    async with stand(tmp_path) as on:
        client = await on.login()
        for _ in range(20):
            await client.send(SMALL)
        await client.hang_up()

        names = [a.message for a in on.shards.accepted]
        assert names == sorted(set(names))


async def test_a_disk_that_hangs_holds_up_nobody_else(tmp_path, monkeypatch):
    """A sync that never returns: its client hears 451; small mail, and large to others, flows."""
    monkeypatch.setattr(intake, "ANSWER_S", 0.3)
    monkeypatch.setattr(intake, "CLEAR_S", 0.05)
    monkeypatch.setattr(bodies, "HANGS_S", 0.1)
    go, real = threading.Event(), os.fsync

    def sync(descriptor):
        if "bodies-2" in os.readlink(f"/proc/self/fd/{descriptor}"):
            go.wait(10)
        real(descriptor)

    monkeypatch.setattr(bodies.os, "fsync", sync)
    async with stand(tmp_path) as on:
        try:
            client, other = await on.login(), await on.login()
            # As many as there are threads, and one more.
            held = [await on.login() for _ in range(3)]
            for one in held:
                assert (await one.begin())[:3] == "354"
                one.say(LARGE + b".\r\n")
            assert (await client.send(SMALL))[:3] == "250"
            assert [(await one.hear())[:3] for one in held] == ["451"] * 3
            assert on.worker.disks.hanging == {2}
            assert (await other.send(LARGE))[:3] == "250"
            assert (await client.send(SMALL))[:3] == "250"
            assert len(on.shards.accepted) == 3
        finally:
            go.set()
        await until(lambda: not on.worker.disks.hanging)
        assert (await other.send(LARGE))[:3] == "250"
        for one in (client, other, *held):
            await one.hang_up()
        await until(lambda: len(on.files()) == 2)  # of what was taken
