"""A policy tried on what real processes recorded, and a verdict explained, with real commands."""

import pytest
from demo.evening import GTUBE
from tests.harness import letter, scene

pytestmark = pytest.mark.real


def test_what_was_recorded_is_replayed_and_explained(tmp_path):
    """The verdict is the same byte for byte; a policy without the rule shows what would change."""
    with scene(judge={"wait_ms": 5000}) as on:
        smtp = on.connect()
        for n, text in enumerate(("Hello.", GTUBE)):
            smtp.mail("joe@customer.example")
            smtp.rcpt("kim@fine.example")
            _, said = smtp.data(letter(str(n), text))
        refusal = said.decode().partition("ref=")[2].split()[0]
        smtp.quit()
        on.settled()
        why = on.here.json("message", "why", refusal)
        candidate = tmp_path / "mild.toml"
        candidate.write_text('[[rule]]\nid = "loop"\nwhen = "message.loops > 2"\n'
                             'then = { verb = "hold" }\n')  # fmt: skip
        replayed = on.here.json("policy", "replay", str(candidate), "--budget", "10%", status=3)
        other = on.here.json("message", "why", refusal, "--policy", str(candidate))

        assert (why["rule"], why["same"]) == ("spam", True)
        assert why["flips"][0]["changes"][0]["fact"] == "findings.spam"
        assert (replayed["diff"]["messages"], replayed["diff"]["changed"]) == (2, 1)
        assert (replayed["unlike"], replayed["not_replayable"], replayed["within"]) == (0, 0, False)
        assert (other["then"]["verb"], other["verdict"]["verb"]) == ("refuse", "accept")
