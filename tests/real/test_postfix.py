"""A real Postfix relays real mail through us to a real smtp-sink, bytes unharmed."""

import os
import signal
import smtplib
import subprocess
import tarfile
from collections import defaultdict
from hashlib import sha256

import pytest
from tests.harness import CORPORA, Installation, unsure, wait_for
from tests.peers.postfix import Postfix, common_ground, missing, smtp_sink

__all__ = ["common_ground", "smtp_sink"]

pytestmark = pytest.mark.real

TRACE = (
    b"received:", b"return-path:", b"delivered-to:", b"x-postweir-",  # added on the way
    b"x-mail-args:", b"x-rcpt-args:", b"x-helo-args:", b"x-client-addr:", b"x-client-proto:",
    b"x-authenticated-sender:", b"x-authuser:", b"x-php-originating-script:",  # read and removed
)  # fmt: skip


def corpus(limit=None):
    """Yield (name, bytes with CRLF) of the easy-ham-1 messages, without mbox `From ` lines."""
    archive = CORPORA / "spamassassin.tar.xz"
    if not archive.exists():
        pytest.skip("../shared/corpora/spamassassin.tar.xz is not here")
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if "easy-ham-1/" in m.name and m.isfile()]
        for member in members[:limit]:
            yield member.name, tar.extractfile(member).read()


def as_sent(raw):
    """Return a stored message as a mail program would send it: CRLF, no mbox line."""
    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def canonical(content):
    """Return the hash of what must not change: all header fields but trace, and the body."""
    head, _, body = content.partition(b"\r\n\r\n")
    fields, keep = [], True
    for line in head.split(b"\r\n"):
        if line[:1] not in (b" ", b"\t"):
            keep = not line.lower().startswith(TRACE)
        if keep:
            fields.append(line)
    return sha256(b"\r\n".join(fields)).hexdigest(), sha256(body).hexdigest()


def arrivals(folder):
    """Return what smtp-sink wrote, as it stood on the wire, by the number in the recipient."""
    found = defaultdict(list)
    for path in folder.iterdir():
        raw = path.read_bytes()
        number = raw.partition(b"X-Rcpt-Args: <r")[2].partition(b"@")[0]
        # smtp-sink writes bare LFs, its own X- lines before and an empty line after a message.
        found[number.decode()].append(canonical(raw.removesuffix(b"\n").replace(b"\n", b"\r\n")))
    return found


def bounced(log):
    """Return the reply that made Postfix bounce, by the number in the recipient."""
    found = {}
    for line in log.splitlines():
        if "status=bounced" in line and "to=<r" in line:
            number = line.partition("to=<r")[2].partition("@")[0]
            found[number] = line.partition(" said: ")[2].partition(" ref=")[0]
    return found


@pytest.mark.parametrize("killed", ["", "spool", "edge", "judge", "delivery"])
def test_the_corpus_through_postfix(killed, common_ground, smtp_sink):
    """2,500 messages arrive with body and headers identical; a killed process loses none."""
    if reason := missing():
        pytest.skip(reason)
    limit = None if not killed else 600
    sink_port, sink_folder = smtp_sink
    (common_ground / "pw").mkdir()
    here = Installation(
        common_ground / "pw", route={"*": f"127.0.0.1:{sink_port}"},
        edge={"workers": 2}, judge={"wait_ms": 5000}, delivery={"in_hand_max": 200, "retry_s": [1]},
    )  # fmt: skip
    sent, bare = {}, 0
    with here:
        here.start()
        username, secret = here.customer("acme")
        here.run("account", "set", "acme", "sender_messages_1h=100000")
        postfix = Postfix(
            common_ground / "customer", relay_port=here.port, username=username, secret=secret
        )
        try:
            wait_for(lambda: answers(postfix.port), 20, f"postfix answers\n{postfix.log()[-2000:]}")
            smtp = smtplib.SMTP("127.0.0.1", postfix.port, timeout=60)
            for number, (_, raw) in enumerate(corpus(limit)):
                content = as_sent(raw)
                bare += b"\r" in content.replace(b"\r\n", b"")
                smtp.mail("joe@customer.example")
                smtp.rcpt(f"r{number}@sink.example")
                code, said = smtp.docmd("DATA")
                assert code == 354, said
                smtp.send(stuffed(content) + b".\r\n")
                code, said = smtp.getreply()
                assert code == 250, (number, code, said)
                sent[str(number)] = canonical(content)
                if killed and number in (200, 400):
                    wait_for(lambda: running(here, killed), 10, f"{killed} runs")
                    os.kill(here.process(killed), signal.SIGKILL)
            smtp.quit()
            wait_for(lambda: postfix.queued() == 0, 240, "postfix has handed over all")
            log = postfix.log()
            ledger = settled(here)
        finally:
            postfix.stop()
    arrived, refused = arrivals(sink_folder), bounced(log)
    bare_refused = [r for r in refused.values() if r.startswith("550 5.6.0 ")]
    doubled = sum(len(copies) - 1 for n, copies in arrived.items() if n in sent)
    print(f"{len(sent)} sent, {len(arrived)} arrived, {doubled} doubled; refused: {refused}")

    assert {n for n in sent if n not in arrived} == set(refused), ledger
    assert all(copy == sent[n] for n in sent for copy in arrived.get(n, ()))
    assert len(bare_refused) == bare
    assert all(r.startswith(("550 5.6.0 ", "550 5.7.1 [CS] ")) for r in refused.values())
    assert len(refused) - bare <= len(sent) // 1000  # a program as an attachment
    assert ledger["residual"] == 0
    # A killed edge worker took its unsaid 250s along: Postfix comes again, RFC 1047. So it does
    # where no process of a killed shard was back within 1.5 s to say what it had: a 451, and told.
    in_doubt = unsure(here.log.read_text()) if killed == "spool" else 0
    assert doubled <= {"delivery": 2 * 200, "edge": 2 * 20}.get(killed, in_doubt), here.tail(60)


def running(here, kind):
    """True while that process is there."""
    try:
        return here.process(kind)
    except LookupError:
        return False


def settled(here):
    """Wait until all is delivered; returns the ledger."""
    found = {}

    def done():
        found.update(here.json("audit", status=None))
        return found["queued"] == found["pending"] == 0

    wait_for(done, 120, f"settled: {found}\n{here.tail()}")
    return found


def stuffed(content):
    """Return content with its dots doubled at line starts."""
    out = content.replace(b"\r\n.", b"\r\n..")
    out = b"." + out if out.startswith(b".") else out
    return out if out.endswith(b"\r\n") else out + b"\r\n"


def answers(port):
    """True when a server greets there."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=5):
            return True
    except (OSError, smtplib.SMTPException):
        return False


def test_the_recipe_is_what_postfix_reads(tmp_path):
    """postconf finds nothing unknown in the main.cf of docs/postfix.md."""
    if reason := missing(root=False):
        pytest.skip(reason)
    from tests.peers.postfix import ENVIRONMENT, PEERS, recipe

    (tmp_path / "main.cf").write_text(recipe())
    (tmp_path / "master.cf").write_text("")
    done = subprocess.run(
        [f"{PEERS}/usr/sbin/postconf", "-n", "-c", str(tmp_path)],
        env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "unused parameter" not in done.stderr
    assert "relayhost = [relay.example.net]:587" in done.stdout
