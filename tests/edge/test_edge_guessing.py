"""Who guesses waits; who is right where they usually come from never does."""

from hypothesis import given
from hypothesis import strategies as st

from postweir.edge import guessing
from postweir.edge.guessing import (
    CLIENT_MAX,
    CLIENT_S,
    CLIENTS_MAX,
    NAME_MAX,
    NAMES_MAX,
    PAIR_MAX,
    PAIR_S,
    Guessing,
    Levels,
)
from postweir.edge.sasl import Claim

KEY = b"k" * 32
HOME, AWAY = "192.0.2.1", "198.51.100.9"


def fails(tables, client, name, count, *, at_s=0.0, first=0):
    """Have so many wrong secrets of a name looked at."""
    for n in range(first, first + count):
        guess = tables.guess(client, Claim(name, f"wrong{n}"))
        if not tables.backs_off(guess, at_s):
            tables.wrong(guess, 1, at_s)


def claim(tables, client, name, secret="right"):
    return tables.guess(client, Claim(name, secret))


def test_guesses_from_one_client_at_one_name():
    """After some, not even the right secret opens from there; after its time it does again."""
    tables = Guessing(KEY)
    fails(tables, AWAY, "acme-1", PAIR_MAX - 1)
    assert not tables.bars(claim(tables, AWAY, "acme-1"), 0)
    fails(tables, AWAY, "acme-1", 100, first=50)

    assert tables.bars(claim(tables, AWAY, "acme-1"), 0)
    assert not tables.bars(claim(tables, HOME, "acme-1"), 0)
    assert not tables.bars(claim(tables, AWAY, "other-1"), 0)
    assert not tables.bars(claim(tables, AWAY, "acme-1"), PAIR_S * 1.01)


def test_going_on_prolongs_nothing():
    """Who goes on through a back-off has one look more when it ends, and is not longer away."""
    tables = Guessing(KEY)
    looked = 0
    for n in range(10_000):
        guess = claim(tables, AWAY, "acme-1", f"x{n}")
        if not tables.backs_off(guess, n * 0.1):
            looked += 1
            tables.wrong(guess, 1, n * 0.1)

    assert looked <= PAIR_MAX + 1 + 1000 / PAIR_S


def test_the_same_again_is_no_guess():
    """A program with one old secret never backs its whole house off."""
    tables = Guessing(KEY)
    old = claim(tables, HOME, "acme-1", "old")
    for n in range(1000):
        tables.wrong(old, 1 + n, n * 0.1)

    assert not tables.backs_off(claim(tables, HOME, "acme-1"), 100)
    assert not tables.bars(claim(tables, HOME, "acme-2"), 100)


def test_many_names_from_one_client():
    """A list of leaked secrets is not tried out from one address: the client waits."""
    tables = Guessing(KEY)
    for n in range(CLIENT_MAX):
        fails(tables, AWAY, f"name-{n}", 1)

    assert tables.bars(claim(tables, AWAY, "fresh-1"), 0)
    assert not tables.bars(claim(tables, AWAY, "fresh-1"), CLIENT_S * 1.01)


def test_many_clients_at_one_name():
    """Wrong secrets are no longer looked at; the right one still opens, also from a new client."""
    tables = Guessing(KEY)
    for n in range(NAME_MAX):
        fails(tables, f"10.0.0.{n}", "acme-1", 1, first=n)

    assert tables.backs_off(claim(tables, "10.9.9.9", "acme-1", "x"), 0)
    assert not tables.bars(claim(tables, "10.9.9.9", "acme-1"), 0)
    assert not tables.bars(claim(tables, HOME, "acme-1"), 0)


def test_a_guesser_next_door():
    """Behind one address are a guesser and a good customer: who was right there gets in."""
    tables = Guessing(KEY)
    tables.right(claim(tables, HOME, "acme-1"), 0.0)
    fails(tables, HOME, "acme-1", 100, at_s=1.0)
    for n in range(100):
        fails(tables, HOME, f"name-{n}", 1, at_s=1.0)

    assert tables.backs_off(claim(tables, HOME, "acme-1", "x"), 1.0)
    assert not tables.bars(claim(tables, HOME, "acme-1"), 1.0)
    assert tables.bars(claim(tables, HOME, "acme-2"), 1.0)


clients = st.sampled_from([HOME, AWAY, "10.0.0.1", "2001:db8::/64"])
names = st.sampled_from(["acme-1", "acme-2", "nobody"])
pauses = st.sampled_from([0.0, 0.0, 0.0, 0.1, 1.0, 20.0])
attacks = st.lists(st.tuples(clients, names, st.integers(0, 3000), pauses), max_size=300)


@given(attacks, names)
def test_nobody_is_locked_out_from_home(attack, name):
    """Whatever others do, and from wherever: who was right from there is let in from there."""
    tables = Guessing(KEY)
    tables.right(claim(tables, HOME, name), 0.0)
    now_s = 0.0
    for client, named, secret, later_s in attack:
        now_s += later_s
        guess = claim(tables, client, named, f"wrong{secret}")
        tables.wants_patience(guess, now_s)
        if not tables.backs_off(guess, now_s):
            tables.wrong(guess, 1, now_s)

        assert not tables.bars(claim(tables, HOME, name), now_s)


@given(attacks)
def test_every_back_off_ends(attack):
    """When the attack is over, the longest wait is known before: nobody is away for good."""
    tables = Guessing(KEY)
    now_s = 0.0
    for client, named, secret, later_s in attack:
        now_s += later_s
        tables.wrong(claim(tables, client, named, f"wrong{secret}"), 1, now_s)
    now_s += 1.01 * max(PAIR_S, CLIENT_S)

    for client in (HOME, AWAY, "10.0.0.1"):
        assert not tables.bars(claim(tables, client, "acme-1"), now_s)


@given(attacks)
def test_known_names_and_unknown_ones_are_the_same(attack):
    """The same claims under another name come to the same: nothing tells which names exist."""
    one, other = Guessing(KEY), Guessing(b"other" * 6)
    now_s = 0.0
    for client, named, secret, later_s in attack:
        now_s += later_s
        found = []
        for tables, prefix in ((one, ""), (other, "not-")):
            guess = tables.guess(client, Claim(prefix + named, f"wrong{secret}"))
            patient, wrong = tables.wants_patience(guess, now_s), None
            if not tables.backs_off(guess, now_s):
                wrong = tables.wrong(guess, 1, now_s)
            found.append((patient, wrong, tables.bars(guess, now_s)))

        assert found[0] == found[1]


def test_patience():
    """A few noes are at once, then they come late; a quiet client is forgiven."""
    tables = Guessing(KEY)
    guess = claim(tables, AWAY, "acme-1")
    late = [tables.wants_patience(guess, 0.0) for _ in range(guessing.NOES_MAX + 500)]

    assert late == [False] * guessing.NOES_MAX + [True] * 500
    assert not tables.wants_patience(claim(tables, HOME, "acme-1"), 1.0)
    assert not tables.wants_patience(guess, 60.0)


def test_an_attack_from_everywhere():
    """When noes rain, nobody's no is hurried; the right secret is none of it."""
    tables = Guessing(KEY)
    for n in range(guessing.ALL_NOES_MAX):
        tables.wants_patience(claim(tables, f"10.0.{n}.1", "x"), 0.0)

    assert tables.wants_patience(claim(tables, AWAY, "y"), 0.0)
    assert not tables.bars(claim(tables, HOME, "acme-1"), 0.0)


def test_a_no_is_remembered_for_these_tables():
    """What was wrong is so for as long as the tables are the same, and for a bounded time."""
    tables = Guessing(KEY)
    guess = claim(tables, AWAY, "acme-1", "x")
    tables.wrong(guess, 7, 100.0)

    assert tables.was_wrong(guess, 7, since_s=40.0)
    assert not tables.was_wrong(guess, 8, since_s=40.0)
    assert not tables.was_wrong(guess, 7, since_s=101.0)
    assert not tables.was_wrong(claim(tables, AWAY, "acme-1", "y"), 7, since_s=40.0)


def test_name_and_secret_do_not_run_together():
    """`ab` + `c` is not `a` + `bc`, and no table holds a name or a secret in clear."""
    tables = Guessing(KEY)
    one, other = (tables.guess(AWAY, Claim(*words)) for words in (("ab", "c"), ("a", "bc")))
    tables.wrong(one, 1, 0.0)

    assert one.both != other.both
    assert not tables.was_wrong(other, 1, since_s=0.0)
    held = tables.guess(AWAY, Claim("hello-user", "hunter2"))
    assert all(len(part) == 12 for part in (held.name, held.both))
    assert Guessing(b"z" * 32).guess(AWAY, Claim("hello-user", "hunter2")) != held


def test_tables_are_bounded(monkeypatch):
    """However many clients and names there are, what is remembered is bounded."""
    monkeypatch.setattr(guessing, "NAMES_MAX", 50)
    tables = Guessing(KEY)
    for n in range(500):
        guess = claim(tables, f"2001:db8:{n:x}::/64", f"name-{n}")
        tables.wrong(guess, 1, 0.0)
        tables.right(guess, 0.0)
        tables.right(claim(tables, f"10.0.{n // 256}.{n % 256}", "one"), 0.0)

    assert len(tables._pairs) == len(tables._names) == len(tables._clients) == 50
    assert len(tables._wrong) == len(tables._right) == 50
    assert max(map(len, tables._right.values())) == CLIENTS_MAX
    assert NAMES_MAX > 1000


@given(st.lists(st.tuples(pauses, st.integers(0, 3)), max_size=200))
def test_levels_never_exceed_what_is_allowed(steps):
    """A count stays between nothing and what is allowed, falls with time, and opens again."""
    levels, now_s = Levels(3, 10.0), 0.0
    for later_s, name in steps:
        now_s += later_s
        levels.add(name, now_s)

        assert 0 <= levels._level(name, now_s) <= 3
        assert levels._level(name, now_s + 1) <= levels._level(name, now_s)
        assert not levels.over(name, now_s + 10.01)


def test_who_was_shown_out_is_shunned():
    """Who guesses faster than noes are held back is not let in for some seconds, nobody else."""
    tables = Guessing(KEY)
    tables.shown_out(AWAY, 0.0)

    assert tables.shuns(AWAY, 1.0)
    assert tables.shuns_any(1.0)
    assert not tables.shuns(HOME, 1.0)
    assert not tables.shuns(AWAY, guessing.SHUNNED_S + 0.1)
    assert not tables.shuns_any(guessing.SHUNNED_S + 0.1)


def test_a_client_where_somebody_was_right_is_not_shunned():
    """Behind one address may be a guesser and a good customer: that one still gets in."""
    tables = Guessing(KEY)
    tables.right(claim(tables, AWAY, "acme-1"), 0.0)
    tables.shown_out(AWAY, 1.0)

    assert not tables.shuns(AWAY, 1.0)
