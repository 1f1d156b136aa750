"""Each parser meets some thousand hostile inputs, the same ones each time."""

import pytest
from tests.fuzz.__main__ import by_chance
from tests.fuzz.mutate import inputs
from tests.fuzz.targets import SEEDS, TARGETS
from tests.mail import driving

from postweir.mail import smtp_server
from postweir.mail.lines import DataReader

COUNT = 2000


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_keeps_its_promise(name):
    """No input of a fixed seed raises or breaks what the parser promises."""
    target = TARGETS[name]
    for data in [*SEEDS[target], *inputs(2026, SEEDS[target], COUNT)]:
        target(data)


def test_a_seed_repeats_its_inputs():
    """What broke under a seed breaks again under it."""
    seeds = next(iter(SEEDS.values()))

    assert list(inputs(7, seeds, 50)) == list(inputs(7, seeds, 50))
    assert len(set(inputs(7, seeds, 50))) > 40


class EndsAtLf(DataReader):
    """Planted: LF dot CRLF ends a message."""

    def feed(self, data):
        found = data.find(b"\n.\r\n")
        if found >= 0 and not (self._held + data[:found]).endswith(b"\r"):
            return super().feed(data[: found + 1] + b"\r\n.\r\n")[0], found + 4
        return super().feed(data)


class Hasty(smtp_server.ServerSession):
    """Planted: reads on behind a command whose answer is to be waited for."""

    def _show(self, event, *, waits=False):
        return super()._show(event)


class Lenient(smtp_server.ServerSession):
    """Planted: an LF alone ends a command."""

    def receive(self, data):
        if self.state is not smtp_server.State.DATA:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        super().receive(data)


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (smtp_server, "DataReader", EndsAtLf),
        (driving, "ServerSession", Hasty),
        (driving, "ServerSession", Lenient),
    ],
)
def test_a_planted_fault_of_the_server_is_found(where, name, fault, monkeypatch):
    """The inputs of this file are enough to see each of these."""
    monkeypatch.setattr(where, name, fault)

    with pytest.raises(AssertionError):
        test_a_parser_keeps_its_promise("smtp_server")


def test_a_broken_parser_is_found(tmp_path, monkeypatch, capsys):
    """The driver finds a planted fault, keeps the input, and says so."""
    monkeypatch.chdir(tmp_path)

    def planted(data: bytes) -> None:
        assert b"\r\n.\r\n" not in data

    assert by_chance(planted, "planted", [b"a\r\nb"], seconds=20, seed=1) == 1
    assert b"\r\n.\r\n" in (tmp_path / "fuzz-planted.bin").read_bytes()
    assert "broken by" in capsys.readouterr().out
