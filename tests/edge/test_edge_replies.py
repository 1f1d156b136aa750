"""docs/replies.md is the registry: what it lists is what we say, no more and no less."""

import ast
import tomllib
from pathlib import Path

import pytest

from postweir.edge.replies import SUSPENDED, TEXT_CHARS_MAX, of_disk, of_verdict
from postweir.policy.baseline import CHECKS
from postweir.policy.verdict import Verdict

ROOT = Path(__file__).parent.parent.parent
SRC = ROOT / "src" / "postweir"
SAY = {"Reply", "misstep", "fatal"}  # what makes a reply out of code, status and sentence
SPOKEN = [
    *sorted((SRC / "edge").glob("*.py")),
    SRC / "mail/commands.py",
    SRC / "mail/smtp_server.py",
]
REPLY_BYTES_MAX = 512  # RFC 5321 4.5.3.1.5


def said(path: Path) -> set[tuple[str, str]]:
    """Every reply a module can make, as (`552 5.3.4`, sentence); … is what varies."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAY:
            code, status, text = node.args[:3]
            if isinstance(code, ast.Constant):
                found.add((f"{code.value} {status.value}".strip(), sentence(text)))
    return found


def sentence(node: ast.expr) -> str:
    match node:
        case ast.Constant():
            return node.value
        case ast.JoinedStr():
            return "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
    return "…"


def rows(heading: str) -> list[list[str]]:
    """The rows of the tables below a heading of docs/replies.md."""
    part = (ROOT / "docs" / "replies.md").read_text().split(f"\n## {heading}\n")[1]
    lines = part.split("\n## ")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return [row for row in cells if row[0].startswith("`")]


def test_every_reply_is_in_the_registry():
    """Each reply in the code has its row, and each row its reply; each says what to do."""
    spoken = set().union(*map(said, SPOKEN)) | {("220", "… ESMTP Postweir")}
    listed = [(row[0].strip("`"), row[1]) for row in rows("Replies")]

    assert set(listed) == spoken
    assert len(listed) == len(set(listed))
    assert all(len(row) == 4 and row[2] and row[3] for row in rows("Replies"))


def test_every_code_is_in_the_registry():
    """Each code of the default policy, the baseline and the edge has its row, and none else."""
    policy = tomllib.loads((SRC / "policy" / "default.toml").read_text())
    used = {rule["then"]["code"] for rule in policy["rule"] if "code" in rule["then"]}
    used |= {check.code for check in CHECKS} | {SUSPENDED.code}

    assert {row[0].strip("`[]") for row in rows("Codes")} == used
    assert all(len(row) == 3 and row[1] and row[2] for row in rows("Codes"))


def test_a_reply_that_is_not_listed_is_noticed(tmp_path):
    """The reader of the code sees all three ways to make a reply."""
    path = tmp_path / "x.py"
    path.write_text(
        "A = Reply(550, '5.0.0', 'a')\nfatal(500, '5.5.2', f'b {1} c')\nmisstep(501, '', x)"
    )

    assert said(path) == {("550 5.0.0", "a"), ("500 5.5.2", "b … c"), ("501", "…")}


@pytest.mark.parametrize("text", ["x" * 5000, "a\r\n250 Ok", "\x1b[31mred\x00", "é" * 300, ""])
@pytest.mark.parametrize("verb", ["refuse", "defer"])
def test_a_verdicts_reply_is_one_short_line(text, verb):
    """Whatever a policy says, it is one printable line of at most 512 bytes."""
    verdict = Verdict(verb, code="ABCDE", text=text, retry_after_s=86_400)
    line = bytes(of_verdict(verdict, "0" * 16, "https://" + "h" * 150))

    assert len(line) <= REPLY_BYTES_MAX
    assert line.count(b"\n") == 1
    assert line[:-2].isascii()
    assert line[:-2].decode().isprintable()
    assert text[:TEXT_CHARS_MAX].strip() in line.decode() or not text.isprintable() or "é" in text


def test_a_full_disk_says_so():
    """No space and no quota are 452; what else a disk says is trouble of ours."""
    assert [of_disk(OSError(n, "")).code for n in (28, 122, 5)] == [452, 452, 451]
