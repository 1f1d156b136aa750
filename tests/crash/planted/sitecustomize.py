"""Bugs planted in a started process, to see that they are caught: only tests set the path here."""

import os
import sys

PLANT = os.environ.get("POSTWEIR_PLANT", "")


def lease_forgotten() -> None:
    """What a dead delivery worker had is never due again."""
    from postweir.spool.shard import Outgoing

    Outgoing._again = lambda self, recipient, given: None


def settle_early() -> None:
    """A recipient is reported delivered before its host has said so."""
    from postweir.delivery.worker import Worker
    from postweir.mail.reply import Reply

    send, settle = Worker._send, Worker._settle

    def settle_once(self, one, reply, **words):
        if one.settle is None:
            settle(self, one, reply, **words)

    async def send_settled(self, site, session, batch):
        # Not what would be seen without any crash: recipients that the world refuses, and bodies
        # in files, which go with the outcome.
        for one in batch:
            refused = one.out.address.startswith("dead@") or "@grey." in one.out.address
            if not refused and one.content.body is not None:
                settle(self, one, Reply(250, "2.0.0", "Ok"), site=site, session=session)
        await send(self, site, session, batch)

    Worker._settle, Worker._send = settle_once, send_settled


if PLANT == "lease-forgotten" and "spool" in sys.orig_argv:
    lease_forgotten()
elif PLANT == "settle-early" and "delivery" in sys.orig_argv:
    settle_early()
