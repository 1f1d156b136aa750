"""Levels outlive their judge: a restart, at any point, is as if there had been none."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judge.serving import Feed, ask

from postweir.identity.sender import Directory
from postweir.judge import snapshot
from postweir.judge.counters import Counters, Entry
from postweir.judge.keeping import Keeping, Kept
from postweir.judge.levels import Levels
from postweir.judge.met import Hashes, Met
from postweir.judge.ports import Used
from postweir.judge.snapshot import Head, Snapshot
from postweir.judge.throttles import Throttles
from postweir.judge.windows import DAY_S, HOUR_S
from postweir.policy.bundle import Throttle
from postweir.runtime import clock, files
from postweir.runtime.log import quiet

KEY = "acme|sasl|joe@example.com"
T = 20_000 * DAY_S + 12 * HOUR_S
SLOW = Throttle("slow", "sender", "messages", rate=100, per_s=6000, burst=2)


def keeping(folder, of: int = 1) -> Keeping:
    return Keeping(folder, judge=1, of=of, log=quiet(), words=1024)


def alive(folder, feed: Feed | None = None, of: int = 1) -> Levels:
    kept = keeping(folder, of)
    return Levels(feed or Feed(), kept, kept.load(), log=quiet(), of=of)


FACTS = {"header.from_domain": "example.com", "envelope.from_domain": "x.example",
         "body.bytes": 100}  # fmt: skip


def used(n: int, *, kind: str = "accepted", ago_s: float = 60.0, **more) -> Used:
    at_us = clock.wall_us() - int(ago_s * 1e6)
    return Used(kind, at_us, "acme", KEY, f"m{n}", 1, 100, [f"u{n}@example.org"], **more)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the levels go on by themselves
            await asyncio.sleep(0.005)


def at(counters: Counters, now_s: float):
    """Return what is known of each sender and account of whom anything is known."""
    while counters.tidy(now_s):
        pass
    found = {}
    for name, account in counters.accounts.items():
        for key in account.senders:
            for whose, one in zip((key, name), counters.standing(name, key, now_s), strict=True):
                if any(one.level) or any(one.usual):
                    found[whose] = one.level, one.usual
    return found


async def test_levels_are_read_back_and_known(tmp_path):
    """Without a snapshot the shards' last day is; ends of recipients are read as they come."""
    feed = Feed([used(0, ago_s=90_000), used(1), used(2), used(2, kind="unknown")], down=1)
    levels = alive(tmp_path, feed)
    levels.start()
    assert not levels.known
    await until(lambda: levels.known)
    feed.rows += [used(1, kind="delivered", ago_s=1)]
    await until(lambda: levels.counters.sender(KEY, levels.now_s()).delivered_1d == 1)
    await levels.close()

    level = levels.counters.sender(KEY, levels.now_s())
    assert (level.messages_1h, level.bytes_1h, level.new_recipients_1h) == (2, 200, 2)
    assert (level.bounced_1d, level.unknown_1d) == (1, 1)


async def test_a_snapshot_goes_on_where_it_was(tmp_path):
    """What it holds is not read twice; what came since is read; what was asked is known by id."""
    feed = Feed([used(1), used(2), used(2, kind="delivered")])
    first = alive(tmp_path, feed)
    first.start()
    await until(lambda: first.known)
    m3 = ask("m3", recipients=["u3@example.org"])
    assert first.count(m3, FACTS, 0.0)
    first.took(m3, FACTS, [SLOW, SLOW], "accept")
    await first.close()
    feed.rows += [used(3, ago_s=1), used(4, ago_s=1), used(1, kind="delivered")]
    second = alive(tmp_path, feed)
    assert second.counters.sender(KEY, second.now_s()).messages_1h == 3
    second.start()
    await until(lambda: second.known)
    await second.close()

    level = second.counters.sender(KEY, second.now_s())
    assert (level.messages_1h, level.unique_recipients_1h, level.delivered_1d) == (4, 4, 2)
    assert second.counters.hashes.secret == first.counters.hashes.secret
    assert second.throttles.wait_s(SLOW, {KEY: 2}, second.now_s()) > 0
    assert len(second.counters.accounts["acme"].from_domains) == 1
    again = second.facts(m3, FACTS, Directory(version=0), [SLOW])
    assert (again["usage.messages_1h"], again["throttle.slow"]) == (4, 60)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: files.replace_in_parts(
            path, files.sealed_parts([b"postweir levels 0\n", path.read_bytes()[18:-16]])
        ),
    ],
    ids=["torn", "damaged", "empty", "of an older version"],
)
async def test_a_snapshot_that_cannot_be_used_is_put_aside(tmp_path, harm):
    """Then the levels are rebuilt from what shards tell."""
    first = alive(tmp_path, Feed([used(1)]))
    first.start()
    await until(lambda: first.known)
    await first.close()
    harm(tmp_path / "levels")
    second = alive(tmp_path, Feed([used(1), used(2)]))
    assert second.counters.senders_total == 0
    second.start()
    await until(lambda: second.known)
    await second.close()

    assert (tmp_path / "levels.aside").exists()
    assert second.counters.sender(KEY, second.now_s()).messages_1h == 2
    assert (tmp_path / "levels").exists()


async def test_a_snapshot_of_other_judges_is_put_aside(tmp_path):
    """With another number of judges each answers for other accounts."""
    first = alive(tmp_path, Feed([used(1)]))
    await first.close()
    second = alive(tmp_path, of=2)

    assert second.counters.senders_total == 0
    assert (tmp_path / "levels.aside").exists()


async def test_another_judges_accounts_are_not_ours(tmp_path):
    """Of two judges one counts an account."""
    found = []
    for judge in (1, 2):
        kept = Keeping(None, judge=judge, of=2, log=quiet(), words=1024)
        levels = Levels(Feed([used(1)]), kept, kept.load(), log=quiet(), judge=judge, of=2)
        levels.start()
        await until(lambda levels=levels: levels.known)
        found.append(levels.counters.account("acme", levels.now_s()).messages_1h)
        await levels.close()

    assert sorted(found) == [0, 1]


async def test_the_filter_outlives_the_judge(tmp_path):
    """Who was met is met after a restart, from the filter's file or from the snapshot's log."""
    first = alive(tmp_path)
    first.counters.met.add(7, first.now_s())
    first.keeping._met_at_ns -= 10**15  # its file is due
    await first._save()
    first.counters.met.add(2**63 + 8, first.now_s())
    await first.close()
    assert (tmp_path / "met").exists()
    second = alive(tmp_path)

    assert 7 in second.counters.met
    assert 2**63 + 8 in second.counters.met
    assert 12345 not in second.counters.met


async def test_a_step_of_the_wall_clock_invents_no_history(tmp_path, monkeypatch):
    """Two days ahead: levels stay, no day passes, what is read was sent now at the latest."""
    feed = Feed([used(1)])
    levels = alive(tmp_path, feed)
    levels.start()
    await until(lambda: levels.known)
    before = levels.now_s()
    real = clock.wall_us
    monkeypatch.setattr(clock, "wall_us", lambda: real() + 49 * 3_600_000_000)
    feed.rows += [used(1, kind="delivered", ago_s=0)]
    await until(lambda: levels.counters.sender(KEY, levels.now_s()).delivered_1d == 1)
    await levels.close()
    after = alive(tmp_path)

    assert 0 <= after.now_s() - before < 60
    sender = after.counters.standing("acme", KEY, after.now_s())[0]
    assert (sender.level.messages_1h, sender.usual.days) == (1, 0)


async def test_a_snapshot_is_of_one_instant(tmp_path):
    """What changes while it is written is in it as it was when it began."""
    levels = alive(tmp_path)
    for n in range(1000):
        who = f"acme|x-authuser|u{n}"
        now_s = levels.now_s()
        levels.counters.count(f"m{n}", Entry(now_s, "acme", who, 1, 10), now_s)
    making = levels.keeping.begin(levels.counters, levels.throttles, {"1.usage": 5}, now_s)
    making.step()
    for n in range(0, 1000, 7):
        who = f"acme|x-authuser|u{n}"
        levels.counters.count(f"n{n}", Entry(now_s, "acme", who, 1, 10), now_s)
        levels.counters.uncount(f"m{n}")
        levels.counters.came_of("bounced", "acme", who, now_s, now_s)
        levels.counters.count(f"o{n}", Entry(now_s, "b", f"b|x|{n}", 1, 10), now_s)
    while making.step():
        pass
    levels.keeping.save(making)
    after = keeping(tmp_path).load()

    assert after.counters.senders_total == 1000
    assert "b" not in after.counters.accounts
    for n in range(1000):
        level = after.counters.sender(f"acme|x-authuser|u{n}", now_s)
        assert (level.messages_1d, level.bounced_1d) == (1, 0), n
        assert after.counters.counted(f"m{n}")
    assert after.counters.account("acme", now_s).messages_1d == 1000
    assert levels.counters.before is None


def test_an_unwritable_folder_is_said_and_costs_nothing(tmp_path):
    """Levels go on in memory."""
    (tmp_path / "file").write_text("")
    kept = Keeping(tmp_path / "file" / "judge", judge=1, of=1, log=quiet(), words=64)
    found = kept.load()
    with contextlib.suppress(NotADirectoryError):
        kept.save(kept.begin(found.counters, found.throttles, {}, 1.0))

    assert isinstance(found, Kept)


def restarted(counters: Counters, now_s: float) -> Counters:
    """Return what a judge finds that starts from a snapshot of this instant."""
    head = Head(1, 1, "", 0, 0, now_s, 0, counters.hashes.secret, {}, counters.met.log.tobytes())
    making = Snapshot(head, counters, Throttles())
    while making.step():
        pass
    made = b"".join(files.sealed_parts(making.parts))
    _, rest = snapshot.head_of(made)
    met = Met(words=4096)
    met.restored_log(head.met, now_s)
    again = Counters(Hashes(head.secret), met)
    snapshot.restore(rest, again, Throttles())
    return again


@given(
    st.lists(
        st.tuples(
            st.integers(0, 100_000), st.sampled_from(["a|s|x", "a|s|y", "b|s|x"]),
            st.sets(st.sampled_from("uvwx"), min_size=1), st.sampled_from("cccude"),
        ),
        min_size=1, max_size=30,
    ),
    st.integers(0, 30), st.integers(0, 30),
)  # fmt: skip
def test_a_restart_at_any_point_changes_nothing(events, saved_at, killed_at):
    """A snapshot, and what the shards tell since, give the levels that there would be."""
    went_on = Counters(Hashes(b"s" * 16), Met(words=4096))
    snap, told, now = None, [], T
    for n, (wait, who, names, what) in enumerate(events):
        now += wait / 10
        if n == saved_at:
            snap, told = restarted(went_on, now), []
        live = went_on if n < killed_at or snap is None else None
        one = Entry(now, who[0], who, len(names), n, tuple(sorted(names)))
        if what in "cu":
            told.append((n, one, now))
            went_on.count(f"m{n}", one, now)
            if what == "u" and live is not None:
                # Taken off before it was committed: no shard tells of it.
                told.pop()
                went_on.uncount(f"m{n}")
        else:
            kind = {"d": "delivered", "e": "unknown"}[what]
            told.append((kind, one, now))
            went_on.came_of(kind, one.account, one.sender, now, now)
    if snap is None:
        snap, told = restarted(went_on, now), []
    for what, one, at_s in told:  # read back in the order of the shard's commits
        if isinstance(what, str):
            snap.came_of(what, one.account, one.sender, at_s, at_s)
        else:
            snap.count(f"m{what}", one, at_s, again=False)

    assert at(snap, now) == at(went_on, now)
