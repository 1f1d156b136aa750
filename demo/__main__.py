"""`make demo`: an evening of mail in a scratch directory, told as it happens."""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.evening import EVENING, Customer, Letter, Said
from demo.installation import Installation, free_port
from demo.ruling import rule
from demo.sink import Sink, World
from demo.telling import Teller, rows

DOWN_S = 4.0  # how long the site that is down stays down
PATIENCE_S = 25.0
FINAL = {"delivered", "bounced", "refused", "dropped"}
ENDS = ("delivered", "bounced", "refused", "dropped", "held", "queued", "pending")
INTERRUPTED = 130

Sent = list[tuple[Letter, Said]]
Shown = list[dict[str, Any]]


def settle(here: Installation, sent: Sent) -> Shown:
    """Wait until every recipient has its end; returns each message as it is shown."""
    until = time.monotonic() + PATIENCE_S
    while True:
        shown = [here.json("message", "show", said.id) for _, said in sent]
        if ended(shown) or time.monotonic() > until:
            return shown
        time.sleep(0.3)


def ended(shown: Shown) -> bool:
    """True when every recipient has its end."""
    return all(r["state"] in FINAL for m in shown for r in m["recipients"])


@contextlib.contextmanager
def scratch(keep: bool) -> Iterator[Path]:
    """Give a short-named scratch directory; removed at the end unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="postweir-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"its mail and log are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def send(teller: Teller, here: Installation, login: tuple[str, str]) -> Sent:
    """Send the evening's mail; returns each letter with what was answered."""
    customer = Customer(here.port, *login)
    sent = []
    for letter in EVENING:
        teller.tell("customer", f"{letter.title}: {letter.user} to {', '.join(letter.to)}")
        said = customer.send(letter.user, letter.to, letter.message().as_bytes())
        style = "green" if said.code < 400 else "red"
        teller.tell("postweir", f"{said.code} {said.text}", style)
        sent.append((letter, said))
    customer.quit()
    return sent


def evening(teller: Teller, folder: Path, keep: bool) -> int:
    """Play the demo; returns the exit status."""
    down = free_port()
    sink = Sink(World(tell=lambda what: teller.tell("world", what, "cyan")))
    fine = free_port()
    sink.open(fine)
    here = Installation(
        folder,
        route={"down.example": f"127.0.0.1:{down}", "*": f"127.0.0.1:{fine}"},
        delivery={"retry_s": [2], "connect_s": 5},
    )

    def come_back() -> None:
        teller.tell("world", "down.example is back", "cyan")
        sink.open(down)

    with here:
        took_s = here.start()
        teller.tell(
            "postweir", f"ready after {took_s:.1f} s: edge, judge, 2 spool shards, delivery"
        )
        login = here.customer("acme")
        teller.tell("operator", f"account acme, credential {login[0]}")
        back = threading.Timer(DOWN_S, come_back)
        back.daemon = True
        back.start()
        sent = send(teller, here, login)
        shown = settle(here, sent)
        closes = conclude(teller, here, shown, sent)
        bites = rule(teller, here, login, sent[-1][1].id)
        explain(teller, here, login, sent, keep)
        if keep:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            teller.line("stopping")
    sink.close()
    if ended(shown) and closes and bites:
        return 0
    teller.line("not everything ended as it should; the log ends with:")
    teller.line(here.tail())
    return 1


def conclude(teller: Teller, here: Installation, shown: Shown, sent: Sent) -> bool:
    """Show what became of all, one life whole, and the ledger; True when it closes."""
    teller.title("What became of it (account acme)")
    teller.table(rows(shown, sent))
    for message in shown:
        if any(r["state"] == "bounced" for r in message["recipients"]):
            teller.title(f"Everyone can see why: postweir message show {message['id']}")
            for line in here.run("message", "show", message["id"]).splitlines():
                teller.line(line, indent=28)
            break
    audit = here.json("audit", status=None)
    teller.title("Is all there? postweir audit, in recipients; our own bounce is one")
    ends = " + ".join(f"{end} {audit[end]}" for end in ENDS)
    teller.line(f"accepted {audit['accepted']} = {ends}")
    teller.line(f"residual {audit['residual']}", "red" if audit["residual"] else "green")
    return audit["residual"] == 0


def explain(
    teller: Teller, here: Installation, login: tuple[str, str], sent: Sent, keep: bool
) -> None:
    """Say how to go on from here."""
    if not keep:
        teller.title("To keep it running and send to it by hand: make demo DEMO=--keep")
        return
    command = f"{Path(sys.executable).parent}/postweir"
    teller.title("It goes on running; ^C stops it. In another terminal:")
    first, last = sent[0][1].id, sent[-1][1].id
    for words in (f"message show {first}", f"message why {last}", "policy status", "audit"):
        teller.line(f"  {command} {words} -c {here.config}", indent=6)
    teller.title("Send to it by hand")
    teller.line(f"  server    127.0.0.1:{here.port} (STARTTLS) or 127.0.0.1:{here.port_tls} (TLS)")
    teller.line(f"  user      {login[0]}")
    teller.line(f"  password  {login[1]}")
    teller.line("  to        dead@... bounces; ...@grey.example is greylisted; others arrive")
    teller.line(f"  metrics   curl http://127.0.0.1:{here.port_metrics}/metrics")


def main() -> int:
    """Play the demo; returns the exit status."""
    reader = argparse.ArgumentParser(prog="make demo", description=__doc__)
    reader.add_argument("--keep", action="store_true", help="keep it running afterwards")
    asked = reader.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed window ends it as ^C does
        signal.signal(number, signal.default_int_handler)
    try:
        with scratch(asked.keep) as folder:
            return evening(Teller(), folder, asked.keep)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
