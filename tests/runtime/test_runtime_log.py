"""One occurrence is one line, whatever a stranger put into it."""

import contextlib
from datetime import UTC, datetime

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


def test_every_kind_of_value(tmp_path):
    """What is no word stands in quotes; nothing, yes and no have their own signs."""
    journal = open_log("edge 1", path=str(tmp_path / "log"))
    with contextlib.closing(journal):
        journal.log.warning(
            "x", a="b c", b='say "hi" \\', c="k=v", d=None, e=True, f=False, g=1.5, h=("é", 1), i=""
        )  # fmt: skip
    line = (tmp_path / "log").read_text(encoding="utf-8")

    assert " level=warning " in line
    assert line.endswith(
        ' event=x a="b c" b="say \\"hi\\" \\\\" c="k=v" d= e f=false g=1.5 h="(\'é\', 1)" i=\n'
    )


def test_a_fault_ends_with_what_happened(tmp_path):
    """Of a long traceback the end is kept, on the same line."""

    def deep(n):
        return deep(n - 1) if n else 1 / 0

    journal = open_log("edge 1", path=str(tmp_path / "log"))
    with contextlib.closing(journal):
        try:
            deep(200)
        except ZeroDivisionError as fault:
            journal.log.error("x.failed", exc_info=fault)
    text = (tmp_path / "log").read_text()

    assert text.count("\n") == 1
    assert text.endswith('ZeroDivisionError: division by zero"\n')


def test_times_count_on(tmp_path):
    """Each line has its own time, to the microsecond, in UTC."""
    before = datetime.now(UTC)
    journal = open_log("edge 1", path=str(tmp_path / "log"))
    with contextlib.closing(journal):
        for _ in range(3):
            journal.log.info("x")
    times = [
        datetime.fromisoformat(line.split()[0].removeprefix("at="))
        for line in (tmp_path / "log").read_text().splitlines()
    ]

    assert before.replace(microsecond=0) <= times[0] <= times[1] <= times[2] <= datetime.now(UTC)


def test_a_level_that_is_off_says_nothing(tmp_path):
    """What is below the level costs no line."""
    with contextlib.closing(open_log("edge 1", path=str(tmp_path / "log"), level="warning")) as it:
        it.log.info("one")

    assert (tmp_path / "log").read_text() == ""
