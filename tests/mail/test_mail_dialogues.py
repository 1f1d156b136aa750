"""The conversations in tests/dialogues, held with `ServerSession`."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.mail.driving import Drive

from postweir.mail.smtp_server import Offers, State

DIALOGUES = sorted((Path(__file__).parent.parent / "dialogues").glob("*.smtp"))


class Talk:
    """One reading of a dialogue."""

    def __init__(self, *, bytewise: bool) -> None:
        self._bytewise = bytewise
        self._drive = Drive()
        self._say = b""
        self._heard: list[str] = []

    def step(self, kind: str, text: str) -> None:
        match kind:
            case "offers":
                words = text.split()
                auth = ("PLAIN", "LOGIN") if "auth" in words else ()
                offers = Offers("relay.example.net", 1_000_000, "starttls" in words, auth)
                self._drive = Drive(offers)
            case "C:":
                self._say += text.encode() + b"\r\n"
            case "C-":
                self._say += unescaped(text)
            case "W-":
                self._drive.feed(unescaped(text))
            case "S:":
                self._flush()
                self._expect(text)
            case _:
                raise AssertionError(f"what is {kind!r}?")

    def end(self) -> None:
        self._flush()
        self._hear()
        assert self._heard == []

    def _flush(self) -> None:
        step = 1 if self._bytewise else len(self._say) or 1
        for at in range(0, len(self._say), step):
            self._drive.feed(self._say[at : at + step])
        self._say = b""

    def _hear(self) -> None:
        self._heard += b"".join(self._drive.said).decode().split("\r\n")[:-1]
        self._drive.said.clear()

    def _expect(self, text: str) -> None:
        if text == "(tls)":
            self._drive.session.restart()
            return
        self._hear()
        if text == "(closed)":
            assert self._drive.session.state is State.CLOSED
            return
        assert self._heard, f"nothing was said, where {text!r} should be"
        line = self._heard.pop(0)
        assert line.startswith(text[:-1]) if text.endswith("…") else line == text


def hold(lines: Iterable[str], *, bytewise: bool) -> None:
    talk = Talk(bytewise=bytewise)
    for line in lines:
        kind, _, text = line.partition(" ")
        if kind not in ("#", ""):
            talk.step(kind, text)
    talk.end()


def unescaped(text: str) -> bytes:
    return bytes(ast.literal_eval(f'b"""{text}"""'))


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path, bytewise):
    """What the file says we answer, we answer, in that order and no more."""
    hold(path.read_text().splitlines(), bytewise=bytewise)


def test_there_are_dialogues():
    """The folder is found: a runner of nothing proves nothing."""
    assert len(DIALOGUES) >= 10


def test_a_wrong_answer_is_noticed():
    """The runner fails where an answer is another, is missing, or is too many."""
    for wrong in (["S: 500 …"], ["S: 250 …", "S: 250 …"], []):
        with pytest.raises(AssertionError):
            hold(["C: NOOP", *wrong], bytewise=False)
