"""Policies that were deployed: written once, found by the hash of what they say."""

import pytest

from postweir.desk.ports import Note
from postweir.judge.ports import Deployment, Loadable
from postweir.policy.bundle import Bundle, Rule, Set, set_bytes, set_name
from postweir.storage import sqlite_tables
from postweir.storage.sqlite import StorageFault, connect
from postweir.storage.sqlite_policies import PRUNE_SETS, SqlitePolicies
from postweir.storage.sqlite_tables import KEEP_US, SqliteTables

SCHEMA = b'["facts"]'
LATE = 10  # deployments whose sets always stay


def policy(name, *keys):
    """Return a policy of one rule, with a set of these keys if there are any."""
    rules = (Rule(name, "true", "hold"),)
    if not keys:
        return Loadable(Bundle(rules))
    data = set_bytes(frozenset(keys))
    one = Set("partners", "recipient_domains", set_name(data), len(keys))
    return Loadable(Bundle(rules, sets=(one,)), {set_name(data): data})


def note(at_us=1, reason="", by="op"):
    return Note(at_us, by, "policy deploy", "pol", reason)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tables.db"


@pytest.fixture
def tables(path):
    return SqliteTables(path)


@pytest.fixture
def policies(tables):
    return SqlitePolicies(tables)


def test_before_anything_is_deployed_there_is_nothing(policies, tables, path):
    """No file, or one without deployments: judges go on with what is on their disks."""
    assert policies.last() is None
    assert not path.exists()
    tables.add_account("acme", {}, note())
    assert policies.last() is None
    assert policies.deployments() == []
    assert policies.kept("pol_x") is None
    assert policies.loadable("pol_x") is None


def test_tables_of_the_version_before_are_read(path, policies, monkeypatch):
    """Until a command writes to them they have no deployments; then they are brought here."""
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_tables, "MIGRATIONS", sqlite_tables.MIGRATIONS[:1])
        SqliteTables(path).add_account("acme", {}, note())
    assert policies.last() is None
    number = policies.deploy("deploy", policy("a"), "a = 1", SCHEMA, note())

    assert policies.last().number == number
    assert "acme" in SqliteTables(path).directory(-1).accounts


def test_what_was_deployed_comes_back_whole(policies, tables):
    """Bundle, sets, source, who and why; with its line in the audit log."""
    made = policy("a", "x.example", "y.example")
    number = policies.deploy("deploy", made, "the source", SCHEMA, note(7, "monday"))

    assert policies.loadable(made.policy) == made
    kept = policies.kept(made.policy)
    assert (kept.canonical, kept.source, kept.at_us, kept.by) == (
        made.canonical, "the source", 7, "op")  # fmt: skip
    assert policies.last() == Deployment(number, "deploy", made.policy, 7, "op", "monday")
    assert [n.reason for _, n in tables.notes(0, 10)] == ["monday"]


def test_the_same_policy_again_is_a_deployment_and_no_second_copy(policies):
    """Back and forth: the first source and time stay."""
    policies.deploy("deploy", policy("a", "x"), "first", SCHEMA, note(1))
    policies.deploy("deploy", policy("b", "x"), "other", SCHEMA, note(2))
    policies.deploy("rollback", policy("a", "x"), "second", SCHEMA, note(3))

    assert [d.verb for d in policies.deployments()] == ["deploy", "deploy", "rollback"]
    assert policies.kept(policy("a", "x").policy).source == "first"
    assert policies.last().policy == policy("a", "x").policy


@pytest.mark.parametrize(
    "change",
    [
        "update policy set source = 'y'", "delete from policy",
        "insert or replace into policy select hash, canonical, 'y', at_us, by from policy",
        "update policy_set set data = x'00'", "delete from policy_set",
        "insert or replace into policy_set select hash, x'00' from policy_set",
        "update facts_schema set data = x'00'", "delete from facts_schema",
        "insert or replace into facts_schema select hash, x'00' from facts_schema",
        "update deployment set policy = 'x'", "delete from deployment",
        "insert or replace into deployment select number, verb, 'x', 1, by, reason from deployment",
    ],
)  # fmt: skip
def test_nothing_that_was_written_is_changed(policies, path, change):
    """Not even by hand."""
    made = policy("a", "x")
    policies.deploy("deploy", made, "source", SCHEMA, note())
    connection = connect(path)
    with pytest.raises(Exception, match="stays"):
        connection.execute(change)
    connection.close()

    assert policies.loadable(made.policy) == made


def test_sets_that_no_late_deployment_names_go(policies, path):
    """A list that is renewed each hour does not fill the disk; the policies stay, to be read."""
    made = [policy(f"p{n}", f"{n}.example") for n in range(LATE + PRUNE_SETS)]
    for n, one in enumerate(made):
        policies.deploy("deploy", one, "", SCHEMA, note(n))

    def there():
        return [one for one in made if policies.loadable(one.policy)]

    assert there() == made
    policies.deploy("deploy", policy("last"), "", SCHEMA, note(KEEP_US + 5))
    assert there() == made[5:]
    policies.deploy("deploy", policy("last"), "", SCHEMA, note(3 * KEEP_US))
    assert there() == made[-LATE + 2 :]
    assert policies.kept(made[0].policy)


def test_whoever_wins_a_race_the_numbers_are_in_order(policies):
    """Two operators at once: both are deployments, the later one counts."""
    numbers = [policies.deploy("deploy", policy(f"p{n}"), "", SCHEMA, note()) for n in range(3)]

    assert numbers == sorted(set(numbers))
    assert policies.last().policy == policy("p2").policy


def test_bytes_that_are_not_those_of_the_name_are_not_given(policies, path):
    """A page that rotted, or a hand: an error, and never another policy under this name."""
    made = policy("a", "x")
    policies.deploy("deploy", made, "", SCHEMA, note())
    connection = connect(path)
    connection.execute("drop trigger policy_set_changed")
    connection.execute("update policy_set set data = cast('y' as blob)")
    connection.close()

    with pytest.raises(StorageFault, match="named after"):
        policies.loadable(made.policy)
