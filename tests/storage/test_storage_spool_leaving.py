"""What is due, when the clock by which it was put off stood wrong."""

import pytest
from tests.spool.given import START_US, accept, settle

from postweir.spool.states import bucket_of, lane_of
from postweir.storage.sqlite_spool import SqliteStore

HOUR_US = 3600 * 10**6
LONGEST_S = 4 * 3600.0


class Here:
    """A store whose clock a test sets."""

    def __init__(self, folder):
        self.now_us = START_US
        (folder / "bodies-1").mkdir()
        self.store = SqliteStore(
            folder / "shard-1.db",
            folder / "bodies-1",
            now_us=lambda: self.now_us,
            longest_wait_s=LONGEST_S,
        )

    @property
    def lane(self):
        ((bucket, lane, _),) = self.store.earliest()
        return bucket, lane

    def due(self, out=frozenset()):
        return [o.recipient for o in self.store.due(*self.lane, self.now_us, out, 10)]


@pytest.fixture
def here(tmp_path):
    found = Here(tmp_path)
    yield found
    found.store.close()


def put_off(here):
    """Accept one message and defer its recipient by five minutes."""
    (done,) = here.store.commit([accept()])
    here.store.commit([settle(done.ready[0], "deferred")])
    return done.ready[0]


def test_put_off_by_a_clock_that_was_ahead(here):
    """Once the clock is right again it is due at once, and its lane's mark says so."""
    here.now_us += 49 * HOUR_US
    recipient = put_off(here)
    before = here.due()
    here.now_us -= 49 * HOUR_US

    assert before == []
    assert here.store.earliest() == [
        (bucket_of("far.example"), lane_of(accept().sender.key), here.now_us)
    ]
    assert here.due() == [recipient]
    assert here.due(out={recipient}) == []


def test_put_off_by_a_clock_that_was_right(here):
    """What waits as long as delivery may say is not due before its time."""
    put_off(here)

    assert here.due() == []
    ((_, _, due_us),) = here.store.earliest()
    assert due_us == START_US + 300 * 10**6


def test_a_lane_is_looked_at_again(here):
    """However far off its next one is, a lane is looked at within the longest wait."""
    here.now_us += 49 * HOUR_US
    put_off(here)
    here.now_us -= 49 * HOUR_US
    again_us = here.store.next_due(*here.lane, here.now_us)

    assert again_us == here.now_us + int(LONGEST_S * 1e6)
