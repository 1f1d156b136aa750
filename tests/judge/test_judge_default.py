"""The shipped policy on real mail: what must pass, passes."""

import tarfile
from collections import Counter
from email.message import EmailMessage
from pathlib import Path

import pytest
from tests.judge.serving import ask, asking, judging

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "policy.md"
EVERY = 10  # letter of the ham is looked at before each commit


def files(archive: str, under: str, suffix: str, every: int = 1) -> list[tuple[str, bytes]]:
    path = CORPORA / f"{archive}.tar.xz"
    if not path.exists():
        pytest.skip(f"{archive} is not beside the repository")
    found, seen = [], 0
    with tarfile.open(path) as tar:
        for member in tar:
            if not (member.isfile() and under in member.name and member.name.endswith(suffix)):
                continue
            if seen % every == 0:
                data = tar.extractfile(member)
                assert data is not None
                found.append((member.name, data.read()))
            seen += 1
    assert found
    return found


async def judged(tmp_path: Path, messages: list[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Return (name, "verb rule") of what a real judge does not accept; each of its own sender."""
    found = []
    async with judging(tmp_path), asking(tmp_path) as judges:
        for index, (name, body) in enumerate(messages):
            answer = await judges.ask(ask(f"m{index}", identity=f"u{index}", body=body), 10.0)
            verdict = answer.verdict
            if verdict is None or verdict.verb != "accept":
                said = f"{verdict.verb} {verdict.rule}" if verdict else answer.reason
                found.append((name, said))
    return found


def wrapped() -> list[tuple[str, bytes]]:
    """Return the transactional templates as messages."""
    messages = []
    for name, text in files("transactional", "/content.", ""):
        message = EmailMessage()
        message["From"], message["To"] = "shop@example.com", "kim@example.org"
        message["Subject"], message["Message-ID"] = "Your order", "<1@example.com>"
        message.set_content("See the other part.")
        kind = "html" if name.endswith(".html") else "plain"
        message.add_alternative(text.decode(), subtype=kind)
        messages.append((name, message.as_bytes().replace(b"\n", b"\r\n")))
    return messages


async def test_transactional_mail_is_accepted(tmp_path):
    """Welcome, reset, invoice, receipt: what a filter most often mistakes for phishing."""
    messages = wrapped()

    assert len(messages) == 66
    assert await judged(tmp_path, messages) == []


@pytest.mark.parametrize(("folder", "count"), [("easy-ham-1/", 2500), ("easy-ham-2/", 1400)])
async def test_ham_is_accepted(tmp_path, folder, count):
    """At most one letter in two hundred is not accepted; here of a part, below of all."""
    letters = files("spamassassin", folder, ".eml", EVERY)

    wrong = await judged(tmp_path, letters)

    assert len(letters) == count // EVERY
    assert len(wrong) <= len(letters) / 200, wrong


@pytest.mark.real
@pytest.mark.parametrize("folder", ["easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"])
async def test_the_page_says_what_is_measured(tmp_path, folder):
    """Each row of the table in docs/policy.md: how many letters, and how many are not accepted."""
    letters = files("spamassassin", f"{folder}/", ".eml")
    kinds = Counter(said.partition(" ")[0] for _, said in await judged(tmp_path, letters))
    said = {"refuse": "refused", "hold": "held"}
    counts = ", ".join(f"{count} {said[kind]}" for kind, count in kinds.items()) or "0"

    (row,) = (line for line in PAGE.read_text().splitlines() if f"SpamAssassin {folder}" in line)
    _, _, number, says, _ = (cell.strip() for cell in row.split("|"))
    assert number == f"{len(letters):,}"
    assert says.partition(" (")[0] == counts
    assert "easy" not in folder or sum(kinds.values()) <= len(letters) / 200
