"""The oracle of a whole service, held against records that are wrong in every way."""

import pytest
from demo.sink import Received
from tests.crash.record import (
    BOUNCE,
    Customers,
    Death,
    Found,
    Reckoning,
    Sent,
    Timed,
    Witness,
    check_of,
    letter_of,
)
from tests.crash.stops import feel

ADDED = b"Received: from here\r\n\tby there\r\nX-Postweir-Id: 1\r\n"


class Ends:
    """Both ends of a service that is only told about."""

    def __init__(self):
        self.witness = Witness()
        self.load = Customers(None, seed=7)
        self.reckoning = Reckoning(self.witness.came, in_hand_max=2)

    def promise(self, token, *, code=250):
        recipients, content = letter_of(7, token)
        recipients = recipients[:1]
        self.load.sent[token] = Sent(recipients, check_of(content))
        if code == 250:
            self.load.promised[token] = f"id-{token}"
        elif code:
            self.load.turned_away[token] = code
        else:
            self.load.unknown.add(token)
        return recipients, content

    def arrive(self, recipients, content, *, sender="joe@customer.example"):
        self.witness.message(Received(sender, tuple(recipients), content))

    def found(self, *deaths):
        found = Found()
        self.reckoning.take(self.load.sent)
        self.reckoning.judge(self.load, deaths, found)
        return found.lost, found.torn, found.doubled


@pytest.fixture
def ends():
    return Ends()


def test_what_came_as_it_was_promised_is_no_fault(ends):
    """Headers that we add are no change."""
    recipients, content = ends.promise("a")
    ends.arrive(recipients, ADDED + content)

    assert ends.found() == (0, 0, 0)


def test_one_recipient_that_got_nothing_is_a_loss(ends):
    """A message is lost when any of its recipients is."""
    recipients, content = ends.promise("a")
    ends.load.sent["a"] = Sent((*recipients, "kim@other.example"), check_of(content))
    ends.arrive(recipients, content)

    assert ends.found() == (1, 0, 0)


def test_a_dead_recipient_without_a_bounce_is_a_loss(ends):
    """Of a recipient that its host refuses a bounce is due, and only that."""
    _, content = ends.promise("a")
    ends.load.sent["a"] = Sent(("dead@fine.example",), check_of(content))
    before = ends.found()
    ends.arrive(["joe@customer.example"], b"Subject: bounce\r\n\r\n" + content, sender="")

    assert before == (1, 0, 0)
    assert ends.found() == (0, 0, 0)
    assert ends.load.sent["a"].due == (BOUNCE,)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-3] + b"\r\n",
        lambda content: content.replace(b"Subject", b"Subjekt"),
        lambda content: b"Evil: 1\r\n" + content,
        lambda content: content.replace(b"X-Token: a", b"X-Token: b"),
        lambda content: content.partition(b"Subject")[2],
    ],
)
def test_other_bytes_are_torn(ends, spoil):
    """A byte less, another byte, a header nobody knows, another's name, no head."""
    recipients, content = ends.promise("a")
    ends.arrive(recipients, content)
    ends.arrive(recipients, spoil(content))
    _, torn, _ = ends.found(Death(0.0, 1e12))

    assert torn == 1


def test_somebody_elses_recipient_is_torn(ends):
    """What came to whom it was not sent is a fault, whatever its bytes."""
    recipients, content = ends.promise("a")
    ends.arrive(recipients, content)
    ends.arrive(["kim@other.example"], content)

    assert ends.found() == (0, 1, 0)


def test_a_double_needs_a_death_between_its_two(ends):
    """Nobody died, or not then: it is one too many."""
    recipients, content = ends.promise("a")
    ends.arrive(recipients, content)
    ends.arrive(recipients, content)
    first_s = ends.witness.came[0].at_s

    assert ends.found(Death(first_s - 9, first_s - 5), Death(first_s + 5, first_s + 9)) == (0, 0, 1)


def test_a_death_doubles_no_more_than_was_in_hand(ends):
    """Of three doubles two are what one death may cost."""
    for token in "abc":
        recipients, content = ends.promise(token)
        ends.arrive(recipients, content)
        ends.arrive(recipients, content)
    at_s = ends.witness.came[0].at_s

    assert ends.found(Death(at_s, at_s + 1)) == (0, 0, 1)


def test_what_comes_again_in_a_later_stretch_is_seen(ends):
    """The record does not end with a stretch."""
    recipients, content = ends.promise("a")
    ends.arrive(recipients, content)
    first = ends.found()
    ends.load = Customers(None, seed=7)
    ends.arrive(recipients, content)

    assert first == (0, 0, 0)
    assert ends.found() == (0, 0, 1)


def test_what_was_turned_away_and_came_is_told(ends):
    """By the code that the customer heard, 0 where it heard none."""
    for token, code in (("a", 451), ("b", 452), ("c", 0), ("d", 250), ("e", 451)):
        recipients, content = ends.promise(token, code=code)
        if token != "e":
            ends.arrive(recipients, content)

    assert ends.found() == (0, 0, 0)
    assert ends.reckoning.uninvited(ends.load) == {451: 1, 452: 1, 0: 1}


def test_a_letter_is_what_its_seed_says():
    """Sender and judge of a message make it apart from each other."""
    again = letter_of(3, "t1")

    assert letter_of(3, "t1") == again
    assert letter_of(4, "t1") != again
    assert again[1].endswith(b"\r\n")


def test_a_wait_is_put_to_the_stop_or_to_nobody():
    """Held are the stopped edge's connections, and what a shard was sent before it was noticed."""
    timed = [
        Timed(1.0, 0.1, 250, 1),  # before
        Timed(9.9, 1.6, 451, 1),  # under way
        Timed(10.2, 1.5, 451, 2),
        Timed(10.5, 0.2, 250, 3),
        Timed(15.0, 9.0, 250, 3),  # after it
    ]
    shard = feel(timed, "spool 1", set(), 10.0, 12.0)
    edge = feel(timed, "edge 1", {3}, 10.0, 12.0)
    judge = feel(timed, "judge 1", set(), 10.0, 12.0)

    assert (shard.held, shard.others, shard.before_max_s) == (2, 1, 0.1)
    assert (edge.held, edge.others) == (1, 2)
    assert (judge.held, judge.others, judge.others_max_s) == (0, 3, 1.6)
    assert shard.held_max_s == pytest.approx(1.7)
    assert not shard.late()
    assert shard.late(held_s=1.0, noise_s=0.5)
    assert judge.late()
