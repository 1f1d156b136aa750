"""What upkeep does: holds that expire, and the hour after the clock was set, when nothing may."""

import pytest
from tests.spool.given import HOLD, START_US, Clock, accept, name

from postweir.policy.verdict import Verdict
from postweir.runtime import clock
from postweir.spool.ports import Request
from postweir.spool.states import bucket_of, lane_of
from postweir.storage import spool_upkeep
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite_spool import SqliteStore

FAR, LANE = bucket_of("far.example"), lane_of("acme|sasl|joe")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "bodies-1").mkdir()
    one = SqliteStore(tmp_path / "shard-1.db", tmp_path / "bodies-1", now_us=lambda: START_US)
    yield one
    one.close()


def wish(number: int, verb: str) -> Request:
    return Request(number, verb, "account=acme", "", "op", START_US)


def due(store: SqliteStore) -> int:
    return len(store.due(FAR, LANE, START_US, frozenset(), 10))


def test_what_is_resumed_just_after_a_step_leaves(store, monkeypatch):
    """An operator's word is obeyed at once: it is no age that a step could make."""
    store.commit([accept(1), wish(1, "suspend")])
    while store.upkeep():
        pass
    assert due(store) == 0  # and parked, for it was looked at
    offset_us = clock.offset_us
    monkeypatch.setattr(clock, "offset_us", lambda: offset_us() + 49 * 3600 * 1_000_000)
    before_us = store.clock_us()
    store.commit([wish(2, "resume")])
    while store.upkeep():
        pass

    assert store.unparked() == [(FAR, LANE, START_US)]
    assert due(store) == 1
    assert store.clock_us() == before_us  # a shard that starts anew knows of the step


def test_a_hold_expires_after_restarts_and_says_why(tmp_path):
    """Its time stands in the file; the record has who ended it and after how long."""
    now, (path, bodies) = Clock(), (tmp_path / "shard-1.db", tmp_path / "bodies-1")
    for _ in range(2):
        store = SqliteStore(path, bodies, now_us=now)
        if now.us == START_US:
            store.commit([accept(1, verdict=Verdict("hold", hold_s=60)), accept(2, verdict=HOLD)])
        store.upkeep()
        reader = SqliteReader(path, shard=1)
        held = reader.message(name(1))
        assert (held.state, held.hold_until_us) == ("held", START_US + 60_000_000)
        reader.close()
        store.close()
        now.move(59)
    now.move(2)
    store = SqliteStore(path, bodies, now_us=now)
    while store.upkeep():
        pass
    reader = SqliteReader(path, shard=1)
    ended, line = reader.timeline(name(1))[-1], reader.ledger()[0]
    states = [reader.message(name(n)).recipients[0].state for n in (1, 2)]
    reader.close()
    store.close()

    assert states == ["refused", "held"]
    assert (line.refused, line.held, line.residual) == (1, 1, 0)
    assert (ended.step, ended.detail) == ("refused", {"by": "hold expired", "hold_s": 60})


def test_no_hold_expires_in_the_hour_after_a_step(tmp_path, monkeypatch):
    """A clock that was set forward ends no hold; an hour later what is old by it is ended."""
    now = Clock()
    store = SqliteStore(tmp_path / "shard-1.db", tmp_path / "bodies-1", now_us=now)
    store.commit([accept(1, verdict=Verdict("hold", hold_s=60))])
    store.upkeep()
    offset_us = clock.offset_us
    monkeypatch.setattr(clock, "offset_us", lambda: offset_us() + 300 * 1_000_000)
    now.move(300)
    while store.upkeep():
        pass
    assert store.queued() == 1
    monkeypatch.setattr(store._steps, "look", lambda: False)
    while store.upkeep():
        pass
    assert store.queued() == 0
    store.close()


def test_a_round_comes_to_every_hold_however_many(tmp_path, monkeypatch):
    """Holds that last long do not keep those behind them, and an index says which are held."""
    monkeypatch.setattr(spool_upkeep, "BATCH_ROWS", 3)
    monkeypatch.setattr(spool_upkeep, "HOLDS_MAX", 2)
    now = Clock()
    store = SqliteStore(tmp_path / "shard-1.db", tmp_path / "bodies-1", now_us=now)
    hold_s = [10**6] * 10 + [60] * 10 + [10**6] * 2 + [60]
    store.commit([accept(n + 1, verdict=Verdict("hold", hold_s=s)) for n, s in enumerate(hold_s)])
    for _ in range(20):
        store.upkeep()
    assert store.queued() == 23
    now.move(61)
    for _ in range(20):
        store.upkeep()

    assert store.queued() == 12
    plan = store._db.execute("EXPLAIN QUERY PLAN " + spool_upkeep.HELD, (0, 0, 3)).fetchall()
    assert "TEMP B-TREE" not in str(plan)
    assert "USING INDEX msg_held" in str(plan)
    store.close()
