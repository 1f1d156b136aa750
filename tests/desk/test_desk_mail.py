"""Messages, the queue, requests and the ledger, over real shard files."""

import pytest
from tests.desk.office import HOLD, accept, name, refusal, settle

from postweir.desk import accounts, ledger, messages, queues, requests
from postweir.desk.ports import Missing, Misused, Unreadable
from postweir.desk.queues import Filter
from postweir.identity.sender import Sender
from postweir.mail.reply import Reply
from postweir.runtime import frames
from postweir.spool.ports import ShardStatus
from postweir.storage.sqlite import connect


def fill(office, shard, *changes):
    return office.shards.stores[shard].commit(list(changes))


async def test_a_message_is_found_in_whichever_shard_has_it(office):
    """Nobody must know the shard to ask for a message."""
    fill(office, 1, accept(1))
    fill(office, 2, accept(2))
    told = await messages.show(office, name(2))

    assert told.id == name(2)
    assert told.shard == 2
    assert told.sender == "acme|x-authuser|joe@customer.example"
    assert [r.state for r in told.recipients] == ["queued"]
    assert told.steps[0]["step"] == "accepted"


async def test_a_silent_shards_message_is_read_from_its_file(office):
    """A shard that hangs hides nothing."""
    fill(office, 2, accept(2))
    office.shards.down = {1, 2}

    assert (await messages.show(office, name(2))).id == name(2)


async def test_a_message_nobody_has_is_missing(office):
    """The answer is no, and says how far the record goes back."""
    with pytest.raises(Missing, match="35 days"):
        await messages.show(office, name(9))


async def test_a_message_that_may_be_in_an_unreadable_shard_is_not_called_missing(office):
    """ "Not found" is only said when all were asked."""
    office.shards.down = office.shards.unreadable = {2}
    with pytest.raises(Unreadable, match="shard 2"):
        await messages.show(office, name(9))
    fill(office, 1, accept(1))

    assert (await messages.show(office, name(1))).id == name(1)


@pytest.mark.parametrize("id", ["", "x", "z" * 16, "A" * 16, "0" * 17, "../../../../etc"])
async def test_what_is_no_id_is_misused(office, id):
    """A typing error is said to be one."""
    with pytest.raises(Misused):
        await messages.show(office, id)


async def test_a_refusal_is_shown_by_its_ref(office):
    """Each refusal a sender sees has an id that can be looked up."""
    fill(office, 1, refusal(3))
    told = await messages.show(office, name(3))

    assert told.state == "refused"
    assert told.verdict == "refuse"
    assert told.rule == "spam"
    assert told.reply.startswith("550 5.7.1 [SS]")
    assert [(r.address, r.state) for r in told.recipients] == [("kim@fine.example", "refused")]
    assert told.connection == {"helo": "mail.customer.example"}
    assert told.steps == [{"at": told.accepted_at, "step": "refused", "stage": "verdict",
                           "reply": told.reply}]  # fmt: skip


async def test_drop_needs_a_reason_and_says_what_it_did(office):
    """What destroys is explained, counted first, and seen done."""
    fill(office, 1, accept(1, ["a@x.example", "b@x.example"]))
    with pytest.raises(Misused, match="--reason"):
        await messages.change(office, "drop", name(1), reason="")
    would = await messages.change(office, "drop", name(1), reason="", dry_run=True)
    assert (would.recipients, would.number) == (2, 0)
    assert office.tables.after(0) == []
    done = await messages.change(office, "drop", name(1), reason="wrong list")
    assert (done.recipients, done.waiting) == (2, [])
    told = await messages.show(office, name(1))

    assert [r.state for r in told.recipients] == ["dropped", "dropped"]
    with pytest.raises(Missing, match="ended"):
        await messages.change(office, "drop", name(1), reason="again")


async def test_release_is_for_held_mail_only(office):
    """Releasing what is not held would be a typing error."""
    fill(office, 1, accept(1, verdict=HOLD), accept(2))
    done = await messages.change(office, "release", name(1), reason="looked at it")
    assert done.waiting == []
    assert (await messages.show(office, name(1))).state == "queued"
    with pytest.raises(Missing, match="not held"):
        await messages.change(office, "release", name(2), reason="")
    fill(office, 1, refusal(3))
    with pytest.raises(Missing, match="never ours"):
        await messages.change(office, "release", name(3), reason="")


async def test_with_a_shard_down_the_request_is_written_and_the_shard_named(office):
    """The wish is not lost: the shard reads it when it starts."""
    fill(office, 2, accept(2))
    office.shards.down = {2}
    done = await messages.change(office, "drop", name(2), reason="x")
    assert done.waiting == [2]
    office.shards.down = set()
    await office.shards.wake()

    assert [r.state for r in (await messages.show(office, name(2))).recipients] == ["dropped"]


async def test_the_queue_is_filtered(office):
    """Each filter narrows, all must hold, and a limit is a limit."""
    fill(office, 1, accept(1, ["a@x.example", "b@y.example"]), accept(2, verdict=HOLD))
    fill(office, 2, accept(3, ["c@x.example"], account="other"), accept(4, verdict=None))

    async def ids(limit=100, **words):
        return [(w.id, w.address) for w in await queues.ls(office, Filter(**words), limit)]

    assert len(await ids()) == 5
    assert await ids(domain="X.example") == [(name(1), "a@x.example"), (name(3), "c@x.example")]
    assert await ids(account="other") == [(name(3), "c@x.example")]
    assert await ids(account="acme", domain="y.example") == [(name(1), "b@y.example")]
    assert [i for i, _ in await ids(state="held")] == [name(2)]
    assert [i for i, _ in await ids(state="pending")] == [name(4)]
    assert len(await ids(sender="acme|x-authuser|joe@customer.example")) == 4
    assert len(await ids(limit=2)) == 2
    with pytest.raises(Misused, match="did you mean queued"):
        await ids(state="queue")


async def test_the_queue_is_summed_by_domain(office):
    """The largest backlog first."""
    fill(office, 1, accept(1, ["a@x.example", "b@y.example", "c@y.example"]))
    fill(office, 2, accept(2, ["d@y.example"], verdict=HOLD))
    found = await queues.show(office, Filter())

    assert [(s.domain, s.queued, s.held, s.pending) for s in found] == [
        ("y.example", 2, 1, 0),
        ("x.example", 1, 0, 0),
    ]
    assert found[0].oldest_at.endswith("Z")


async def test_a_backlog_larger_than_a_page_is_read_whole(office):
    """Pages are bounded; answers are not cut."""
    many = [f"r{n}@x.example" for n in range(900)]
    fill(office, 1, accept(1, many), accept(2, many))

    assert len(await queues.ls(office, Filter(), 10_000)) == 1800
    assert (await queues.show(office, Filter()))[0].queued == 1800


async def test_queue_verbs_name_exactly_one_scope(office):
    """ "Everything" must not be what happens when a filter was forgotten."""
    for words in ({}, {"account": "acme", "domain": "x.example"}):
        with pytest.raises(Misused, match="exactly one"):
            await queues.ask(office, "drop", Filter(**words), reason="x")


async def test_queue_drop_counts_first_and_drops_its_scope_only(office):
    """The other domain's mail stays."""
    fill(office, 1, accept(1, ["a@x.example", "b@y.example"]))
    fill(office, 2, accept(2, ["c@x.example"]))
    with pytest.raises(Misused, match="--reason"):
        await queues.ask(office, "drop", Filter(domain="x.example"), reason="")
    would = await queues.ask(office, "drop", Filter(domain="x.example"), reason="", dry_run=True)
    assert (would.recipients, would.scope) == (2, "domain=x.example")
    done = await queues.ask(office, "drop", Filter(domain="x.example"), reason="gone")
    assert done.waiting == []

    assert [w.address for w in await queues.ls(office, Filter(), 9)] == ["b@y.example"]


async def test_suspend_is_a_numbered_request_with_an_end(office):
    """Who asked, for what, until when."""
    accounts.add(office, "acme", [])
    done = await queues.ask(office, "suspend", Filter(account="acme"), reason="why", until_us=77)
    (request,) = office.tables.after(0)

    assert (request.number, request.verb, request.scope) == (done.number, "suspend", "account=acme")
    assert (request.reason, request.by, request.until_us) == ("why", "op", 77)
    assert office.shards.woken == 1


async def test_an_account_nobody_has_is_no_scope(office):
    """A slip of the pen in what should stop mail must not look as if it had."""
    accounts.add(office, "acme", [])
    for wanted in (Filter(account="amce"), Filter(sender="amce|sasl|joe")):
        for verb in queues.VERBS:
            with pytest.raises(Missing, match="did you mean acme"):
                await queues.ask(office, verb, wanted, reason="why")

    assert office.tables.after(0) == []


async def test_what_is_suspended_is_marked(office):
    """Who looks at a queue that does not move sees why; a sender's name may hold a space."""
    accounts.add(office, "acme", [])
    joe = Sender("acme", "sasl", "joe smith")
    fill(office, 1, accept(1, sender=joe), accept(2), accept(3, sender=joe, verdict=HOLD))
    done = await queues.ask(office, "suspend", Filter(sender=joe.key), reason="why")
    waiting = {w.id: w for w in await queues.ls(office, Filter(), 10)}

    assert done.waiting == []
    assert waiting[name(1)].suspended
    assert not waiting[name(2)].suspended
    assert waiting[name(3)].state == "held"
    assert {w.id for w in await queues.ls(office, Filter(sender=joe.key), 10)} == {
        name(1), name(3),
    }  # fmt: skip


async def test_how_full_a_shard_is_counts_what_the_ledger_counts(office):
    """A command learns that a request is done without a walk through all that waits."""
    fill(office, 1, accept(1, ["a@x.example", "b@x.example"]), accept(2, verdict=HOLD),
         accept(3, ["c@x.example"] * 3, verdict=None))  # fmt: skip
    found = await office.shards.read(1, "status", "", 0, 1)
    status = frames.unpack(found.rows[0], ShardStatus)

    assert (status.queued, status.held, status.pending) == (2, 1, 3)


async def test_a_reason_is_one_line(office):
    """It goes into logs and rows."""
    for reason in ("a\nb", "x" * 501):
        with pytest.raises(Misused, match="--reason"):
            await requests.put(office, "retry", "domain=x", reason)


async def test_the_ledger_closes_over_all_ends(office):
    """Each recipient is counted once, wherever it ended."""
    (made,) = fill(office, 1, accept(1, ["a@x.example", "b@x.example", "c@x.example"]))
    first = made.number << 10
    fill(office, 1, settle(first), settle(
        first + 1, "failed", reply=Reply(550, "5.1.1", "No such user")))  # fmt: skip
    fill(office, 2, accept(2, verdict=HOLD), accept(3, verdict=None, account="other"))
    found = await ledger.audit(office)

    assert (found.residual, found.status) == (0, 0)
    assert (found.delivered, found.bounced, found.held, found.pending) == (1, 1, 1, 1)
    assert found.accounts["acme"].accepted == 4
    assert found.accounts["-"].queued == 1  # our own bounce
    assert found.accounts["other"].pending == 1


async def test_a_row_deleted_by_hand_is_missed(office, tmp_path):
    """A ledger that cannot fail would prove nothing."""
    fill(office, 1, accept(1, ["a@x.example", "b@x.example"]))
    connection = connect(tmp_path / "spool" / "shard-1.db")
    connection.execute("delete from rcpt where id = (select min(id) from rcpt)")
    connection.close()
    found = await ledger.audit(office)

    assert (found.residual, found.status) == (1, 1)
    assert found.accounts["acme"].residual == 1
    assert "shard 1, account acme" in found.why[0]


async def test_an_unreadable_shard_is_named_and_the_rest_shown(office):
    """Exit 2, as borders.md says, and what can be known is told."""
    fill(office, 1, accept(1))
    office.shards.down = office.shards.unreadable = {2}
    found = await ledger.audit(office)

    assert (found.status, found.unreadable, found.accepted) == (2, [2], 1)
    assert "shard 2" in found.why[0]
