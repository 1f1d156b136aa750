"""What rspamd says becomes facts and findings; whatever else answers there harms nothing."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.runtime.log import quiet
from postweir.scan.finding import KINDS
from postweir.scan.panel import Panel
from postweir.scan.remote import About, Unsound, sound
from postweir.scan.rspamd import ANSWER_BYTES_MAX, Rspamd, seen

ABOUT = About(
    client="192.0.2.1", helo="mail.example", mail_from="joe@a.example",
    recipients=("x@b.example", "y@b.example"), account="acme", sender="joe", message="id1",
)  # fmt: skip
MESSAGE = b"From: joe@a.example\r\nSubject: hello\r\n\r\nHello.\r\n"
REJECT = {
    "score": 16.5, "required_score": 15.0, "action": "reject",
    "symbols": {"A": {"score": 1.0}, "B_VIRUS": {"score": 9.0}, "PHISHED_LIST": {"score": 7.0},
                "HAM": {"score": -0.5}},
}  # fmt: skip


class Fake:
    """A server that says what it is told to, however wrong, and keeps what it was asked."""

    def __init__(self) -> None:
        self.said = answer(REJECT)
        self.silent = False
        self.asked: list[bytes] = []
        self.url = ""
        self.serving: set[asyncio.Task] = set()

    async def serve(self, reader, writer) -> None:
        self.serving.add(asyncio.current_task())
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader, writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.asked.append(head + await reader.readexactly(length))
        if not self.silent:
            writer.write(self.said)
            await writer.drain()
        else:
            await reader.read()


def answer(body, *, status="200 OK", length=None):
    """Return an HTTP answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(text) if length is None else length
    head = f"HTTP/1.1 {status}\r\nServer: rspamd/3.4\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + text


@asynccontextmanager
async def asked(*, user=False):
    """Give a fake and an Rspamd that asks it."""
    fake = Fake()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    rspamd = Rspamd(fake.url, user=user)
    try:
        yield fake, rspamd
    finally:
        await rspamd.close()
        server.close()
        for task in fake.serving:
            task.cancel()
        await asyncio.gather(*fake.serving, return_exceptions=True)


async def test_its_answer_is_facts_and_findings():
    """Score, action and symbols as facts; spam, malware and phishing as findings."""
    async with asked() as (_, rspamd):
        found = sound(await rspamd.look(MESSAGE, ABOUT, 5.0), rspamd)

    assert found.measures == {
        "rspamd.known": True, "rspamd.score": 16.5, "rspamd.action": "reject",
        "rspamd.symbols": ["B_VIRUS", "PHISHED_LIST", "A", "HAM"],
    }  # fmt: skip
    assert [(f.kind, f.what, f.certainty, f.version) for f in found.findings] == [
        ("spam", "reject: B_VIRUS, PHISHED_LIST, A", 1.0, "3.4"),
        ("virus", "B_VIRUS", 1.0, "3.4"), ("phishing", "PHISHED_LIST", 1.0, "3.4"),
    ]  # fmt: skip


@pytest.mark.parametrize("user", [False, True])
async def test_what_it_is_told(user):
    """The envelope, the client, our id, the body; the sender only where a setting says so."""
    async with asked(user=user) as (fake, rspamd):
        await rspamd.look(MESSAGE, ABOUT, 5.0)

    head, _, body = fake.asked[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /checkv2 HTTP/1.1"
    assert {"IP: 192.0.2.1", "Helo: mail.example", "From: joe@a.example", "Queue-Id: id1"} <= set(
        lines
    )
    assert [line for line in lines if line.startswith("Rcpt")] == [
        "Rcpt: x@b.example", "Rcpt: y@b.example",
    ]  # fmt: skip
    assert ("User: joe" in lines) is user
    assert body == MESSAGE


async def test_no_client_writes_headers():
    """What a client said never becomes a line of its own."""
    wicked = About(helo="a\r\nUser: root\r\n\r\n", mail_from="\x00\x1f\u2028" * 500)
    async with asked() as (fake, rspamd):
        await rspamd.look(MESSAGE, wicked, 5.0)

    lines = fake.asked[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"Helo: aUser: root" in lines
    assert not any(line.startswith(b"User:") for line in lines)


@pytest.mark.parametrize(
    "said",
    [
        answer(b"not json"), answer([]), answer({}), answer({**REJECT, "score": "much"}),
        answer({**REJECT, "symbols": [1]}), answer({**REJECT, "symbols": {"A": 1}}),
        answer({**REJECT, "symbols": None}), answer({**REJECT, "action": 5}),
        answer(REJECT, status="403 Forbidden"),
        answer(REJECT, status="302 Found"), answer(b"{}" * ANSWER_BYTES_MAX), answer(b""),
        answer(b'{"score": 1e999, "required_score": 1, "action": "x"}'),
        answer(REJECT, length=100_000), b"junk\r\n\r\n", b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)  # fmt: skip
async def test_nonsense_is_no_answer(said):
    """In the panel it is a finding `unavailable`, the facts are neutral, and nothing fails."""
    async with asked() as (fake, rspamd):
        fake.said = said
        panel = Panel([], quiet(), [rspamd])
        found = await panel.examine(MESSAGE, 5.0, about=ABOUT)
        panel.close()

    assert [(f.scanner, f.kind) for f in found.findings] == [("rspamd", "unavailable")]
    assert found.measures == {}


async def test_nobodys_address_is_logged():
    """What the HTTP client says of an answer that is none has all that was asked in it."""
    said = []
    log = type("Log", (), {"warning": lambda _, event, **fields: said.append(str(fields))})()
    async with asked() as (fake, rspamd):
        fake.said = b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"
        panel = Panel([], log, [rspamd])
        while not said:
            await panel.examine(MESSAGE, 5.0, about=ABOUT)
        panel.close()

    assert "ClientResponseError: 400" in said[0]
    assert "@" not in said[0]


async def test_silence_is_no_answer():
    """A server that takes a message and says nothing is late, and the message goes on."""
    async with asked() as (fake, rspamd):
        fake.silent = True
        panel = Panel([], quiet(), [rspamd])
        found = await panel.examine(MESSAGE, 0.05, about=ABOUT)
        panel.close()

    assert [f.kind for f in found.findings] == ["unavailable"]


async def test_a_dead_one_costs_nothing():
    """After a few refused connections it is not asked, and small mail is looked at at once."""
    dead = Rspamd("http://127.0.0.1:1", user=False)
    panel = Panel([], quiet(), [dead])
    for _ in range(6):
        found = await panel.examine(MESSAGE, 5.0, about=ABOUT)
        assert [f.kind for f in found.findings] == ["unavailable"]
    assert panel.may_look_now(MESSAGE)
    panel.close()
    await dead.close()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(REJECT, VALUES)) | VALUES)
def test_any_answer_is_sound_or_none(said):
    """Whatever JSON comes, facts have their types and findings their kinds."""
    try:
        found = seen(json.dumps(said).encode(), "1")
    except Unsound:
        return
    kept = sound(found, Rspamd("http://127.0.0.1:1", user=False))
    assert set(kept.measures) == set(Rspamd.facts)
    assert all(finding.kind in KINDS for finding in kept.findings)
