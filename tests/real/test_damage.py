"""A running installation meets a damaged page: an alarm, a salvage, and nothing wrong goes out."""

import pytest
from tests.harness import letter, scene, token_of, wait_for

from postweir.storage.sqlite import connect

pytestmark = pytest.mark.real

MESSAGES = 150


def test_a_damaged_shard_salvages_itself_while_the_other_takes_mail():
    """Every message that was promised is delivered right, held as corrupt, or in the residual."""
    with scene(spool={"shards": 2}, delivery={"retry_s": [1.0]}) as on:
        on.here.run("queue", "suspend", "--account", "acme", "--reason", "to let it wait")
        sent = {f"w{n}": letter(f"w{n}", f"text of {n} " * 50) for n in range(MESSAGES)}
        with on.connect() as smtp:
            for text in sent.values():
                smtp.sendmail("joe@customer.example", ["kim@fine.example"], text)
        on.here.stop()
        path = max(on.here.folder.glob("var/spool/shard-?.db"), key=held)
        spoil(path)
        on.here.start()
        on.here.run("queue", "resume", "--account", "acme")
        wait_for(lambda: "event=spool.salvaged" in on.here.log.read_text(), 15, "a salvage")
        with on.connect() as smtp:
            smtp.sendmail("joe@customer.example", ["kim@fine.example"], letter("after"))

        def done() -> bool:
            ledger = on.audit()
            return ledger["status"] != 2 and ledger["queued"] == ledger["pending"] == 0

        wait_for(done, 20, "all that may leave has left")
        ledger, log = on.audit(), on.here.log.read_text()
        arrived = {token_of(one.content): one for one in on.world.arrived}
        found = on.here.json("doctor", status=None)

    assert all(sent[t].partition(b"\r\n\r\n")[2] in one.content for t, one in arrived.items()
               if t in sent)  # fmt: skip
    assert all(one.recipients == ("kim@fine.example",) for one in arrived.values())
    missing = [token for token in [*sent, "after"] if token not in arrived]
    assert missing, "no message was touched: this proves little"
    assert len(missing) <= ledger["held"] + ledger["residual"]
    assert "event=spool.damaged" in log
    assert ledger["held"] == 0 or "event=spool.corrupt" in log
    assert any("was salvaged" in one["what"] for one in found["findings"])


def held(path) -> int:
    """Return how much a shard's file holds."""
    return path.stat().st_size


def spoil(path) -> None:
    """Change a byte of a body and a byte of an address, as they lie on the disk."""
    connection = connect(path)  # the log is moved to the file at the end, and may still be read
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    data = bytearray(path.read_bytes())
    for words in (b"text of", b"kim@fine.example"):
        at = data.index(words, len(data) // 2)
        data[at] ^= 1
    path.write_bytes(data)
