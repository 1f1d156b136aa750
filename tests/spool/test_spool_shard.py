"""What leaves next, and in whose hands it is."""

from hypothesis import given
from hypothesis import strategies as st
from tests.spool.given import START_US, settle

from postweir.spool.ports import BUCKETS, Content, Hello, Out
from postweir.spool.shard import CALENDAR_MAX, LOST_S, START_S, Fetch, Outgoing

BODY = Content("m", "joe@customer.example", b"", b"body", None, 4, b"")
WHOLE = 64


def out(recipient: int, message: str = "m") -> Out:
    return Out(recipient, 1, message, "acme|sasl|joe", "a@b", START_US, 0.0, 0, 1000)


def hello(index: int = 1, of: int = 1, incarnation: int = 5, in_hand=(), unsettled=()) -> Hello:
    return Hello(1, "delivery", index, of, incarnation, "", list(in_hand), list(unsettled))


def opened(*links: str, bucket: int = 0, credit: int = WHOLE) -> Outgoing:
    """Return a shard's memory whose workers, one for each link, have said Hello."""
    here = Outgoing(0.0)
    for index, link in enumerate(links, 1):
        here.hello(hello(index, len(links)), link)
        here.credit(link, bucket, credit)
    here.tick(0.0)
    return here


def fresh(here: Outgoing, *recipients: int, bucket: int = 0, lane: int = 0) -> None:
    outs = [(out(r), bucket, lane) for r in recipients]
    here.fresh(outs, BODY, due_us=START_US, now_s=0.0)


def sent(here: Outgoing, now_s: float = 0.0) -> list[tuple[object, int, bool]]:
    """Take what goes out now: (link, recipient, possible duplicate)."""
    return [
        (link, frame.recipient, frame.possible_duplicate)
        for link, frames in here.take(now_s, may_expire=True)
        for frame in frames
        if isinstance(frame, Out)
    ]


def test_fresh_mail_goes_out_with_its_content_first():
    """One content, then its recipients, in one batch."""
    here = opened("link")
    fresh(here, 1, 2)

    ((link, frames),) = here.take(0.0, may_expire=False)
    assert link == "link"
    assert [type(f).__name__ for f in frames] == ["Content", "Out", "Out"]
    assert not frames[1].may_expire
    assert here.take(0.0, may_expire=True) == []


def test_credit_is_given_back_as_far_as_it_is_not_used():
    """What is out is out; of what is not, no more is given back than is asked for."""
    here = opened("link", credit=5)

    assert here.credit("link", 0, -2) == -2
    assert here.credit("link", 0, -9) == -3
    assert here.credit("link", 0, -1) == 0
    assert here.credit("link", 0, 4) == 4
    assert here.credit("nobody", 0, -1) == 0


def test_nothing_goes_out_without_credit():
    """Each recipient takes one."""
    here = opened("link", credit=1)
    fresh(here, 1, 2)

    assert len(sent(here)) == 1
    assert sent(here) == []
    here.credit("link", 0, 1)
    assert len(sent(here)) == 1


def test_a_bucket_has_one_owner():
    """Worker i of n gets the buckets b with b % n == i - 1, and no other."""
    here = opened("one", "two", bucket=3)
    fresh(here, 1, bucket=3)
    fresh(here, 2, bucket=2)
    here.credit("one", 3, 1)

    assert sent(here) == [("two", 1, False)]


def test_senders_take_turns():
    """A flood of one lane does not delay the first recipient of another."""
    here = opened("link", credit=2)
    fresh(here, *range(1, 100), lane=1)
    fresh(here, 500, lane=2)

    assert {r for _, r, _ in sent(here)} == {1, 500}


def test_age_grows_in_memory():
    """A message that waited for credit is as old as it is."""
    here = opened("link", credit=0)
    fresh(here, 1)
    here.credit("link", 0, 1)

    ((_, frames),) = here.take(90.0, may_expire=True)
    assert frames[1].age_s == 90.0


def test_the_same_worker_comes_back():
    """What it lists it keeps; what it never got goes out again, unmarked."""
    here = opened("old")
    fresh(here, 1, 2)
    sent(here)
    here.lost("old", 1.0)
    here.hello(hello(in_hand=[(1, 1)]), "new")
    here.credit("new", 0, WHOLE)
    read_again(here, 1, 2)

    assert sent(here) == [("new", 2, False)]
    assert set(here.out) == {1, 2}


def test_a_new_worker_gets_possible_duplicates():
    """Nobody knows what the dead one did with what it had."""
    here = opened("old")
    fresh(here, 1)
    sent(here)
    here.lost("old", 1.0)
    here.hello(hello(incarnation=6), "new")
    here.credit("new", 0, WHOLE)
    read_again(here, 1)

    assert sent(here) == [("new", 1, True)]
    assert here.possible_duplicates == 1


def test_a_second_connection_ends_the_first():
    """The older one is returned to be closed, and takes nothing any more."""
    here = opened("old")

    assert here.hello(hello(), "new") == "old"
    here.credit("old", 0, 5)
    fresh(here, 1)
    assert sent(here) == []
    here.credit("new", 0, 5)
    here.lost("old", 1.0)
    assert len(sent(here)) == 1


def test_a_lost_connection_keeps_what_it_has_for_a_while():
    """Nothing of it is handed out or read meanwhile; then it is due, and its worker suspect."""
    here = opened("old")
    fresh(here, 1)
    sent(here)
    here.lost("old", 1.0)
    here.tick(1.0 + LOST_S - 0.1)

    assert 1 in here.known
    here.tick(1.0 + LOST_S)
    assert here.known == set()
    here.hello(hello(incarnation=6), "new")
    here.credit("new", 0, WHOLE)
    read_again(here, 1)
    assert sent(here) == [("new", 1, True)]


def test_who_comes_back_late_with_it_keeps_it():
    """After the window too: its own Hello says what it has."""
    here = opened("old")
    fresh(here, 1, 2)
    sent(here)
    here.lost("old", 0.0)
    here.tick(LOST_S)
    read_again(here, 1, 2)
    here.hello(hello(in_hand=[(1, 1)]), "new")
    here.credit("new", 0, WHOLE)

    assert sent(here) == [("new", 2, False)]


def test_after_a_start_nothing_goes_out_before_all_have_said_hello():
    """A worker that has not come back may have it in hand."""
    here = Outgoing(0.0)
    here.hello(hello(1, 2), "one")
    here.credit("one", 0, WHOLE)
    fresh(here, 1)
    here.tick(0.1)

    assert sent(here) == []
    here.hello(hello(2, 2, in_hand=[(1, 1)]), "two")
    here.tick(0.2)
    assert sent(here) == []  # the second has it
    assert here.out[1].worker == 2


def test_after_a_start_it_does_not_wait_for_ever():
    """A worker that does not come within START_S is not waited for."""
    here = Outgoing(0.0)
    here.hello(hello(1, 2), "one")
    here.credit("one", 0, WHOLE)
    fresh(here, 1)
    here.tick(START_S)

    assert len(sent(here)) == 1


def test_unsettled_mail_is_not_handed_out():
    """Its outcome is on its way to the disk."""
    here = Outgoing(0.0)
    here.hello(hello(unsettled=[settle(1)]), "link")
    here.credit("link", 0, WHOLE)
    here.tick(0.0)
    read_again(here, 1)

    assert sent(here) == []
    here.settled(1, 1)
    assert here.known == set()


def test_a_repeated_outcome_leaves_no_recipient_behind():
    """It changed nothing, so the row may be due and was passed over: look again."""
    here = Outgoing(0.0)
    here.hello(hello(unsettled=[settle(1)]), "link")
    here.settled(1, 1, changed=False)

    assert here.reload_wanted
    here = opened("link")
    fresh(here, 1)
    sent(here)
    here.settled(1, 1, changed=False)
    assert [f.lane for f in here.fetches(START_US)] == [0]


def test_a_stale_outcome_frees_nothing():
    """An outcome of the attempt before does not end the one in hand."""
    here = opened("link")
    fresh(here, 1)
    sent(here)
    here.settled(1, 0)

    assert 1 in here.out


def test_a_lane_is_read_when_its_time_has_come():
    """Not before, not without credit, not twice at a time; and what was marked meanwhile counts."""
    here = opened("link", credit=10)
    here.mark(0, 7, START_US)

    assert here.fetches(START_US - 1) == []
    (fetch,) = here.fetches(START_US)
    assert (fetch.bucket, fetch.lane, fetch.count_max) == (0, 7, 10)
    here.mark(0, 7, START_US)
    assert here.fetches(START_US) == []
    here.fetched(fetch, [(out(1), BODY)], None, 0.0)
    assert len(here.fetches(START_US)) == 1


def test_credit_is_shared_between_the_lanes_that_wait():
    """Ten lanes and credit for ten: one row each, not ten of the first."""
    here = opened("link", credit=10)
    for lane in range(10):
        here.mark(0, lane, START_US)

    assert [f.count_max for f in here.fetches(START_US)] == [1] * 10


def test_a_fresh_message_waits_behind_its_own_backlog():
    """Else a flood would be served newest first."""
    here = opened("link")
    here.mark(0, 0, START_US - 5)
    fresh(here, 1)

    assert sent(here) == []
    assert len(here.fetches(START_US)) == 1


def test_memory_is_bounded(monkeypatch):
    """What does not fit stays on disk, with a mark."""
    monkeypatch.setattr("postweir.spool.shard.READY_MAX", 3)
    here = opened("link")
    fresh(here, *range(1, 10))

    assert here.ready == 3
    assert len(here.known) == 3
    sent(here)
    (fetch,) = here.fetches(START_US)
    assert fetch.lane == 0


def test_dropped_mail_does_not_leave():
    """What an operator dropped while it waited in memory is passed over."""
    here = opened("link", credit=0)
    fresh(here, 1, 2)
    here.forget([1])
    here.credit("link", 0, WHOLE)

    assert [r for _, r, _ in sent(here)] == [2]


def test_a_suspension_empties_the_memory():
    """All that waits is read again from disk, where the suspended are left out."""
    here = opened("link", credit=0)
    fresh(here, 1, 2)
    here.forget_ready()
    here.credit("link", 0, WHOLE)

    assert sent(here) == []
    assert here.known == set()
    assert len(here.fetches(START_US)) == 1


def test_a_body_file_is_checked_before_it_leaves():
    """It waits, known, for the check; a bad one never leaves; a dropped one neither."""
    here = opened("link")
    file = Content("f", "", b"", None, "/x", 4, b"")
    here.fresh([(out(1, "f"), 0, 0), (out(2, "f"), 0, 0)], file, due_us=START_US, now_s=0.0)

    assert sent(here) == []
    assert here.to_check == [file]
    here.forget([2])
    here.checked("f", good=True)
    assert [r for _, r, _ in sent(here)] == [1]
    here.fresh([(out(3, "f"), 0, 0)], file, due_us=START_US, now_s=0.0)
    here.checked("f", good=False)
    assert sent(here) == []
    assert here.ready == 0


@given(st.data())
def test_nobody_is_in_two_hands(data):
    """Whatever happens to connections, a recipient is out once, and never lost to memory."""
    here = Outgoing(0.0)
    now_s, links, open_links = 0.0, 0, {}
    on_disk = {r: r % 3 for r in range(1, 8)}  # recipient: lane
    for lane in range(3):
        here.mark(0, lane, START_US)
    held: dict[int, set[int]] = {1: set(), 2: set()}  # what each living worker has
    incarnation = {1: 1, 2: 2}
    for _ in range(data.draw(st.integers(1, 40))):
        act = data.draw(st.sampled_from(["hello", "lose", "die", "settle", "tick", "go"]))
        index = 1  # of 1: bucket 0 is all its own
        if act == "hello":
            links += 1
            here.hello(hello(1, 1, incarnation[1], [(r, 1) for r in held[1]]), links)
            here.credit(links, 0, 3)
            open_links[index] = links
        elif act == "lose" and index in open_links:
            here.lost(open_links.pop(index), now_s)
        elif act == "die" and index in open_links:
            here.lost(open_links.pop(index), now_s)
            held[1], incarnation[1] = set(), incarnation[1] + 2
        elif act == "settle" and held[1] and index in open_links:
            recipient = data.draw(st.sampled_from(sorted(held[1])))
            held[1].discard(recipient)
            on_disk.pop(recipient, None)
            here.settled(recipient, 1)
        elif act == "tick":
            now_s += 1.5
            here.tick(now_s)
        go(here, on_disk, held, open_links)
    links += 1
    here.hello(hello(1, 1, incarnation[1], [(r, 1) for r in held[1]]), links)
    here.credit(links, 0, 100)
    here.tick(now_s + 10)
    open_links[1] = links
    for _ in range(5):
        go(here, on_disk, held, open_links)

    assert held[1] == set(on_disk)  # all that is not settled is out, with the living worker


def go(here, on_disk, held, open_links):
    if here.reload_wanted:
        here.reload_wanted = False
        for lane in set(on_disk.values()):
            here.mark(0, lane, START_US)
    for fetch in here.fetches(START_US):
        rows = [r for r, lane in on_disk.items() if lane == fetch.lane and r not in here.known]
        some = rows[: fetch.count_max]
        more = START_US if len(some) >= fetch.count_max else None
        here.fetched(fetch, [(out(r), BODY) for r in some], more, 0.0)
    for link, recipient, _ in sent(here):
        assert link == open_links.get(1)
        assert recipient not in held[1], "handed out twice"
        held[1].add(recipient)


def read_again(here: Outgoing, *on_disk: int) -> None:
    """Read all lanes whose time has come, as the writer does: what is known is passed over."""
    fetches = here.fetches(START_US) or [Fetch(0, 0, START_US, 10)]
    for fetch in fetches:
        if fetch.lane not in here._buckets[0].fetching:
            here._fetches += 1
        found = [(out(r), BODY) for r in on_disk if r not in here.known]
        here.fetched(fetch, found, None, 0.0)


def test_all_buckets_have_an_owner():
    """With any number of workers."""
    for of in (1, 2, 3, 7, 64):
        owned = [b for i in range(1, of + 1) for b in range(BUCKETS) if b % of == i - 1]
        assert sorted(owned) == list(range(BUCKETS))


def test_the_calendar_forgets_marks_that_no_longer_count():
    """A lane that is read again and again, with its next due time hours away, leaves nothing."""
    here = opened("link", credit=1_000_000)
    for n in range(CALENDAR_MAX + 5):
        here.mark(0, 1, START_US)
        (fetch,) = here.fetches(START_US)
        here.fetched(fetch, [], START_US + 3600_000_000 + n, 0.0)

    assert len(here._calendar) < CALENDAR_MAX
    (fetch,) = here.fetches(START_US + 2 * 3600_000_000)
    assert fetch.lane == 1
