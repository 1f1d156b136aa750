"""The server's half of SMTP, driven without a socket."""

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mail.driving import GO_ON, OFFERS, OK, Drive, cut, ready_for_data

from postweir.mail.reply import LocalFault, RemoteFault, Reply
from postweir.mail.smtp_server import (
    AUTH_BYTES_MAX,
    COMMAND_BYTES_MAX,
    Auth,
    AuthAnswer,
    Body,
    BodyEnd,
    Data,
    Greet,
    Mail,
    Misstep,
    Offers,
    Quit,
    Rcpt,
    Reset,
    ServerSession,
    StartTls,
    State,
    Verify,
)

PIPELINED = (
    b"EHLO shop.example\r\nMAIL FROM:<a@Shop.Example> SIZE=99 BODY=8BITMIME\r\n"
    b"RCPT TO:<b@far.example>\r\nDATA\r\n"
)
MESSAGE = b"Subject: hi\r\n\r\n..dot\r\n..\r\nbye\r\n.\r\nQUIT\r\nmore\r\n"
CUTS = st.lists(st.integers(0, 10_000), max_size=12)
WITH_AUTH = Offers("relay.example.net", 1_000_000, auth=("PLAIN", "LOGIN"))


def test_one_message():
    """A whole dialogue gives its events in order, dots unstuffed; after QUIT nothing is heard."""
    drive = Drive().feed(PIPELINED).feed(MESSAGE)

    assert drive.events == [
        Greet("EHLO", "shop.example"),
        Mail("a@shop.example", 99, True),
        Rcpt("b@far.example"),
        Data(),
        Body(b"Subject: hi\r\n\r\n.dot\r\n.\r\nbye\r\n"),
        BodyEnd(False, False),
        Quit(),
    ]
    assert drive.codes == [250, 250, 250, 354, 250, 221]
    assert drive.session.state is State.CLOSED
    assert drive.session.buffered == 0


def test_the_greeting_offers_what_there_is():
    """EHLO names what works just now: STARTTLS until TLS is on, AUTH until it was used."""
    both = Offers("relay.example.net", 1000, starttls=True, auth=("PLAIN", "LOGIN"))
    plain = Drive(both).feed(b"EHLO shop.example\r\n")
    secured = Drive(both).feed(b"EHLO shop.example\r\n").feed(b"STARTTLS\r\n")
    secured.session.restart()
    secured.feed(b"EHLO shop.example\r\n")
    known = Drive(WITH_AUTH).feed(b"EHLO shop.example\r\n").feed(auth(b"PLAIN", b"\0shop\0secret"))
    known.feed(b"EHLO shop.example\r\n")

    base = {b"PIPELINING", b"SIZE 1000", b"8BITMIME", b"ENHANCEDSTATUSCODES", b"HELP"}
    assert keywords(plain.said[-1]) == base | {b"STARTTLS", b"AUTH PLAIN LOGIN"}
    assert keywords(secured.said[-1]) == base | {b"AUTH PLAIN LOGIN"}
    assert keywords(known.said[-1]) == base - {b"SIZE 1000"} | {b"SIZE 1000000"}
    assert known.codes == [250, 235, 250]


def keywords(said: bytes) -> set[bytes]:
    return {line[4:] for line in said.split(b"\r\n")[1:] if line}


def auth(mechanism: bytes, proof: bytes) -> bytes:
    return b"AUTH " + mechanism + b" " + base64.b64encode(proof) + b"\r\n"


def test_refusal_keeps_the_state():
    """A refused recipient leaves the transaction where it was; without any, DATA is refused."""
    drive = Drive().feed(PIPELINED.partition(b"RCPT")[0] + b"RCPT TO:<nobody@far.example>\r\n")

    assert drive.session.state is State.MAIL
    assert drive.feed(b"DATA\r\n").events[-1] == Misstep(
        Reply(554, "5.5.1", "No valid recipients"), False
    )
    drive.feed(b"RCPT TO:<b@far.example>\r\n").feed(b"DATA\r\n")
    assert drive.session.state is State.DATA


def test_a_refused_message_ends_its_transaction():
    """Whatever the lone dot is answered, the next message begins with MAIL."""
    drive = ready_for_data().feed(b"a\nb\r\n.\r\nRCPT TO:<b@far.example>\r\n")

    assert drive.codes == [550, 503]
    assert drive.session.state is State.READY


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        (b"WHAT", 500, "5.5.1"),
        (b"", 500, "5.5.1"),
        (b"EXPN list", 502, "5.5.1"),
        (b"AUTH PLAIN", 538, "5.7.11"),
        (b"RCPT TO:<b@far.example>", 503, "5.5.1"),
        (b"DATA", 503, "5.5.1"),
        (b"MAIL FROM:<a@shop.example> SIZE=1000001", 552, "5.3.4"),
        (b"MAIL FROM:<a@shop.example> SIZE=many", 501, "5.5.4"),
        (b"MAIL FROM:<a@shop.example> SIZE=1 SIZE=1", 501, "5.5.4"),
        (b"MAIL FROM:<a@shop.example> BODY=BINARYMIME", 555, "5.5.4"),
        (b"MAIL FROM:<a@shop.example> RET=HDRS", 555, "5.5.4"),
        (b"MAIL FROM:<a@shop.example> AUTH=<>", 555, "5.5.4"),
        (b"MAIL FROM:<a@shop.example>SIZE=1", 501, "5.1.7"),
        (b"MAIL FROM:<>SIZE=1", 501, "5.1.7"),
        (b"MAIL FROM:a@shop.example", 501, "5.1.7"),
        (b"MAIL FROM:<postmaster>", 501, "5.1.7"),
        (b"MAIL FROM:<\xc3\xbc@shop.example>", 553, "5.1.7"),
        (b"MAIL TO:<a@shop.example>", 501, "5.5.4"),
        (b"MAIL", 501, "5.5.4"),
        (b"MAIL FROM:<a\0@shop.example>", 500, "5.5.2"),
        (b"EHLO", 501, "5.5.4"),
        (b"EHLO two words", 501, "5.5.4"),
        (b"EHLO " + b"x" * 256, 501, "5.5.4"),
        (b"EHLO tab\there", 501, "5.5.4"),
        (b"RSET now", 501, "5.5.4"),
        (b"QUIT now", 501, "5.5.4"),
        (b"STARTTLS now", 501, "5.5.4"),
        (b"VRFY", 501, "5.5.4"),
        (b"NOOP \x80", 501, "5.5.4"),
    ],
)
def test_missteps(line, code, status):
    """What is no command, or not for now, gets its own code; the talk goes on as if unsaid."""
    drive = Drive().feed(b"EHLO shop.example\r\n").feed(line + b"\r\n")
    misstep = drive.events[-1]

    assert isinstance(misstep, Misstep)
    assert (misstep.reply.code, misstep.reply.status) == (code, status)
    assert not misstep.fatal
    assert drive.session.state is State.READY
    assert drive.feed(b"MAIL FROM:<>\r\n").events[-1] == Mail("", None, False)


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        (b"RCPT TO:<b@far.example> NOTIFY=NEVER", 555, "5.5.4"),
        (b"RCPT TO:<>", 501, "5.1.3"),
        (b"RCPT TO:<b>", 501, "5.1.3"),
        (b"RCPT TO:<b@xn--->", 501, "5.1.3"),
        (b"RCPT TO:<henry\xe2\x85\xa3@far.example>", 553, "5.1.3"),
        (b"RCPT FROM:<b@far.example>", 501, "5.5.4"),
        (b"MAIL FROM:<>", 503, "5.5.1"),
        (b"STARTTLS", 503, "5.5.1"),
        (b"AUTH PLAIN", 503, "5.5.1"),
    ],
)
def test_missteps_within_a_transaction(line, code, status):
    """A misstep inside a transaction costs nothing but itself."""
    drive = Drive().feed(b"EHLO shop.example\r\nMAIL FROM:<>\r\n").feed(line + b"\r\n")

    assert drive.codes[-1] == code
    assert drive.events[-1].reply.status == status
    assert drive.session.state is State.MAIL


def test_before_ehlo():
    """Mail needs a greeting first; RSET, NOOP, VRFY and HELP do not, and QUIT neither."""
    drive = Drive().feed(b"MAIL FROM:<>\r\nRSET\r\nNOOP x\r\nVRFY x\r\nHELP\r\nMAIL FROM:<>\r\n")

    assert drive.codes == [503, 250, 250, 252, 214, 503]
    assert drive.events[1:4:2] == [Reset(), Verify("x")]
    assert drive.feed(b"QUIT\r\n").session.state is State.CLOSED


@pytest.mark.parametrize("again", [b"EHLO shop.example", b"HELO shop.example", b"RSET"])
def test_what_resets_a_transaction(again):
    """EHLO, HELO and RSET forget the sender and the recipients (RFC 5321 4.1.4)."""
    drive = Drive().feed(PIPELINED.replace(b"DATA\r\n", again + b"\r\n"))

    assert drive.session.state is State.READY
    assert drive.feed(b"DATA\r\n").codes[-1] == 503


def test_mail_parameters_are_taken():
    """Blanks after the colon, source routes, and AUTH= where AUTH is offered."""
    drive = Drive(WITH_AUTH).feed(
        b"EHLO x\r\nmail from: <@a,@b:J@X.example>  auth=<> Body=7bit Size=0\r\n"
    )

    assert drive.events[-1] == Mail("J@x.example", 0, False)


@pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\rx\r\n", b"NO\nOP\r\n", b"NOOP\r\r\n", b"\n"])
def test_a_stray_line_end_in_a_command_ends_the_talk(line):
    """A command with a bare CR or LF is answered 500 and nothing after it is heard."""
    drive = Drive().feed(b"EHLO x\r\n" + line + b"MAIL FROM:<>\r\n")

    assert drive.events[-1] == Misstep(
        Reply(500, "5.5.2", "A line ends in CRLF, both or neither"), True
    )
    assert drive.session.state is State.CLOSED


@pytest.mark.parametrize("verb", [b"GET / HTTP/1.1", b"POST /x HTTP/1.1", b"connect a:25"])
def test_a_browser_is_shown_out(verb):
    """Words of HTTP end the talk before its body is read as commands."""
    drive = Drive().feed(verb + b"\r\nEHLO x\r\n")

    assert drive.codes == [554]
    assert drive.session.state is State.CLOSED


@pytest.mark.parametrize("size", [COMMAND_BYTES_MAX - 1, COMMAND_BYTES_MAX + 2, 1_000_000])
def test_an_overlong_line_passes_by(size):
    """A line above the limit costs one 500 and no memory, and the next command is heard."""
    drive = Drive().feed(b"EHLO x\r\n")
    most = 0
    for piece in cut(b"x" * size + b"\r\nNOOP\r\n", range(0, size + 8, 997)):
        drive.feed(piece)
        most = max(most, drive.session.buffered)

    assert drive.codes == [250, 500, 250]
    assert most <= COMMAND_BYTES_MAX


def test_an_overlong_line_ends_in_its_own_crlf():
    """Its end may come in two pieces, and a stray inside it is no end."""
    drive = Drive()
    for piece in (b"x" * 3000, b"\n", b"NOOP\r", b"x\r", b"\n", b"NOOP\r\n"):
        drive.feed(piece)

    assert drive.codes == [500, 250]


def test_the_longest_line_is_heard():
    """A line of exactly the limit, CRLF counted, is a command like any other."""
    line = b"NOOP ".ljust(COMMAND_BYTES_MAX - 2, b"x") + b"\r\n"

    assert Drive().feed(line).codes == [250]


def test_auth_in_one_step_and_in_two():
    """The proof comes with AUTH or after a 334; `=` is an empty one; `*` gives up."""
    proof = base64.b64encode(b"\0shop\0secret") + b"\r\n"
    one = Drive(WITH_AUTH).feed(b"EHLO x\r\n").feed(b"AUTH PLAIN " + proof)
    two = Drive(WITH_AUTH).feed(b"EHLO x\r\n").feed(b"auth plain\r\n").feed(proof)
    empty = Drive(WITH_AUTH).feed(b"EHLO x\r\n").feed(b"AUTH PLAIN =\r\n")
    given_up = Drive(WITH_AUTH).feed(b"EHLO x\r\n").feed(b"AUTH PLAIN\r\n").feed(b"*\r\n")

    assert one.events[-1] == Auth("PLAIN", b"\0shop\0secret")
    assert two.events[-2:] == [Auth("PLAIN", None), AuthAnswer(b"\0shop\0secret")]
    assert empty.events[-1] == Auth("PLAIN", b"")
    assert given_up.events[-1] == AuthAnswer(None)
    assert [d.codes[-1] for d in (one, two, empty, given_up)] == [235, 235, 535, 501]
    assert one.session.authenticated
    assert not given_up.session.authenticated
    assert given_up.session.state is State.READY
    assert one.feed(b"AUTH PLAIN " + proof).codes[-1] == 503


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"AUTH"], 501),
        ([b"AUTH CRAM-MD5"], 504),
        ([b"AUTH PLAIN ???"], 501),
        ([b"AUTH PLAIN", b"not base64"], 501),
        ([b"AUTH PLAIN", b"\xff"], 501),
        ([b"AUTH PLAIN", b"A" * AUTH_BYTES_MAX], 500),
    ],
)
def test_auth_gone_wrong(lines, code):
    """A proof that cannot be read is a misstep, and commands are heard again."""
    drive = Drive(WITH_AUTH).feed(b"EHLO x\r\n")
    for line in lines:
        drive.feed(line + b"\r\n")

    assert drive.codes[-1] == code
    assert drive.feed(b"NOOP\r\n").codes[-1] == 250


def test_a_long_proof_fits():
    """An initial response may be longer than other commands (RFC 4954 4)."""
    drive = Drive(WITH_AUTH).feed(b"EHLO x\r\n").feed(auth(b"PLAIN", b"x" * 9000))

    assert drive.events[-1] == Auth("PLAIN", b"x" * 9000)


def test_unoffered():
    """AUTH and STARTTLS are refused where they would not work."""
    bare = Offers("relay.example.net", 1000)
    drive = Drive(bare).feed(b"EHLO x\r\nSTARTTLS\r\n").feed(b"AUTH PLAIN\r\n")

    assert drive.codes == [250, 502, 502]


def test_starttls_forgets():
    """After the handshake the client is a stranger again."""
    drive = Drive(Offers("h.example", 1000, starttls=True, auth=("PLAIN",))).feed(b"EHLO x\r\n")
    drive.feed(auth(b"PLAIN", b"\0shop\0secret")).feed(b"STARTTLS\r\n")
    drive.session.restart()

    assert drive.events[-1] == StartTls()
    assert drive.session.state is State.FRESH
    assert not drive.session.authenticated
    assert drive.feed(b"MAIL FROM:<>\r\n").codes[-1] == 503
    assert drive.feed(b"EHLO x\r\nSTARTTLS\r\n").codes[-1] == 503


@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"EHLO x\r\n", b"STARTTLS\r\n"),
        (b"EHLO x\r\n", b"AUTH PLAIN\r\n"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@far.example>\r\n", b"DATA\r\n"),
    ],
)
def test_speaking_before_the_answer_ends_the_talk(before, line):
    """Bytes behind DATA, AUTH and STARTTLS are not read, come they with it or just after."""
    offers = Offers("h.example", 1000, starttls=True, auth=("PLAIN",))
    with_it = Drive(offers).feed(before).feed(line + b"MAIL FROM:<evil@far.example>\r\n")
    after = Drive(offers).feed(before)
    after.session.receive(line)
    after.session.next_event()
    after.session.receive(b"M")

    assert after.session.reply(GO_ON) == b""
    assert after.session.next_event() == with_it.events[-1]
    assert with_it.events[-1].fatal
    assert not any(isinstance(e, Data | Auth | StartTls) for e in with_it.events)
    assert with_it.codes[-1] == 554
    assert with_it.session.state is State.CLOSED


@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"EHLO x\r\n", b"DATA\r\n"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@far.example>\r\n", b"data\r\n"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@far.example>\r\n", b"DATA now\r\n"),
        (b"EHLO x\r\n", b"AUTH PLAIN ???\r\n"),
        (b"EHLO x\r\n", b"AUTH CRAM-MD5\r\n"),
        (b"EHLO x\r\n", b"STARTTLS\r\n"),
        (b"EHLO x\r\nAUTH PLAIN\r\n", b"not base64\r\n"),
        (b"EHLO x\r\nAUTH PLAIN\r\n", b"*\r\n"),
    ],
)
def test_speaking_before_a_refusal_ends_the_talk_too(before, line):
    """What rides behind a DATA, AUTH or STARTTLS that is refused is not read as commands.

    It may be a message's bytes: whoever wrote those would else speak for the client.
    """
    drive = Drive(WITH_AUTH)
    for said in before.splitlines(keepends=True):
        drive.feed(said)
    drive.feed(line + b"MAIL FROM:<evil@far.example>\r\n")

    assert drive.events[-1] == Misstep(Reply(554, "5.5.0", "You spoke before we answered"), True)
    assert drive.session.state is State.CLOSED


@pytest.mark.parametrize("behind", [b"", b"MAIL FROM:<evil@far.example>\r\n"])
def test_a_chunk_is_never_read_as_commands(behind):
    """A client does not wait with the bytes of BDAT (RFC 3030): not offered, it ends the talk."""
    drive = Drive().feed(PIPELINED.replace(b"DATA\r\n", b""))
    drive.feed(b"BDAT 30 LAST\r\n" + behind).feed(b"RSET\r\n")

    assert drive.events[-1] == Misstep(Reply(502, "5.5.1", "BDAT is not offered"), True)
    assert drive.session.state is State.CLOSED


def test_plaintext_is_not_carried_into_tls():
    """What was received after the 220 and before the handshake is a fault, never a command."""
    drive = Drive().feed(b"EHLO x\r\n").feed(b"STARTTLS\r\n").feed(b"EHLO evil\r\n")

    kept = drive.session.buffered
    assert drive.feed(b"x" * 100_000).session.buffered == kept
    with pytest.raises(RemoteFault, match="before we answered"):
        drive.session.restart()


def test_a_421_closes():
    """After a 421, whatever it answers, nothing is heard (RFC 5321 4.2.3)."""
    session = ServerSession(OFFERS)
    session.receive(b"EHLO x\r\nNOOP\r\n")
    session.next_event()

    assert session.reply(Reply(421, "4.3.2", "Bye")) == b"421 4.3.2 Bye\r\n"
    assert session.next_event() is None


def test_answer_before_asking():
    """Skipping a reply, or answering twice, is our own mistake, and says so."""
    session = ServerSession(OFFERS)
    session.receive(b"NOOP\r\nNOOP\r\n")
    session.next_event()

    with pytest.raises(LocalFault, match="answer"):
        session.next_event()
    session.reply(OK)
    with pytest.raises(LocalFault, match="nothing"):
        session.reply(OK)


# -- what a message is (all of it: test_mail_exhaustive.py) ---------------------------------------


def in_data(normalise: bool) -> ServerSession:
    session = ServerSession(OFFERS)
    session.normalise = normalise
    for line in (b"HELO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<b@far.example>\r\n", b"DATA\r\n"):
        session.receive(line)
        session.next_event()
        session.reply(GO_ON if line == b"DATA\r\n" else OK)
    return session


def test_what_was_normalised_is_stuffed_again():
    """A dot that stood alone between bare LFs is content: sent on, it does not end the message."""
    drive = ready_for_data(normalise=True).feed(b"a\n.\nMAIL FROM:<evil@x>\n\r\n.\r\n")

    assert drive.body == b"a\r\n.\r\nMAIL FROM:<evil@x>\r\n\r\n"
    assert drive.codes == [250]


@pytest.mark.parametrize("data", [b"\0\r\n", b"a\0b\r\n", b"a\r\n\0\r\n"])
def test_nul_is_noted(data):
    """A NUL in a message is told at its end."""
    assert ready_for_data().feed(data + b".\r\n").events[-1] == BodyEnd(False, True)


def test_long_lines_pass():
    """A body line of any length passes as it is."""
    line = b"x" * 300_000 + b"\r\n"
    drive = ready_for_data().feed_cut(line + b".\r\n", range(0, 300_000, 4099))

    assert drive.body == line
    assert drive.events[-1] == BodyEnd(False, False)


def test_a_body_is_not_kept():
    """However long a message, the session holds a few bytes of it."""
    drive = ready_for_data()
    for _ in range(100):
        drive.session.receive(b"\r\n.\r" * 5000)
        assert isinstance(drive.session.next_event(), Body)
        assert drive.session.buffered == 0


def test_no_line_end_makes_it_slow():
    """Bytes that are all dots and line ends are read at some MB/s at least, in any one piece."""
    for unit in (b"\r\n..", b"\n.", b"\r", b"\r\n.\r", b".\r\n"[1:]):
        session = in_data(True)
        session.receive(unit * (4_000_000 // len(unit)))
        began = time.process_time()
        session.next_event()
        assert time.process_time() - began < 1, unit


# -- however it is cut ---------------------------------------------------------------------------

LINES = [
    b"EHLO x", b"HELO y", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<> SIZE=7", b"RSET", b"NOOP",
    b"RCPT TO:<c@d.example>", b"RCPT TO:<nobody@d.example>", b"WHAT", b"VRFY z", b"", b"\xff\0",
    b"x" * (COMMAND_BYTES_MAX - 2), b"y" * (COMMAND_BYTES_MAX - 1), b"AUTHOR " + b"z" * 3000,
    b"NOOP\rx",
]  # fmt: skip
SAY = st.lists(st.sampled_from(LINES), max_size=6).map(lambda ls: b"".join(b + b"\r\n" for b in ls))
BODY = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\0", b"\r\n.\r\n"])).map(
    b"".join
)
SCRIPT = st.lists(
    st.one_of(
        SAY,
        st.tuples(
            SAY, st.just(b"MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        ).map(b"".join),
        st.tuples(BODY, st.just(b"\r\n.\r\n"), SAY).map(b"".join),
        st.tuples(SAY, st.just(b"AUTH PLAIN\r\n")).map(b"".join),
        st.tuples(SAY, st.just(b"AUTH " + b"z" * 3000 + b"\r\n")).map(b"".join),
        st.just(auth(b"PLAIN", b"x").removeprefix(b"AUTH PLAIN ")),
        st.just(b"*\r\n"),
    ),
    max_size=8,
)  # fmt: skip


@given(SCRIPT, CUTS)
def test_packets_do_not_matter(script, cuts):
    """However what is said between two answers is cut into packets, the events are the same."""
    at_once = Drive(WITH_AUTH)
    in_pieces = Drive(WITH_AUTH)
    for said in [b"EHLO x\r\n", *script]:
        # Who answers a 334 waits for what we say to it; what rides along is another test's.
        answer, _, rest = said.partition(b"\r\n")
        asked = at_once.session.state is State.AUTH
        for part in (answer + b"\r\n", rest) if asked else (said,):
            at_once.feed(part)
            in_pieces.feed_cut(part, cuts)

    assert in_pieces.events == at_once.events
    assert in_pieces.said == at_once.said


@settings(max_examples=300)
@given(
    st.lists(st.binary(max_size=300) | st.sampled_from([b + b"\r\n" for b in LINES]), max_size=8)
)
def test_anything_may_arrive(noise):
    """Noise is an event or a wait, never an exception; what is kept of it is bounded."""
    drive = Drive(WITH_AUTH)
    for piece in noise:
        drive.feed(piece)

        assert drive.session.buffered <= AUTH_BYTES_MAX
    assert all(100 <= code <= 599 for code in drive.codes)
