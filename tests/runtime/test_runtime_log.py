"""One occurrence is one line, whatever a stranger put into it."""

import contextlib

from postweir.runtime.log import VALUE_CHARS_MAX, open_log


def test_one_line_with_its_words(tmp_path):
    """A line names its time, level, process, event, and then its own fields."""
    journal = open_log("edge 1", path=str(tmp_path / "log"))
    with contextlib.closing(journal):
        journal.log.info("edge.accepted", message="06gg", bytes=7)
    line = (tmp_path / "log").read_text()

    assert line.startswith("at=20")
    assert ' level=info process="edge 1[' in line or " level=info process='edge 1[" in line
    assert " event=edge.accepted message=06gg bytes=7\n" in line


def test_control_characters_are_shown_not_sent(tmp_path):
    """A remote's reply cannot start a line of its own, nor colour a terminal, nor be endless."""
    journal = open_log("delivery 1", path=str(tmp_path / "log"))
    with contextlib.closing(journal):
        reply = "550 \x1b[31mno\r\nat=2026 event=forged" + "x" * 9999
        journal.log.info("delivery.attempt", reply=reply)
    text = (tmp_path / "log").read_text()

    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert len(text) < VALUE_CHARS_MAX + 300


def test_a_moved_file_is_left(tmp_path):
    """After logrotate moved the file and SIGHUP came, lines go to a new one."""
    journal = open_log("edge 1", path=str(tmp_path / "log"))
    journal.log.info("one")
    (tmp_path / "log").rename(tmp_path / "log.1")
    journal.reopen()
    journal.log.info("two")
    journal.close()

    assert "event=two" in (tmp_path / "log").read_text()
    assert "event=two" not in (tmp_path / "log.1").read_text()


def test_a_level_that_is_off_says_nothing(tmp_path):
    """What is below the level costs no line."""
    with contextlib.closing(open_log("edge 1", path=str(tmp_path / "log"), level="warning")) as it:
        it.log.info("one")

    assert (tmp_path / "log").read_text() == ""
