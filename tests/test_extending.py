"""The page about extending is true: what it shows is applied to a copy, and its tests run there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.policy.test_policy_mistakes import check

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
PARTS = (
    "A fact", "A scanner of our own", "A scanner that is another program", "A rule kind", "A verb",
)  # fmt: skip
# Tests of ours that a new fact, scanner or table must leave standing.
STANDING = (
    "tests/test_house.py::test_floors", "tests/test_house.py::test_purity",
    "tests/test_house.py::test_captions", "tests/judge/test_judge_evidence.py",
    "tests/policy/test_policy_document.py", "tests/policy/test_policy_facts.py",
    "tests/policy/test_policy_docs.py::test_the_page_of_facts_is_the_schema",
    "tests/runtime/test_runtime_settings.py",
    "tests/cli/test_cli_commands_page.py::test_every_key_of_the_json_is_told",
)  # fmt: skip


def blocks(kind: str = "") -> Iterator[tuple[str, str]]:
    """Yield (kind, what it says) of each fenced piece of the page, in order."""
    for piece in PAGE.split("```")[1::2]:
        found, _, rest = piece.partition("\n")
        if found == kind or not kind:
            yield found, rest


def named(text: str) -> str:
    """Return the file that a piece says it is: its first line, a comment."""
    return text.partition("\n")[0].removeprefix("# ")


def patched(text: str, hunk: str) -> str:
    """Return a file's text with one piece of a diff done to it; its place must be the only one."""
    lines, file = hunk.splitlines(), text.splitlines()
    before = [line[1:] for line in lines if line[:1] in (" ", "-")]
    after = [line[1:] for line in lines if line[:1] in (" ", "+")]
    places = [n for n in range(len(file)) if file[n : n + len(before)] == before]
    assert len(places) == 1, f"not there, or more than once: {before}"
    file[places[0] : places[0] + len(before)] = after
    return "\n".join(file) + "\n"


def files_of(diff: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (file, hunks) of a diff."""
    for piece in f"\n{diff}".split("\n--- ")[1:]:
        name, *hunks = piece.split("\n@@\n")
        yield name.strip(), hunks


def apply(root: Path) -> list[str]:
    """Do all that the page says, in its order; return the tests it adds."""
    tests = []
    for kind, text in blocks():
        if kind == "diff":
            for name, hunks in files_of(text):
                for hunk in hunks:
                    path = root / name
                    path.write_text(patched(path.read_text("utf-8"), hunk), "utf-8")
        else:
            path = root / named(text)
            assert not path.exists()
            path.write_text(text.partition("\n")[2] if kind == "python" else text, "utf-8")
            tests += [named(text)] if named(text).startswith("tests/") else []
    return tests


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a copy of the source with the page applied, and the tests that the page adds."""
    root = tmp_path_factory.mktemp("copy")
    bare = shutil.ignore_patterns("__pycache__", "*.pyc", ".hypothesis", "real")
    for name in ("src", "tests", "docs", "etc", "requirements"):
        shutil.copytree(ROOT / name, root / name, ignore=bare)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root, apply(root)


def running(root: Path, *words: str) -> str:
    """Run Python on a copy's source; return what it says, and fail if it does."""
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "COLUMNS": "100"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_applies_to_the_source_as_it_is(copy):
    """Each hunk has its one place, each new file is new, and what comes of it is Python."""
    root, tests = copy

    assert len(tests) == 4
    for path in (root / "src").rglob("*.py"):
        compile(path.read_text("utf-8"), str(path), "exec")


def test_every_part_is_there_and_shown():
    """Five parts, each with numbered steps; all but the verb with code, a test and a policy."""
    for title in PARTS:
        part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        steps = [line for line in part.splitlines() if line.lstrip("*")[:1].isdigit()]
        assert len(steps) >= 6, title
        if title not in ("A verb", "A scanner that is another program"):
            assert all(f"```{kind}\n" in part for kind in ("diff", "python", "toml")), title


def test_every_file_the_page_names_exists(copy):
    """In the source, or in the copy when the page makes it."""
    words = {
        word.rstrip("/")
        for word in PAGE.replace("\n", " ").split("`")[1::2]
        if word.startswith(("src/", "tests/", "docs/", "etc/"))
    }

    assert len(words) > 30
    missing = [word for word in words if not (ROOT / word).exists()]
    assert missing == []


def test_a_hunk_without_its_place_is_caught():
    """What the source does not say, or says twice, is no place."""
    assert patched("a\nb\nc\n", " b\n+x") == "a\nb\nx\nc\n"
    for text in ("a\nc\n", "b\nb\n", "bb\n", ""):
        with pytest.raises(AssertionError, match="not there, or more than once"):
            patched(text, " b\n+x")


@pytest.mark.real
def test_what_the_page_builds_passes_its_tests_and_ours(copy):
    """The copy is what is tested; the house stands, and the pages it writes are those."""
    root, tests = copy
    running(root, "-m", "tests.facts_page")

    where = running(root, "-c", "import postweir; print(postweir.__file__)")
    assert where.startswith(str(root))
    news = [str(root / named(text)) for _, text in blocks("python")]
    running(root, "-m", "ruff", "check", "-q", *news)
    running(root, "-m", "ruff", "format", "--check", "-q", *news)
    running(
        root, "-m", "pytest", "-q", "-m", "not real", "-p", "no:cacheprovider", *tests, *STANDING
    )
    assert "`shouting.marks`" in (root / "docs" / "facts.md").read_text("utf-8")


@pytest.mark.real
def test_the_policies_of_the_page_pass_the_check(copy):
    """Each is compiled and tried in a real worker of the copy; our own source refuses it."""
    root, _ = copy
    policies = [named(text) for _, text in blocks("toml")]

    assert policies == ["bulk.toml", "shouting.toml", "share.toml"]
    for name in policies:
        assert "good, pol_" in running(root, "-m", "postweir", "policy", "check", name)
        assert check((root / name).read_text("utf-8"))
