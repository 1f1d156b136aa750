"""Senders: stop one without hurting the others of its account."""

from postweir.desk import accounts, names
from postweir.desk.ports import Misused, Office
from postweir.identity.sender import SenderRecord
from postweir.runtime.frames import Struct


class Shown(Struct, frozen=True):
    """What an operator has decided about a sender; state "" when nothing."""

    sender: str
    state: str
    reason: str = ""
    by: str = ""
    at_us: int = 0


def decide(office: Office, key: str, state: str, reason: str) -> Shown:
    """Stop a sender or allow it. Raises Missing (its account), Misused."""
    key = names.sender_key(key)
    if state == "stopped" and not reason:
        raise Misused("say why with --reason TEXT: whoever is asked about it will want to know")
    accounts.find(accounts.known(office.tables), key.partition("|")[0])
    verb = "sender stop" if state == "stopped" else "sender allow"
    office.tables.decide_sender(state, office.note(verb, key, names.reason(reason)))
    return show(office, key)


def show(office: Office, key: str) -> Shown:
    """Return what was decided about one sender."""
    key = names.sender_key(key)
    record = accounts.known(office.tables).senders.get(key)
    return _shown(record) if record else Shown(key, "")


def ls(office: Office, account: str, state: str) -> list[Shown]:
    """Return decided senders by key, of one account and one state, or ("") of all."""
    records = accounts.known(office.tables).senders
    found = [records[key] for key in sorted(records)]
    return [
        _shown(r)
        for r in found
        if account in ("", r.key.partition("|")[0]) and state in ("", r.state)
    ]


def _shown(record: SenderRecord) -> Shown:
    return Shown(record.key, record.state, record.reason, record.by, record.at_us)
