"""A recipient that is given back, perhaps long after it was said: in whose hands it is then."""

from tests.spool.given import START_US
from tests.spool.test_spool_shard import BODY, fresh, hello, opened, out, sent

LANE = 3


def test_what_is_handed_on_is_free():
    """It goes to whoever owns the bucket of its site."""
    here = opened("a", "b")
    fresh(here, 1, lane=LANE)
    assert sent(here) == [("a", 1, False)]
    here.handed_on(1, 1, "a")

    assert here.out == {}
    assert here.known == set()


def test_an_old_word_frees_nothing():
    """It waited for room on the disk; the link was lost, and the recipient was given again."""
    here = opened("a", "b")
    fresh(here, 1, lane=LANE)
    sent(here)
    here.lost("a", 1.0)
    here.hello(hello(1, 2), "c")  # it has nothing in hand: it had handed it on
    here.credit("c", 0, 9)
    (fetch,) = here.fetches(START_US)
    here.fetched(fetch, [(out(1), BODY)], None, 1.0)
    assert sent(here) == [("c", 1, False)]
    here.handed_on(1, 1, "a")

    assert here.out[1].worker == 1
    assert 1 in here.known


def test_a_word_of_another_worker_frees_nothing():
    """It was moved to the second worker meanwhile, and is in its hands."""
    here = opened("a", "b", bucket=1)
    fresh(here, 1, bucket=1, lane=LANE)
    assert sent(here) == [("b", 1, False)]
    here.handed_on(1, 1, "a")

    assert here.out[1].worker == 2


def test_what_an_old_word_has_moved_is_found_again():
    """Its row is in another bucket by now: when its worker dies, all marks are read anew."""
    here = opened("a", "b", bucket=1)
    fresh(here, 1, bucket=1, lane=LANE)
    sent(here)
    here.handed_on(1, 1, "a")
    here.hello(hello(2, 2, incarnation=6), "d")

    assert here.reload_wanted
    assert here.known == set()
