"""A rule of the operator's own comes into force while mail flows, explains itself, and goes."""

import time
from pathlib import Path

from demo.evening import BEN, Customer, Letter
from demo.installation import Installation, wait_for
from demo.telling import Teller

SOON_S = 20.0
CROWD = Letter(
    "to a crowd", BEN, tuple(f"guest{n}@fine.example" for n in range(12)), "Summer party",
    "Dear all,\n\nthe party is in the garden.\n\nBen\n",
)  # fmt: skip
RULE = """[[rule]]
id = "crowd"
when = "envelope.recipients > 10"
then = { verb = "defer", code = "STF", text = "Too many recipients at once.", retry_after_s = 600 }
owner = "abuse desk"
severity = "low"
help = "Write to ten at a time."
[[rule.test]]
facts = { "envelope.recipients" = 11 }
matches = true
[[rule.test]]
facts = { "envelope.recipients" = 10 }
matches = false

"""


def rule(teller: Teller, here: Installation, login: tuple[str, str], refused: str) -> bool:
    """Play it; True when the rule bit exactly while it was in force."""
    teller.title(f"And why not that one? postweir message why {refused}")
    for line in here.run("message", "why", refused).splitlines():
        teller.line(line, indent=20)
    teller.title("A rule of your own, while mail flows")
    file = _written(here)
    customer = Customer(here.port, *login)
    codes = [_try(teller, customer)]
    began = time.monotonic()
    here.run("policy", "deploy", str(file), "--reason", "guests complained")
    teller.tell(
        "operator",
        f"policy deploy mine.toml: checked, tried out and on the judge in "
        f"{time.monotonic() - began:.1f} s",
    )
    codes.append(_try(teller, customer))
    here.run("policy", "rollback", "--reason", "they were invited")
    teller.tell("operator", "policy rollback")
    codes.append(_try(teller, customer))
    customer.quit()
    wait_for(lambda: not here.json("audit")["queued"], SOON_S, "all of it has left")
    return codes == [250, 450, 250]


def _written(here: Installation) -> Path:
    """Return the shipped policy with the rule before its first."""
    file = here.folder / "mine.toml"
    here.run("policy", "new", str(file))
    shipped = file.read_text()
    file.write_text(shipped.replace("[[rule]]\n", RULE + "[[rule]]\n", 1))
    return file


def _try(teller: Teller, customer: Customer) -> int:
    teller.tell("customer", f"{CROWD.title}: {CROWD.user} to {len(CROWD.to)} guests")
    said = customer.send(CROWD.user, CROWD.to, CROWD.message().as_bytes())
    teller.tell("postweir", f"{said.code} {said.text}", "green" if said.code < 400 else "red")
    return said.code
