"""One plain function a parser: any bytes go in, a promise of the parser is checked, none raises.

Each is what a fuzzer calls; SEEDS has bytes from which it is worth starting.
"""

from collections.abc import Callable
from itertools import pairwise

from tests.fuzz.watching import Watch

from postweir.edge.sasl import MECHANISMS, Challenge, Sasl
from postweir.identity.attribution import HEADERS, OURS, attribute, normal
from postweir.identity.sender import IDENTITY_BYTES_MAX, Account
from postweir.identity.upstream import read_hop
from postweir.judge.ports import JudgeFrame
from postweir.mail.address import parse_path, split_path
from postweir.mail.domains import Domains
from postweir.mail.headers import fields, header_end, is_crowded, without
from postweir.mail.lines import DataReader, has_strays
from postweir.mail.mailboxes import MAILBOXES_MAX, mailboxes
from postweir.mail.message import read
from postweir.mail.received import loops, received
from postweir.mail.replies import TEXT_BYTES_MAX
from postweir.mail.reports import Failure, dsn
from postweir.mail.smtp_client import ClientSession, Done, GoAhead, Lost, Ready, TlsNow, Transaction
from postweir.mail.smtp_server import Offers, State
from postweir.mail.words import text_of, words_of
from postweir.policy.bundle import from_canonical
from postweir.policy.document import Fault, Wrong, parse
from postweir.policy.parts import parts
from postweir.runtime.frames import Splitter, Torn, encode
from postweir.runtime.log import quiet
from postweir.scan.archives import LIST_MAX, UNPACKED_BYTES_MAX, Budget, entries
from postweir.scan.attachments import Attachments
from postweir.scan.content import Content
from postweir.scan.finding import Scanner
from postweir.scan.header import Header
from postweir.scan.hosts import host_of, is_confusable, is_numeric
from postweir.scan.kinds import ARCHIVES, kind_of
from postweir.scan.links import Links
from postweir.scan.page import Reader, unescaped
from postweir.scan.text import Text
from postweir.spool.ports import ShardFrame

OFFERS = Offers("relay.example.net", 1_000_000, True, MECHANISMS)
DOMAINS = Domains()
SCANNERS: list[Scanner] = [
    Header(DOMAINS), Content(), Text(), Links("", quiet(), DOMAINS), Attachments(),
]  # fmt: skip
PAGES = Reader()
SCRAPS_MAX = 200  # pieces of one input: a fuzzer's time is for many inputs


def pieces(data: bytes) -> list[bytes]:
    """Cut the input where it says: 0xFE is no byte of SMTP."""
    return data.split(b"\xfe", SCRAPS_MAX)


def fuzz_smtp_server(data: bytes) -> None:
    """However bytes arrive: whole lines, the reference's messages, and never a word of theirs."""
    watch = Watch(OFFERS, normalise=data.startswith(b"\xfd"))
    for piece in pieces(data.removeprefix(b"\xfd")):
        watch.feed(piece)
        if watch.session.state is State.TLS and not watch.session.buffered:
            watch.session.restart()
            assert not watch.session.authenticated
    for said in filter(None, watch.said):
        assert said.endswith(b"\r\n")
        assert all(line[:3].isdigit() for line in said.split(b"\r\n")[:-1])
        assert b"zQx" not in said  # what the seeds say, and no sentence of ours


def fuzz_message(data: bytes) -> None:
    """A message ends at CRLF.CRLF only, and no stray is taken in silence."""
    whole, wire = DataReader(), b"".join(pieces(data)) + b"\r\n.\r\n"
    body, end = whole.feed(wire)
    assert end == wire.find(b"\r\n.\r\n") + 5 or wire.startswith(b".\r\n")
    assert whole.bare_newline == has_strays(b"\r\n" + wire[: max(end - 3, 0)])
    cut, got = DataReader(), b""
    for piece in [*pieces(data), b"\r\n.\r\n"]:
        part, end = cut.feed(piece)
        got += part
        if end >= 0:
            break
    assert (got, cut.bare_newline, cut.nul) == (body, whole.bare_newline, whole.nul)


def fuzz_smtp_client(data: bytes) -> None:
    """Whatever a remote says, each recipient gets one reply, bounded and printable."""
    session = ClientSession("relay.example.net", want_tls=True)
    sent, done = False, 0
    for piece in pieces(data):
        session.receive(piece)
        while (event := session.next_event()) is not None:
            match event:
                case Ready() if not sent:
                    sent = True
                    session.send(Transaction("a@b", ("c@d", "e@f"), 4, False, [b"hi\r\n"]))
                case TlsNow():
                    session.secured()
                case GoAhead():
                    b"".join(session.content())
                case Done(replies=replies):
                    done += 1
                    assert len(replies) == 2
                    assert all(len(r.text) <= 2 * TEXT_BYTES_MAX for r in replies)
                    assert all(r.text.replace("\n", "").isprintable() for r in replies)
                case Lost(reply=reply):
                    assert reply.text.replace("\n", "").isprintable()
        session.outgoing().decode("ascii")
    assert done <= sent


def fuzz_headers(data: bytes) -> None:
    """Fields lie side by side; taking identity off leaves none, and all else byte for byte."""
    end = header_end(data)
    header = data[:end]
    found = fields(header)
    assert all(a.end <= b.start for a, b in pairwise(found))
    if is_crowded(header):
        return
    taken = attribute(
        Account("acme"), auth_username="", fields=found, client="192.0.2.1", mail_from="a@b"
    )
    assert taken.sender.identity
    left = without(header, taken.strip)
    assert len(left) + sum(f.end - f.start for f in found if f.start in taken.strip) == end
    again = {field.name for field in fields(left)}
    assert not again & {*HEADERS, *OURS}
    loops(found, "relay.example.net")


def fuzz_address(data: bytes) -> None:
    """An address is nothing, or is written one way: read again, it is the same; on one line."""
    text = data.decode("latin-1")
    path, _ = split_path(text)
    for candidate in (text, path, f"<{text}>"):
        address = parse_path(candidate)
        if address:
            assert address.isascii()
            assert address.isprintable()
            assert parse_path(f"<{address}>") == address


def fuzz_upstream(data: bytes) -> None:
    """A Received line of anybody's making gives printable answers; ours cannot be broken out of."""
    text = data.decode("latin-1")
    hop = read_hop(text)
    assert hop.id.isprintable()
    assert hop.internal in (True, False)
    identity = normal(hop.user)
    assert identity.isprintable()
    assert len(identity.encode()) <= IDENTITY_BYTES_MAX
    ours = received(
        helo=text, client=text[:50], rdns="", by="relay.example.net", protocol="ESMTPS", id="0",
        tls="TLSv1.3", at_s=0.0, recipients=2,
    )  # fmt: skip
    assert [f.name for f in fields(ours)] == ["received"]
    assert ours.count(b"\n") == ours.count(b"\r\n\t") + 1
    assert not read_hop(fields(ours)[0].value).users


def fuzz_dsn(data: bytes) -> None:
    """A report is 7-bit CRLF lines of bounded length, whatever the remote and the original say."""
    text = data.decode("latin-1")
    report = dsn(
        id="0" * 16, hostname="relay.example.net", to="a@b", original_id="1" * 16,
        arrived_at_s=0.0, at_s=1.0, original_header=data,
        failures=[Failure(text[:60], text[60:70], text, text[70:90])],
    )  # fmt: skip
    assert report.isascii()
    assert not has_strays(report)
    assert max(map(len, report.split(b"\r\n"))) <= 998
    assert report.count(b"\r\n--=_") == 4


def fuzz_sasl(data: bytes) -> None:
    """Any answers end in a claim, in nothing, or wait for one more."""
    for mechanism in MECHANISMS:
        sasl = Sasl(mechanism)
        step: object = sasl.begin(None)
        for piece in pieces(data):
            if not isinstance(step, Challenge):
                break
            step = sasl.answer(piece)


def fuzz_frames(data: bytes) -> None:
    """A neighbour's bytes are frames, or the link is torn; what was read is written the same."""
    for family in (ShardFrame, JudgeFrame):
        splitter: Splitter[object] = Splitter(family)
        try:
            for piece in pieces(data):
                encode(splitter.feed(piece))
        except Torn:
            continue


def fuzz_scan(data: bytes) -> None:
    """Any message is measured by every scanner: all it declares, of the types it declares."""
    message = read(data)
    for scanner in SCANNERS:
        seen = scanner.scan(message)
        assert {name: type(value) for name, value in seen.measures.items()} == scanner.facts
        assert all(0.0 <= finding.certainty <= 1.0 for finding in seen.findings)
        assert all(v >= 0 for v in seen.measures.values() if isinstance(v, int | float))


def fuzz_page(data: bytes) -> None:
    """A page shows no more than stands in it, and its anchors' text is within what it shows."""
    page = PAGES.read(data)
    shown = page.text.translate(None, b" ")
    assert max(len(shown), page.hidden_bytes) <= len(data)
    assert sum(len(text.translate(None, b" ")) for _, text in page.anchors) <= len(shown)
    unescaped(data.decode("latin-1"))


def fuzz_archives(data: bytes) -> None:
    """An archive's list ends, and no more is unpacked than there is room for."""
    for kind in {kind_of(data), *ARCHIVES}:
        budget = Budget()
        assert len(list(entries(kind, data, budget))) <= 4 * LIST_MAX
        assert 0 <= budget.unpacked <= UNPACKED_BYTES_MAX


def fuzz_people(data: bytes) -> None:
    """Names and addresses of any field are text, and hosts are lower-case, in one word."""
    data = data[:1000]  # no header field is longer, and each address costs
    value = data.decode("latin-1")
    words_of(value)
    for charset in ("utf-7", "iso-2022-jp", "big5", "x"):
        text_of(data, charset)
    boxes = mailboxes(value)
    assert len(boxes) <= MAILBOXES_MAX
    for box in boxes:
        host = host_of(box.address.rpartition("@")[2].encode("latin-1")[:255])
        assert host == host.lower()
        assert " " not in host
        is_numeric(host)
        is_confusable(host)
        is_confusable("xn--" + host)


def fuzz_policy(data: bytes) -> None:
    """A text is a bundle that comes back from its bytes, or has faults with something to do."""
    text = data.decode("utf-8", "replace")
    faults: tuple[Fault, ...] = ()
    try:
        parsed = parse(text, "p.toml", lambda _: data)
    except Wrong as wrong:
        faults = wrong.faults or (Fault("", "", "it does not say why", ""),)
    if faults:
        assert all(one.where and one.what and one.do for one in faults)
        return
    assert from_canonical(parsed.bundle.canonical) == parsed.bundle
    assert all(parts(rule.when) for rule in parsed.bundle.rules)


_ENVELOPE = b"EHLO zQx\r\nMAIL FROM:<zQx@b.example> SIZE=9\r\nRCPT TO:<zQx@d.example>\r\nDATA\r\n"
_RECEIVED = (
    b"from zQx (mx.example [192.0.2.7]) (Authenticated sender: joe@b.example)"
    b" by out.example (Postfix) with ESMTPSA id 4XYZ; Tue, 24 Nov 2026 10:00:00 +0000"
)
SEEDS: dict[Callable[[bytes], None], list[bytes]] = {
    fuzz_smtp_server: [
        _ENVELOPE + b"\xfeSubject: zQx\r\n\r\n..hi\r\n.\r\nQUIT\r\n",
        b"EHLO x\r\n\xfeSTARTTLS\r\n\xfeEHLO x\r\nAUTH PLAIN\r\n\xfeAHNvcAB0\r\n\xfeNOOP\r\n",
        b"EHLO x\r\nAUTH LOGIN\r\n\xfe*\r\nAUTH zQx =\r\nVRFY zQx\r\nHELP\r\nRSET\r\nzQx\r\nzQx\n",
        b"\xfd"
        + _ENVELOPE
        + b"\xfea\n.\r\n\xfe\r\xfe\n..b\r.\r\n\r\n.\r\nRSET\r\n"
        + _ENVELOPE[9:],
        b"HELO [192.0.2.1]\r\nMAIL FROM:<> BODY=8BITMIME AUTH=<zQx> zQx=1\r\nRCPT TO:<zQx>\r\n",
    ],
    fuzz_message: [b"a\r\n..b\r\n", b".\r\n.\n.\r", b"a\xfe\r\xfe\n.\xfe\r\n", b"\0\r\n.\r\r\n"],
    fuzz_smtp_client: [
        b"220 hi\r\n\xfe250-x\r\n250-PIPELINING\r\n250 SIZE 100\r\n\xfe250 2.1.0 a\r\n250 b\r\n"
        b"550 5.1.1 c\r\n354 go\r\n\xfe250 2.0.0 done\r\n",
        b"220 x\r\n\xfe250-x\r\n250 STARTTLS\r\n\xfe220 go\r\n\xfe250 x\r\n\xfe421 4.3.2 bye\r\n",
    ],
    fuzz_headers: [
        b"Received: " + _RECEIVED + b"\r\nX-AuthUser : joe\r\n\tx\r\nTo: a\r\n\r\nbody",
        b"X-Authenticated-Sender\r\n : a@b\r\nX-Postweir-Id: 1\nResent-From: x\r\n\r\n",
        b" X-PHP-Originating-Script: 1:a\r\nnonsense\r\n\xff: x\r\nX-Postweir-Loop: a b\r\n",
    ],
    fuzz_address: [
        b"<joe@Example.com>",
        b'<"a\\"> b"@x.y> SIZE=1',
        b"<@a,@b:c@d>",
        b"<a@[IPv6:::1]>",
        b"<>",
        b"<Postmaster>",
    ],
    fuzz_upstream: [
        _RECEIVED,
        b"from [192.0.2.1] (helo=x) by y with esmtpa (Exim 4) id 1a; x",
        b"by x (Postfix, from userid 33) id 9A; y",
        b"from a (b\\) (c [::ffff:10.0.0.1]))",
    ],
    fuzz_dsn: [
        b"550 5.1.1 no\r\nsuch user",
        b"Subject: hi\r\nTo: \xff\r\n\r\nbody",
        b"5.1.1[x]:25",
    ],
    fuzz_sasl: [b"\0user\0secret", b"user\xfesecret", b"a\0b\0c\0d"],
    fuzz_scan: [
        b'From: "a@b.com" <c@d.com>\r\nSubject: =?utf-8?q?x?=\r\nContent-Type: multipart/mixed;'
        b" boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-7\r\n\r\n"
        b"<a href=http://x.com/>www.y.com</a>\r\n--b\r\nContent-Type: a/b; name=a.zip\r\n\r\n"
        b"PK\x03\x04\r\n--b--\r\n",
        b"Content-Type: text/plain; charset=utf-16\r\n\r\nh\0t\0t\0p\0:\0/\0/\0x\0",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<b=\r\n>x",
    ],
    fuzz_page: [
        b"<p style='display:none'>a<b>c</b></p><a href=\"x>y\">z</a><!-- <x> --><script>1</script>",
        b"<font color=white>a</font><img width=1><form action=javascript:x><div hidden>&#65;&amp;",
    ],
    fuzz_archives: [
        b"PK\x03\x04"
        + b"\0" * 22
        + b"\x05\0\0\0a.zip"
        + b"PK\x01\x02"
        + b"\0" * 24
        + b"\x05\0"
        + b"\0" * 16
        + b"a.zip"
        + b"PK\x05\x06"
        + b"\0" * 8
        + b"\x33\0\0\0"
        + b"\x23\0\0\0\0\0",
        b"a.txt".ljust(124, b"\0") + b"00000000010\0".ljust(133, b"0") + b"ustar" + b"\0" * 800,
        b"\x1f\x8b\x08\x08\0\0\0\0\0\3name\0\x4b\x04\0\x43\xbe\xb7\xe8\1\0\0\0",
        b"Rar!\x1a\x07\x01\0" + b"\0\0\0\0\x0d\2\0\0\1\0\0\0\5a.exe" * 3,
        b"Rar!\x1a\x07\0" + (b"\0\0\x74\0\x80\x25\0" + b"\0" * 19 + b"\5\0\0\0\0\0a.exe") * 3,
    ],
    fuzz_people: [
        b'"a (b) <c@d>" <e@f.example>, (x) g@h, grp: i@j, k@l;',
        b"=?utf-8?q?a=20?= =?utf-7?b?K2A=?= <x@xn--bd-xka.example>, \xc3\xbc@\xc3\xbc.0x1",
    ],
    fuzz_frames: [
        b"\x00\x00\x00\x07\x92\xa4Safe\x01",
        b"\x00\x00\x00\x05\x91\xa4Wake\xfe\x00\x00",
        b"\x00\x00\x00\x08\x91\xa6Nobody",
        b"\xff\xff\xff\xff",
    ],
    fuzz_policy: [
        b'[limits]\nmany = 3\n[[rule]]\nid = "a"\nwhen = "body.parts > limit.many"\n'
        b'then = { verb = "hold" }\n[[rule.test]]\nfacts = { body.parts = 4 }\n',
        b'[[set]]\nid = "s"\nof = "client"\nitems = ["192.0.2.0/30"]\n[[rule]]\nid = "b"\n'
        b"when = '''\nset.s && (body.known || text.html)'''\n"
        b'then = { verb = "tag", header = "X-A: b" }\nhelp = """\nx\n[[rule]]"""\n',
        b'[[pattern]]\nid = "p"\nof = "subject"\npattern = "(?i)gift"\n[[throttle]]\nid = "t"\n'
        b'key = "sender"\nof = "bytes"\nrate = 1\nper_s = 2\nburst = 3\n[[rule]]\nid = "c"\n'
        b'when = "pattern.p && throttle.t > 0"\n'
        b'then = { verb = "throttle", throttle = "t", code = "SS", text = "x" }\n',
        b'# k\na.example\nb.example\n[[set]]\nid = "s"\nof = "url_hosts"\nfile = "k.txt"\n',
    ],
}
TARGETS = {target.__name__.removeprefix("fuzz_"): target for target in SEEDS}
