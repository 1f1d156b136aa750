"""What `up` would stumble over is found before: file, line, and what to do."""

import os
import socket

import pytest
from demo.installation import certificate

from postweir.desk import standing
from postweir.runtime import settings

FREE = '[edge]\nlisten = ["127.0.0.1:0"]\n[metrics]\nlisten = "127.0.0.1:0"\n'
PAIR = FREE + '[tls]\ncertificate = "relay.crt"\nkey = "relay.key"\n'


@pytest.fixture
def looked(tmp_path):
    """Write settings; returns what is wrong and what is worth saying."""

    def look(text, running=False):
        path = tmp_path / "postweir.toml"
        path.write_text(text)
        now = settings.read(path, {})
        return standing.faults(path, now, running=running), [
            one for one in standing.warnings(path, now) if not one.what.startswith("you are root")
        ]

    return look


def test_what_stands_well_has_no_faults(looked, tmp_path):
    """A free port, a directory to be made, a pair of files in force."""
    certificate(tmp_path)

    assert looked(PAIR) == ([], [])


def test_an_address_of_a_pool_that_this_host_has_not_is_told(looked, tmp_path):
    """It keeps nobody from starting: the rest of the pool is used, and the address may come."""
    pools = 'pools = { bulk = ["127.0.0.1", "192.0.2.1", "2001:db8::1"], own = ["127.0.0.2"] }'
    faults, found = looked(FREE + f"[delivery]\n{pools}\n")

    assert faults == []
    assert [one.what for one in found] == [
        "pool bulk: this host has no address 192.0.2.1",
        "pool bulk: this host has no address 2001:db8::1",
    ]
    assert {one.where for one in found} == {f"{tmp_path / 'postweir.toml'}:6"}


def test_a_taken_port_is_told_unless_it_is_ours(looked, tmp_path):
    """Who runs already holds its ports."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = FREE.replace("127.0.0.1:0", f"127.0.0.1:{other.getsockname()[1]}", 1)
        (fault,), _ = looked(text)
        ours, _ = looked(text, running=True)

    assert fault.where == f"{tmp_path / 'postweir.toml'}:2"
    assert "address already in use" in fault.what
    assert ours == []


def test_one_port_is_not_for_two(looked):
    """The second `bind` would fail at the start."""
    (fault,), _ = looked(FREE.replace("127.0.0.1:0", "127.0.0.1:40001"))

    assert "as edge.listen has" in fault.what


@pytest.mark.parametrize("address", ["192.0.2.1:0", "[2001:db8::1]:0"])
def test_an_address_of_another_host_is_told(looked, address):
    """A slip of the pen in an address stops a start."""
    (fault,), _ = looked(FREE.replace("127.0.0.1:0", address, 1))

    assert address in fault.what


def test_a_key_of_another_certificate_is_told(looked, tmp_path):
    """A renewal that copied only one of the two files."""
    certificate(tmp_path)
    (tmp_path / "old").mkdir()
    certificate(tmp_path / "old")
    (tmp_path / "old" / "relay.key").replace(tmp_path / "relay.key")
    (fault,), _ = looked(PAIR)

    assert "do not make a pair" in fault.what


def test_a_file_that_is_no_certificate_is_told(looked, tmp_path):
    """Whatever stands in it, and nobody is asked for a password."""
    for name in ("relay.crt", "relay.key"):
        (tmp_path / name).write_text("no PEM")
    (fault,), _ = looked(PAIR)

    assert "do not make a pair" in fault.what


@pytest.mark.parametrize(("days", "wrong", "soon"), [(-1, 1, 0), (3, 0, 1), (40, 0, 0)])
def test_a_certificate_that_ended_is_a_fault_and_one_that_ends_soon_a_warning(
    looked, tmp_path, days, wrong, soon
):
    """Customers who verify would turn away."""
    certificate(tmp_path, days=days)
    found, warned = looked(PAIR)

    assert (len(found), len(warned)) == (wrong, soon)
    assert all("not in force" in one.what for one in found)
    assert all("ends in 3 days" in one.what for one in warned)


def test_a_directory_that_is_none_or_not_ours_is_told(looked, tmp_path, monkeypatch):
    """Nothing can be kept there."""
    (tmp_path / "file").touch()
    (fault,), _ = looked(FREE + '[storage]\ndata = "file"\n')
    assert "is no directory" in fault.what
    monkeypatch.setattr(os, "access", lambda *_: False)
    (fault,), _ = looked(FREE + '[storage]\ndata = "var"\n')

    assert "cannot be written by user" in fault.what


def test_files_that_are_named_must_be_there(looked):
    """A list of hosts nobody can read would make the scanner unavailable."""
    found, _ = looked(FREE + '[judge]\nurl_hosts = "none.txt"\n[log]\nfile = "none/x.log"\n')

    assert ["cannot be read" in found[0].what, "cannot be written" in found[1].what] == [True] * 2
