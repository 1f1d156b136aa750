"""What came before with an outcome that nobody knows is known again; nothing else is."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.edge.stand import stand, until

from postweir.edge import doubting as doubting_module
from postweir.edge import doubts as doubts_module
from postweir.edge.doubting import Doubting, DoubtsFile, doubt_of, line
from postweir.edge.doubts import KEPT_S, RECIPIENT_BYTES, Doubt, Doubts, named
from postweir.mail.envelope import Envelope
from postweir.mail.headers import fields
from postweir.runtime import clock
from postweir.runtime.log import quiet

KEY = b"k" * 32
DAY_US = int(KEPT_S * 1e6)


def envelope(*recipients, mail_from="joe@customer.example", helo="x"):
    return Envelope(mail_from, recipients or ("kim@fine.example",), helo)


def known(doubts, *, account="acme", name=b"<1@x>\n", now_us=10, **which):
    recipients = which.pop("recipients", ())
    return doubts.before(account, envelope(*recipients, **which), name, now_us=now_us)


def doubting(*recipients, at_us=5, name=b"<1@x>\n", message="m1"):
    """Return doubts that hold one message."""
    doubts = Doubts(KEY)
    doubts.add(doubts.doubt("acme", envelope(*recipients), name, message=message, at_us=at_us))
    return doubts


def test_the_same_message_is_known():
    """Account, MAIL FROM, name and a recipient must be the same; EHLO and order need not."""
    doubts = doubting("a@x", "b@x", "c@x")

    assert known(doubts, recipients=("c@x", "z@x", "a@x"), helo="other") == "m1"
    assert known(doubts, recipients=("a@x",)) == "m1"
    assert known(doubts, recipients=("z@x",)) == ""
    assert known(doubts, recipients=("a@x",), account="other") == ""
    assert known(doubts, recipients=("a@x",), mail_from="") == ""
    assert known(doubts, recipients=("a@x",), name=b"<2@x>\n") == ""


def test_a_day_is_enough():
    """After a day it is another message, whatever the order in which doubts came."""
    doubts = doubting(at_us=DAY_US)
    old = doubts.doubt("acme", envelope(), b"<old>\n", message="m0", at_us=5)
    doubts.add(old)

    assert known(doubts, name=b"<old>\n", now_us=DAY_US + 6) == ""
    assert known(doubts, now_us=2 * DAY_US - 1) == "m1"
    assert known(doubts, now_us=2 * DAY_US) == ""
    assert len(doubts) == 0


def test_again_and_again():
    """A message that fails in the same way twice has the name of its last try."""
    doubts = doubting("a@x", message="m1", at_us=5)
    doubts.add(doubts.doubt("acme", envelope("b@x"), b"<1@x>\n", message="m2", at_us=6))

    assert known(doubts, recipients=("a@x",)) == known(doubts, recipients=("b@x",)) == "m2"
    assert len(doubts) == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    """The oldest go, by letters and by recipients; the sum of recipients is right."""
    monkeypatch.setattr(doubts_module, "LETTERS_MAX", 10)
    monkeypatch.setattr(doubts_module, "RECIPIENTS_MAX", 50)
    doubts = Doubts(KEY)
    for n in range(30):
        one = envelope(*(f"r{m}@x" for m in range(n % 20 + 1)))
        doubts.add(doubts.doubt("acme", one, b"%d" % n, message=f"m{n}", at_us=n))

        held = [len(d.recipients) // RECIPIENT_BYTES for d in doubts._known.values()]
        assert len(held) <= 10
        assert sum(held) == doubts._recipients <= 50
    assert known(doubts, name=b"29", recipients=("r0@x",)) == "m29"


def header(text):
    return named(fields(text.replace("\n", "\r\n").encode()))


def test_what_a_message_is_called():
    """Message-ID and Date name it, whatever else is in the header; without an id nothing does."""
    first = header("Message-ID: <1@x>\nDate: today\nSubject: a\n\n")

    assert header("Received: by proxy;\n now\nDATE: today\nmessage-id: <1@x>\n\n") == first
    assert header("Message-ID: <1@x>\nDate: tomorrow\n\n") != first
    assert header("Message-ID: <2@x>\nDate: today\n\n") != first
    assert header("Message-ID: <1@x>\nMessage-ID: <9@x>\nDate: today\n\n") == first
    assert header("Date: today\n\n") == header("Message-ID: \nDate: today\n\n") == b""


def a_doubt(n=1, recipients=2):
    return Doubt(n, b"%016d" % n, b"r" * RECIPIENT_BYTES * recipients, f"m{n}")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "edge"


def test_workers_read_each_other(folder):
    """What one writes another reads once; a worker that starts anew reads its own too."""
    one, two = DoubtsFile(folder, 1, quiet()), DoubtsFile(folder, 2, quiet())
    assert one.read() == two.read() == []
    one.append([a_doubt(1), a_doubt(2)])
    assert two.read() == [a_doubt(1), a_doubt(2)]
    assert one.read() == two.read() == []
    one.append([a_doubt(3)])
    assert two.read() == [a_doubt(3)]

    assert DoubtsFile(folder, 1, quiet()).read() == [a_doubt(1), a_doubt(2), a_doubt(3)]
    assert (folder / "doubts-1").stat().st_mode & 0o777 == 0o600


@given(st.data())
def test_torn_lines(tmp_path_factory, data):
    """Wherever writes broke off, what is whole is read, and nothing that nobody wrote."""
    folder = tmp_path_factory.mktemp("edge")
    written = b""
    whole = []
    for n in range(data.draw(st.integers(1, 5))):
        text = line(a_doubt(n, recipients=n))
        cut = data.draw(st.one_of(st.just(len(text)), st.integers(0, len(text))))
        written += text[:cut]
        if cut >= len(text) - 1:  # its newline is given by the next one
            whole.append((a_doubt(n, recipients=n), cut == len(text)))
    (folder / "doubts-2").write_bytes(written)
    found = DoubtsFile(folder, 1, quiet()).read()

    surely = [doubt for doubt, ended in whole if ended]
    assert [d for d in found if d in surely] == surely
    assert [d for d in found if d not in [doubt for doubt, _ in whole]] == []


@given(st.binary(max_size=300))
def test_foreign_bytes_are_no_doubt(text):
    """Whatever stands in a line, it is a doubt we wrote or nothing."""
    found = doubt_of(text)

    assert found is None or line(found).strip(b"\n") == text


def test_a_line_that_is_still_being_written(folder):
    """Half a line at the end waits for its other half."""
    folder.mkdir()
    reader, text = DoubtsFile(folder, 1, quiet()), line(a_doubt(7))
    reader.read()
    path = folder / "doubts-2"
    path.write_bytes(text[:30])
    assert reader.read() == []
    path.write_bytes(text)

    assert reader.read() == [a_doubt(7)]


def test_files_are_bounded(folder, monkeypatch):
    """A file that is full becomes the one before; readers lose nothing by it."""
    monkeypatch.setattr(doubting_module, "FILE_BYTES_MAX", 1000)
    writer, reader = DoubtsFile(folder, 2, quiet()), DoubtsFile(folder, 1, quiet())
    reader.read()
    found = []
    for n in range(100):
        writer.append([a_doubt(n)])
        found += reader.read()

    assert found == [a_doubt(n) for n in range(100)]
    assert sorted(path.name for path in folder.iterdir()) == ["doubts-2", "doubts-2.before"]
    assert max(path.stat().st_size for path in folder.iterdir()) < 1200


def test_files_of_workers_that_are_no_more(folder, monkeypatch):
    """What is older than a day is not read, and later the first worker clears it away."""
    DoubtsFile(folder, 9, quiet()).append([a_doubt()])
    for days, left in ((1.5, True), (2.5, False)):
        at_s = clock.wall_us() / 1e6 - days * KEPT_S
        os.utime(folder / "doubts-9", (at_s, at_s))

        assert DoubtsFile(folder, 1, quiet()).read() == []
        assert (folder / "doubts-9").exists() == left


def test_a_folder_that_cannot_be_written(tmp_path):
    """No disk: it is told once, and nobody is in the way of mail."""
    told = []

    class Log:
        def warning(self, event, **_):
            told.append(event)

    (tmp_path / "edge").write_text("a file")
    file = DoubtsFile(tmp_path / "edge", 1, Log())
    file.append([a_doubt()])
    file.append([a_doubt()])

    assert file.read() == []
    assert told == ["edge.doubts_unwritten"]


MAIL = b"Message-ID: <1@x>\r\nDate: today\r\n\r\nHello.\r\n"
PROXIED = b"Received: by proxy\r\n" + MAIL
NAMELESS = b"Subject: hi\r\n\r\nHello.\r\n"


def of(accept):
    return accept.log.get("possible_duplicate_of", "")


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [(MAIL, MAIL, True), (MAIL, PROXIED, True), (NAMELESS, NAMELESS, True),
     (NAMELESS, NAMELESS + b"More.\r\n", False), (MAIL, NAMELESS, False)],
)  # fmt: skip
async def test_it_comes_again(tmp_path, first, second, marked):
    """After a 451 because nobody knows, the same message is taken and marked; another is not."""
    async with stand(tmp_path) as on:
        client = await on.login()
        on.shards.answer = "unknown"
        said = await client.send(first)
        assert said.startswith("451 4.3.0")
        on.shards.answer = "safe"
        assert (await client.send(second))[:3] == "250"
        assert (await client.send(b"Message-ID: <2@x>\r\n\r\nOther.\r\n"))[:3] == "250"
        await client.hang_up()

        name = said.partition("ref=")[2].split()[0]
        assert [of(accept) for accept in on.shards.accepted] == [name if marked else "", ""]


async def test_what_was_surely_not_taken_is_no_doubt(tmp_path):
    """After a 451 or 452 of a shard that took nothing, what comes again is the first."""
    async with stand(tmp_path) as on:
        client = await on.login()
        for why in ("full", "late", "failed"):
            on.shards.answer = why
            assert (await client.send(MAIL))[:2] == "45"
        on.shards.answer = "safe"
        assert (await client.send(MAIL))[:3] == "250"
        await client.hang_up()

        assert of(on.shards.accepted[0]) == ""


async def test_a_250_that_nobody_heard(tmp_path):
    """A client that is gone when its message is committed sends again: that may be there twice."""
    async with stand(tmp_path) as on:
        on.shards.go.clear()
        client = await on.login()
        await client.begin()
        client.say(MAIL + b".\r\n")
        await until(lambda: on.judge.asks)
        await client.hang_up()
        await until(lambda: not on.worker.counts.connections)
        on.shards.go.set()
        await until(lambda: on.shards.accepted)
        client = await on.login()
        assert (await client.send(MAIL))[:3] == "250"
        await client.hang_up()

        first, again = on.shards.accepted
        assert (of(first), of(again)) == ("", first.message)


async def test_a_worker_that_is_started_anew_knows(tmp_path):
    """What one worker met the next one, and another, know from its file."""
    files = [DoubtsFile(tmp_path / "edge", index, quiet()) for index in (1, 2, 1)]
    one, other = Doubting(KEY, files[0]), Doubting(KEY, files[1])
    await other.read()
    one.note("acme", envelope(), b"<1@x>\n", message="m1")
    await one.write()
    await other.read()
    again = Doubting(KEY, files[2])
    await again.read()

    for doubts in (one, other, again):
        assert doubts.before("acme", envelope(), b"<1@x>\n") == "m1"
    assert Doubting(b"z" * 32, files[2]).before("acme", envelope(), b"<1@x>\n") == ""
