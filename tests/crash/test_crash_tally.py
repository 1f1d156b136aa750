"""The tally: what is in it after any kill, and where the next run goes on."""

from tests.crash import tally
from tests.crash.life import Life
from tests.crash.tally import Stretch


def stretch(attack: str = "kill", revision: str = "aa", *lives: Life) -> Stretch:
    """Return a stretch of these lives."""
    one = Stretch(revision, attack, 1, seconds=2.0)
    for life in lives:
        one.add(life)
    return one


def test_a_stretch_counts_its_lives():
    """Also what a life broke, with its seed; the next run goes on behind the last one."""
    one = stretch("kill", "aa", Life(seed=1, acked=10), Life(seed=2, acked=5, lost=3, doubled=1))

    assert (one.lives, one.acked, one.lost, one.torn, one.doubled) == (2, 15, 3, 0, 1)
    assert (one.failing, one.next_seed) == ([2], 3)


def test_what_was_written_is_read_again(tmp_path):
    """Line by line."""
    path = tmp_path / "deep" / "tally.jsonl"
    written = [stretch("kill", "aa", Life(seed=n, acked=n)) for n in range(3)]
    for one in written:
        tally.append(path, one)

    assert tally.read(path) == written
    assert tally.read(tmp_path / "none") == []


def test_a_line_that_was_cut_off_is_none(tmp_path):
    """A kill while it was written: all before it counts, and so does what comes behind it."""
    path = tmp_path / "tally.jsonl"
    good = stretch("kill", "aa", Life(seed=1, acked=1))
    tally.append(path, good)
    whole = path.read_bytes()
    for cut in range(len(whole) - 1):
        path.write_bytes(whole + whole[:cut])

        assert tally.read(path) == [good]
        tally.append(path, good)
        assert tally.read(path) == [good, good]


def test_each_attack_goes_on_where_it_left_off_at_this_revision():
    """Another attack's seeds are its own, and a new revision is attacked from the start."""
    done = [
        stretch("kill", "aa", Life(seed=7, acked=1)),
        stretch("cut", "aa", Life(seed=9, acked=1)),
    ]

    assert tally.next_seed(done, "aa", "kill") == 8
    assert tally.next_seed(done, "bb", "kill") == 1


def test_totals_are_by_revision_and_attack():
    """As a table for the docs; a failing seed is named."""
    done = [
        stretch("kill", "aa", Life(seed=1, acked=1000)),
        stretch("kill", "aa", Life(seed=2, acked=500, torn=1)),
        stretch("kill", "bb", Life(seed=1, acked=1)),
    ]

    assert tally.table(done).splitlines()[2:] == [
        "| `aa` | kill | 2 | 1,500 | 0 | 1 | 0 | 4 | 2 |",
        "| `bb` | kill | 1 | 1 | 0 | 0 | 0 | 2 | – |",
    ]
