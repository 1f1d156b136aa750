"""`make demo`: an evening of mail in a scratch directory, told as it happens."""

import argparse
import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table

from demo.evening import EVENING, Customer, Letter, Said
from demo.installation import Installation, free_port
from demo.sink import Sink, World

DOWN_S = 4.0  # how long the site that is down stays down
PATIENCE_S = 25.0
FINAL = {"delivered", "bounced", "refused", "dropped"}


class Teller:
    """Prints what happens as it happens, from whatever thread it happens on."""

    def __init__(self, console: rich.console.Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, who: str, what: str, style: str = "") -> None:
        """Print one line."""
        with self._lock:
            at = f"{time.monotonic() - self._began:5.1f} s"
            self.console.print(
                f"{at}  {who:9} {what}", style=style, highlight=False, markup=False, soft_wrap=True
            )


def fates(here: Installation, sent: list[tuple[Letter, Said]]) -> list[dict[str, Any]]:
    """Return `message show` of every message that was sent."""
    return [here.json("message", "show", said.id) for _, said in sent]


def settle(here: Installation, sent: list[tuple[Letter, Said]]) -> list[dict[str, Any]]:
    """Wait until every recipient has its end; returns each message as it is shown."""
    until = time.monotonic() + PATIENCE_S
    while True:
        shown = fates(here, sent)
        open_ones = [r for m in shown for r in m["recipients"] if r["state"] not in FINAL]
        if not open_ones or time.monotonic() > until:
            return shown
        time.sleep(0.3)


def table(shown: list[dict[str, Any]], sent: list[tuple[Letter, Said]]) -> rich.table.Table:
    """Return what became of each message."""
    made = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("message", "sender", "verdict", "fate", "last reply"):
        made.add_column(heading, overflow="fold")
    for (letter, said), found in zip(sent, shown, strict=True):
        why = found["verdict"] + (f" ({found['rule']})" if found["rule"] else "")
        rows = [(r["address"], r["state"], r["reply"] or "") for r in found["recipients"]]
        if said.code >= 400:
            rows = [(", ".join(letter.to), "refused at the door", f"{said.code} {said.text}")]
        for number, (address, state, reply) in enumerate(rows):
            first = number == 0
            made.add_row(
                letter.title if first else "",
                found["sender"] if first else "",
                why if first else "",
                f"{state}: {address}",
                reply,
            )
    return made


@contextlib.contextmanager
def scratch(keep: bool) -> Iterator[Path]:
    """Give a short-named scratch directory; removed at the end unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="postweir-demo-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def send(teller: Teller, here: Installation, login: tuple[str, str]) -> list[tuple[Letter, Said]]:
    """Send the evening's mail; returns each letter with what was answered."""
    customer = Customer(here.port, *login)
    sent = []
    for letter in EVENING:
        said = customer.send(letter.user, letter.to, letter.message().as_bytes())
        style = "green" if said.code < 400 else "red"
        teller.tell("customer", f"{letter.title}, to {', '.join(letter.to)}")
        teller.tell("postweir", f"{said.code} {said.text}", style)
        sent.append((letter, said))
    customer.quit()
    return sent


def evening(teller: Teller, folder: Path, keep: bool) -> int:
    """Play the demo; returns the exit status."""
    down = free_port()
    world = World(tell=lambda what: teller.tell("world", what, "cyan"))
    sink, fine = Sink(world), free_port()
    sink.open(fine)
    here = Installation(
        folder,
        route={"down.example": f"127.0.0.1:{down}", "*": f"127.0.0.1:{fine}"},
        delivery={"retry_s": [2], "connect_s": 5},
    )
    with here:
        took_s = here.start()
        teller.tell(
            "postweir", f"ready after {took_s:.1f} s: edge, judge, 2 spool shards, delivery"
        )
        login = here.customer("acme")
        teller.tell("operator", f"account acme, credential {login[0]}")
        back = threading.Timer(DOWN_S, lambda: (sink.open(down), teller.tell(
            "world", "down.example is back", "cyan")))  # fmt: skip
        back.daemon = True
        back.start()
        sent = send(teller, here, login)
        shown = settle(here, sent)
        teller.console.print()
        teller.console.print(table(shown, sent))
        audit = here.json("audit", status=None)
        ledger = ", ".join(f"{k} {v}" for k, v in audit.items() if isinstance(v, int))
        teller.console.print(f"ledger, in recipients: {ledger}", highlight=False, soft_wrap=True)
        teller.console.print(f"residual {audit['residual']}", highlight=False)
        explain(teller.console, here, login, sent, keep)
        if keep:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    sink.close()
    done = all(r["state"] in FINAL for m in shown for r in m["recipients"])
    if not done or audit["residual"]:
        teller.console.print("not everything ended as it should; the log ends with:")
        teller.console.print(here.tail(), highlight=False, markup=False)
        return 1
    return 0


def explain(
    console: rich.console.Console,
    here: Installation,
    login: tuple[str, str],
    sent: list[tuple[Letter, Said]],
    keep: bool,
) -> None:
    """Say how to go on from here."""
    if not keep:
        console.print(
            "\nTo keep it running and send to it by hand: make demo DEMO=--keep", highlight=False
        )
        return
    command = f"{Path(sys.executable).parent}/postweir"
    console.print(
        f"\nIt goes on running; ^C stops it. In another terminal:\n"
        f"  {command} message show {sent[0][1].id} -c {here.config}\n"
        f"  {command} queue ls -c {here.config}\n"
        f"  {command} audit -c {here.config}\n"
        f"Send to it: 127.0.0.1:{here.port} (STARTTLS) or {here.port_tls} (TLS),\n"
        f"  user {login[0]}, password {login[1]}; dead@… bounces, …@grey.… is greylisted\n"
        f"Metrics: curl http://127.0.0.1:{here.port_metrics}/metrics",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def main() -> int:
    """Play the demo; returns the exit status."""
    reader = argparse.ArgumentParser(prog="make demo", description=__doc__)
    reader.add_argument("--keep", action="store_true", help="keep it running afterwards")
    asked = reader.parse_args()
    console = rich.console.Console(width=None if sys.stdout.isatty() else 132)
    with scratch(asked.keep) as folder:
        return evening(Teller(console), folder, asked.keep)


if __name__ == "__main__":
    sys.exit(main())
