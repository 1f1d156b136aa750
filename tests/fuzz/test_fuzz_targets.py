"""Each parser meets some thousand hostile inputs, the same ones each time."""

import pytest
from tests.fuzz.__main__ import by_chance
from tests.fuzz.mutate import inputs
from tests.fuzz.targets import SEEDS, TARGETS

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


def test_a_broken_parser_is_found(tmp_path, monkeypatch, capsys):
    """The driver finds a planted fault, keeps the input, and says so."""
    monkeypatch.chdir(tmp_path)

    def planted(data: bytes) -> None:
        assert b"\r\n.\r\n" not in data

    monkeypatch.setitem(SEEDS, planted, [b"a\r\nb"])

    assert by_chance(planted, "planted", seconds=20, seed=1) == 1
    assert b"\r\n.\r\n" in (tmp_path / "fuzz-planted.bin").read_bytes()
    assert "broken by" in capsys.readouterr().out
