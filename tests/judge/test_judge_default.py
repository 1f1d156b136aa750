"""The shipped policy on real mail: what must pass, passes."""

import tarfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from tests.judge.serving import ask, asking, judging

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"


def files(archive: str, under: str, suffix: str, count: int) -> list[tuple[str, bytes]]:
    path = CORPORA / f"{archive}.tar.xz"
    if not path.exists():
        pytest.skip(f"{archive} is not beside the repository")
    found = []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and under in member.name and member.name.endswith(suffix):
                data = tar.extractfile(member)
                assert data is not None
                found.append((member.name, data.read()))
                if len(found) == count:
                    break
    assert found
    return found


async def refused(tmp_path, messages: list[tuple[str, bytes]]) -> list[str]:
    found = []
    async with judging(tmp_path), asking(tmp_path) as judges:
        for index, (name, body) in enumerate(messages):
            answer = await judges.ask(ask(f"m{index}", body=body), 10.0)
            if answer.verdict is None or answer.verdict.verb != "accept":
                found.append(f"{name}: {answer.verdict or answer.reason}")
    return found


async def test_transactional_mail_is_accepted(tmp_path):
    """Welcome, reset, invoice, receipt: what a filter most often mistakes for phishing."""
    pages = files("transactional", "/content.", "", 100)
    messages = []
    for name, text in pages:
        message = EmailMessage()
        message["From"], message["To"] = "shop@example.com", "kim@example.org"
        message["Subject"], message["Message-ID"] = "Your order", "<1@example.com>"
        message.set_content("See the other part.")
        kind = "html" if name.endswith(".html") else "plain"
        message.add_alternative(text.decode(), subtype=kind)
        messages.append((name, message.as_bytes().replace(b"\n", b"\r\n")))

    assert len(messages) == 66
    assert await refused(tmp_path, messages) == []


async def test_ham_is_accepted(tmp_path):
    """Three hundred letters of 2002, as they were."""
    assert await refused(tmp_path, files("spamassassin", "easy-ham-1/", ".eml", 300)) == []


@pytest.mark.real
@pytest.mark.parametrize(("folder", "count"), [("easy-ham-1/", 2500), ("easy-ham-2/", 1400)])
async def test_all_of_the_ham(tmp_path, folder, count):
    """At most one letter in two hundred is not accepted (docs/policy.md has the numbers)."""
    letters = files("spamassassin", folder, ".eml", 10_000)

    wrong = await refused(tmp_path, letters)

    assert len(letters) == count
    assert len(wrong) <= count / 200, wrong
