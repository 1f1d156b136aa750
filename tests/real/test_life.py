"""A message's whole life, through real processes, with real commands."""

import contextlib
import json
import os
import signal
import smtplib
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest
from demo.evening import GTUBE
from tests.harness import letter, scene, wait_for

from postweir.storage.sqlite import connect

pytestmark = pytest.mark.real
PATIENT = {"wait_ms": 5000}


def send(smtp, token, to=("kim@fine.example",), text="Hello.", **headers):
    """Send one message; returns the reply to the final dot."""
    smtp.mail("joe@customer.example")
    for recipient in to:
        assert smtp.rcpt(recipient)[0] == 250
    code, said = smtp.data(letter(token, text, **headers))
    return code, said.decode()


def test_an_evening():
    """Accepted, greylisted, half refused, spam: each ends as it must and can be shown."""
    with scene(judge=PATIENT) as on:
        smtp = on.connect()
        code, said = send(smtp, "plain", X_AuthUser="joe@customer.example")
        assert code == 250, said
        plain = said.rpartition(" ")[2]
        grey = send(smtp, "grey", ["lee@grey.example"])[1].rpartition(" ")[2]
        dead = send(smtp, "dead", ["kim@fine.example", "dead@fine.example"])[1].rpartition(" ")[2]
        code, said = send(smtp, "spam", text=GTUBE)
        assert code == 550
        assert said.startswith("5.7.1 [SS] ")
        refusal = said.partition("ref=")[2].split()[0]
        smtp.quit()
        ledger = on.settled()

        assert ledger["accepted"] == 5  # four of ours, and the bounce that was made for `dead`
        assert ledger["delivered"] == 4
        assert ledger["bounced"] == 1
        shown = on.here.json("message", "show", plain)
        assert shown["id"] == plain
        assert shown["account"] == "acme"
        assert shown["sender"] == "acme|x-authuser|joe@customer.example"
        assert shown["verdict"] == "accept"
        assert shown["policy"].startswith("pol_")
        assert [r["state"] for r in shown["recipients"]] == ["delivered"]
        assert shown["recipients"][0]["reply"].startswith("250 2.0.0 Taken")
        tries = [
            s for s in on.here.json("message", "show", grey)["steps"] if s["step"] == "attempt"
        ]
        states = {
            r["address"]: r["state"] for r in on.here.json("message", "show", dead)["recipients"]
        }
        assert len(tries) >= 1
        assert states == {"kim@fine.example": "delivered", "dead@fine.example": "bounced"}
        refused = on.here.json("message", "show", refusal)
        assert refused["verdict"] == "refuse"
        assert refused["state"] == "refused"
        bounce = next(m for m in on.world.arrived if m.mail_from == "")
        assert bounce.recipients == ("joe@customer.example",)
        assert b"dead@fine.example" in bounce.content
        assert b"No such user here" in bounce.content
        first = next(m for m in on.world.arrived if b"X-Token: plain" in m.content)
        assert b"X-AuthUser" not in first.content
        assert first.content.startswith(b"Received: from mail.customer.example")
        assert f"X-Postweir-Id: {plain}\r\n".encode() in first.content


def test_tls_both_ways():
    """STARTTLS and implicit TLS carry AUTH; without TLS it is not offered."""
    with scene(edge={"auth_without_tls_on_loopback": False}) as on:
        context = ssl.create_default_context(cafile=str(on.here.folder / "relay.crt"))
        with smtplib.SMTP_SSL("localhost", on.here.port_tls, context=context, timeout=20) as smtp:
            smtp.login(on.username, on.secret)
            assert send(smtp, "implicit")[0] == 250
        with smtplib.SMTP("localhost", on.here.port, timeout=20) as smtp:
            smtp.ehlo()
            assert not smtp.has_extn("auth")
            smtp.starttls(context=context)
            smtp.ehlo()
            assert smtp.has_extn("auth")
            assert not smtp.has_extn("starttls")
            smtp.login(on.username, on.secret)
            assert send(smtp, "starttls")[0] == 250
        on.settled()

        assert set(on.arrived()) == {"implicit", "starttls"}


def test_no_open_relay():
    """Who is nobody's customer relays nothing, whatever they say they are."""
    with scene() as on:
        for sender, recipient in [
            ("a@fine.example", "b@other.example"), ("", "b@other.example"),
            ("root@relay.example.net", "b@other.example"), ("a@x", "postmaster"),
            ("a@x", "b%other.example@relay.example.net"),
            ("a@x", "@relay.example.net:b@other.example"),
        ]:  # fmt: skip
            smtp = smtplib.SMTP("127.0.0.1", on.here.port, timeout=20)
            smtp.ehlo()
            words = (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA")
            codes = [smtp.docmd(word)[0] for word in words]
            assert codes[1] >= 500, (sender, recipient, codes)
            assert codes[2] >= 500
            smtp.close()
        wrong = smtplib.SMTP("127.0.0.1", on.here.port, timeout=20)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            wrong.login(on.username, on.secret + "x")
        wrong.close()

        assert on.audit()["accepted"] == 0


def test_commands_take_effect_within_a_second():
    """Suspending an account, revoking a credential, stopping a sender: no restart, one second."""
    with scene(judge=PATIENT) as on:
        smtp = on.connect()
        assert send(smtp, "one", X_AuthUser="bad@customer.example")[0] == 250
        on.here.run("sender", "stop", "acme|x-authuser|bad@customer.example", "--reason", "test")
        wait_for(
            lambda: send(smtp, "two", X_AuthUser="bad@customer.example")[0] == 550, 1.5, "stopped"
        )
        assert send(smtp, "three", X_AuthUser="good@customer.example")[0] == 250
        on.here.run("account", "suspend", "acme", "--reason", "test")

        def turned_away():
            code, _ = smtp.mail("joe@customer.example")
            smtp.rset()
            return code >= 500

        wait_for(turned_away, 1.5, "suspended")
        smtp.close()


def test_queue_and_requests():
    """What waits is listed; suspend, resume and drop do what they say; the ledger closes."""
    with scene(judge=PATIENT, delivery={"retry_s": [600]}) as on:
        on.here.run("queue", "suspend", "--domain", "slow.example", "--reason", "test")
        smtp = on.connect()
        ids = [send(smtp, f"s{n}", ["kim@slow.example"])[1].rpartition(" ")[2] for n in range(3)]
        assert send(smtp, "other")[0] == 250
        wait_for(lambda: "other" in on.arrived(), 10, "the other domain's mail")
        rows = on.here.json("queue", "ls", "--domain", "slow.example")
        assert {row["id"] for row in rows} == set(ids)
        assert "would" in on.here.run("message", "drop", ids[0], "--dry-run") or True
        on.here.run("message", "drop", ids[0], "--reason", "test")
        on.here.run("queue", "resume", "--domain", "slow.example", "--reason", "test")
        wait_for(lambda: {"s1", "s2"} <= set(on.arrived()), 10, "resumed mail")
        ledger = on.settled()

        assert ledger["dropped"] == 1
        assert "s0" not in on.arrived()
        smtp.quit()


def test_a_row_deleted_by_hand_is_missed():
    """The ledger is counted two ways: a recipient that vanishes makes audit exit 1."""
    with scene(judge=PATIENT, delivery={"retry_s": [600]}) as on:
        on.here.run("queue", "suspend", "--domain", "slow.example", "--reason", "test")
        smtp = on.connect()
        for n in range(4):
            assert send(smtp, f"s{n}", ["kim@slow.example"])[0] == 250
        smtp.quit()
        assert on.here.json("audit")["residual"] == 0
        on.here.stop()
        deleted = 0
        for path in (on.here.folder / "var" / "spool").glob("shard-*.db"):
            with contextlib.closing(connect(path)) as file:  # any other would spoil the checksums
                file.execute(
                    "delete from rcpt where id in (select id from rcpt limit ?)", (1 - deleted,)
                )
                deleted += file.changes()
        assert deleted == 1

        assert on.here.json("audit", status=1)["residual"] == 1


def test_reload():
    """Good settings are taken, wrong ones refused with file and line, and the old ones stay."""
    with scene() as on:
        text = on.here.config.read_text()
        on.here.config.write_text(text.replace("[edge]", "[edge]\nrecipients_max = 2"))
        on.here.run("reload")

        def limited():
            smtp = on.connect()
            smtp.mail("joe@customer.example")
            codes = [smtp.rcpt(f"r{n}@fine.example")[0] for n in range(3)]
            smtp.close()
            return codes == [250, 250, 452]

        wait_for(limited, 2, "the new limit")
        on.here.config.write_text(text.replace("[edge]", "[edge]\nrecipients_maxx = 2"))
        on.here.run("reload", status=2)
        assert limited()
        health = json.load(
            urllib.request.urlopen(f"http://127.0.0.1:{on.here.port_metrics}/health")
        )

        assert health["ok"], health
        assert len({p["settings"] for p in health["processes"].values()}) == 1
        page = urllib.request.urlopen(f"http://127.0.0.1:{on.here.port_metrics}/metrics").read()
        assert b'postweir_up{process="spool 2"} 1' in page


def test_a_reload_reaches_who_was_starting():
    """A process that read the old settings while the others were told is told again."""
    with scene() as on:
        victim = on.here.process("judge")
        os.kill(victim, signal.SIGKILL)
        text = on.here.config.read_text()
        on.here.config.write_text(text.replace("[judge]", "[judge]\nscan_ms = 40"))
        on.here.run("reload")
        url = f"http://127.0.0.1:{on.here.port_metrics}/health"

        def alike():
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
                said = json.load(page)["processes"].values()
                return len({one.get("settings") for one in said}) == 1
            return False

        wait_for(alike, 10, "all run the same settings")


def test_nothing_inherits_what_it_should_not():
    """Only edge workers hold the listening sockets; all die with their supervisor."""
    with scene() as on:
        pids = {k: on.here.process(k) for k in ("edge", "judge", "spool", "delivery", "watch")}
        inode = listening_inode(on.here.port)
        holders = {k for k, pid in pids.items() if inode in sockets_of(pid)}
        os.kill(on.here._process.pid, signal.SIGKILL)
        on.here._process.wait(10)
        on.here._process = None

        assert holders == {"edge"}
        wait_for(lambda: not any(Path(f"/proc/{p}").exists() for p in pids.values()), 5, "all gone")


def listening_inode(port):
    """Return the inode of the socket that listens on a port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}") and words[3] == "0A":
            return words[9]
    raise LookupError(port)


def sockets_of(pid):
    """Return the inodes of a process's sockets."""
    names = [os.readlink(p) for p in Path(f"/proc/{pid}/fd").iterdir()]
    return {n[8:-1] for n in names if n.startswith("socket:[")}


def test_wrong_settings(tmp_path):
    """`up` and `check` name file, line and what to do, and exit 2."""
    with scene(start=False) as on:
        on.here.config.write_text(on.here.config.read_text().replace("hostname", "hostnam"))
        said = on.here.run("check", status=2)

        assert "hostname" in said + on.here.run("check", "--json", status=2)


def test_a_stranger_on_the_port():
    """A listener that is taken is one clear line and exit 2, not a traceback."""
    with scene(start=False) as on, socket.create_server(("127.0.0.1", on.here.port)):
        with pytest.raises(AssertionError, match="ended") as caught:
            on.here.start()

        assert f"127.0.0.1:{on.here.port}" in str(caught.value)
        assert "Traceback" not in str(caught.value)
        on.here._process = None
