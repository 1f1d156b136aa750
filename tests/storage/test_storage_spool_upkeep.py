"""What upkeep does in the hour after the clock was set, when nothing may grow old."""

import pytest
from tests.spool.given import START_US, accept

from postweir.runtime import clock
from postweir.spool.ports import Request
from postweir.spool.states import bucket_of, lane_of
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
