"""The sum over all shards, and what makes it fail."""

from postweir.spool.audit import audit
from postweir.spool.ports import Ledger


def test_lines_add_up_over_shards():
    """One line an account, one total, and nothing off."""
    found = audit({
        1: [Ledger("acme", accepted=3, delivered=2, queued=1), Ledger("-", accepted=1, held=1)],
        2: [Ledger("acme", accepted=1, pending=1)],
    })  # fmt: skip

    assert found.lines == [
        Ledger("-", accepted=1, held=1),
        Ledger("acme", accepted=4, delivered=2, queued=1, pending=1),
    ]
    assert found.total.accepted == 5
    assert (found.status, found.residual) == (0, 0)


def test_errors_that_cancel_out_are_two_errors():
    """One missing here and one too much there."""
    found = audit({1: [Ledger("acme", accepted=1)], 2: [Ledger("acme", delivered=1)]})

    assert found.total.residual == 0
    assert (found.status, found.residual) == (1, 2)
    assert [shard for shard, _ in found.off] == [1, 2]


def test_a_shard_that_cannot_be_read_is_said():
    """The rest is shown, and the status is 2."""
    found = audit({1: [Ledger("acme", accepted=1, queued=1)], 2: None})

    assert (found.status, found.unread, found.total.queued) == (2, [2], 1)


def test_no_mail_at_all_closes():
    """An empty spool has an empty ledger."""
    assert audit({1: []}).status == 0
