"""The house itself: floors, purity, doors, captions and the length of functions."""

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "postweir"

FLOORS = [  # top to bottom; rooms on one line are strangers
    {"__main__.py"},
    {"processes"},
    {"edge", "delivery", "web", "cli", "storage"},
    {"desk"},
    {"watch"},
    {"outcomes"},
    {"spool"},
    {"judge"},
    {"policy"},
    {"scan"},
    {"identity"},
    {"mail", "runtime"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
IMPURE = {
    "asyncio", "socket", "ssl", "time", "random", "secrets", "os", "sys", "pathlib", "logging",
    "sqlite3", "threading", "subprocess", "tempfile", "shutil", "signal", "select", "selectors",
    "multiprocessing", "mmap", "fcntl",
}  # fmt: skip
PURE = {"mail", "policy"}
FROM_RUNTIME = {"postweir.runtime.frames"}  # all that a pure room may use of runtime
IMPURE_BY_NATURE = {"policy/worker.py"}  # the isolated evaluator

DOORS = {  # each outside package enters through one module
    "publicsuffixlist": "mail/domains.py",
    "aiohttp": "scan/rspamd.py",
    "apsw": "storage/sqlite.py",
    "cel_expr_python": "policy/worker.py",
    "dns": "runtime/dns.py",
    "fast_mail_parser": "mail/message.py",
    "msgspec": "runtime/frames.py",
    "prometheus_client": "runtime/metrics.py",
    "re2": "scan/patterns.py",
    "rich": "cli",
    "setproctitle": "runtime/title.py",
    "structlog": "runtime/log.py",
    "typer": "cli",
    "click": "cli",
    "uvloop": "processes/child.py",
}
FUNCTION_LINES_MAX = 60


def imports(tree: ast.Module) -> Iterator[str]:
    """Every import, type-only and local ones too: they couple just the same."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "spell imports out in full"
            yield from (f"{node.module}.{a.name}" for a in node.names)


@functools.cache
def modules() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(SRC)): ast.parse(path.read_text())
        for path in sorted(SRC.rglob("*.py"))
    }


def room_of(module: str) -> str:
    return module.split("/", 1)[0]


def floor_faults(found: dict[str, ast.Module]) -> list[str]:
    faults = []
    for module, tree in found.items():
        room = room_of(module)
        if room == "__init__.py":
            continue
        if room not in FLOOR_OF:
            faults.append(f"{module}: no floor is known for {room}")
            continue
        for name in imports(tree):
            top, *rest = name.split(".")
            if top != "postweir" or not rest or rest[0] == room or rest[0] not in FLOOR_OF:
                continue
            allowed = FLOOR_OF[rest[0]] > FLOOR_OF[room]
            pure_use = room in PURE and ".".join(name.split(".")[:3]) in FROM_RUNTIME
            if not allowed and not pure_use:
                faults.append(f"{module}: {room} may not import {name}")
    return faults


def purity_faults(found: dict[str, ast.Module]) -> list[str]:
    """Impure imports of pure modules, also through what they import."""
    faults = []
    for module in found:
        if room_of(module) not in PURE or module in IMPURE_BY_NATURE:
            continue
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            here = waiting.pop()
            if here in seen or here not in found:
                continue
            seen.add(here)
            for name in imports(found[here]):
                top = name.split(".")[0]
                if top in IMPURE:
                    faults.append(f"{module}: imports {top} (in {here})")
                elif top == "postweir":
                    words = name.split(".")[1:]
                    waiting += ["/".join(words) + ".py", "/".join(words[:-1]) + ".py"]
    return faults


def door_faults(found: dict[str, ast.Module]) -> list[str]:
    faults = []
    for module, tree in found.items():
        for name in imports(tree):
            door = DOORS.get(name.split(".")[0])
            if door and module != door and room_of(module) != door:
                faults.append(f"{module}: {name} enters through {door}")
    return faults


def test_floors():
    """Imports follow the mail: only rooms on floors below, and pure rooms only frames."""
    assert floor_faults(modules()) == []


def test_purity():
    """What is pure cannot reach a socket, a clock, luck or a file."""
    assert purity_faults(modules()) == []


def test_doors():
    """Each outside package is imported in one place."""
    assert door_faults(modules()) == []


@pytest.mark.parametrize(
    ("module", "text", "check"),
    [
        ("mail/x.py", "import postweir.spool.states", floor_faults),
        ("edge/x.py", "from postweir.delivery import worker", floor_faults),
        ("attic/x.py", "", floor_faults),
        ("mail/x.py", "def f():\n    import time", purity_faults),
        ("policy/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio",
         purity_faults),
        ("edge/x.py", "import msgspec", door_faults),
    ],
)  # fmt: skip
def test_the_checks_catch_what_they_are_for(module, text, check):
    """Each kind of fault, planted, is found."""
    assert check({module: ast.parse(text)})


def test_every_dependency_has_a_door():
    """A dependency nobody imports would go unnoticed; one without a door would spread."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module_of = {"cel-expr-python": "cel_expr_python", "dnspython": "dns",
                 "fast-mail-parser": "fast_mail_parser", "google-re2": "re2",
                 "prometheus-client": "prometheus_client"}  # fmt: skip
    names = {re.split(r"[<>=;]", line)[0] for line in project["dependencies"]}
    imported = {n.split(".")[0] for tree in modules().values() for n in imports(tree)}

    missing = {n for n in names if module_of.get(n, n) not in DOORS.keys() | {"cryptography"}}
    assert not missing
    unused = {n for n in names if module_of.get(n, n) not in imported | {"cryptography"}}
    assert not unused


def test_captions():
    """Every module says in one sentence what it is: the map."""
    bad = []
    for module, tree in modules().items():
        caption = (ast.get_docstring(tree) or "").split("\n")[0]
        if not caption.endswith((".", "?")) or len(caption) > 100:
            bad.append(f"{module}: {caption!r}")
    assert bad == []


def test_functions_are_short():
    """No function is longer than a screen."""
    long = [
        f"{module}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_regex_but_re2():
    """Python's backtracking engine sees no input of ours."""
    users = [m for m, tree in modules().items() if "re" in {n.split(".")[0] for n in imports(tree)}]
    assert users == []


def test_the_locks_name_no_registry():
    """Requirements carry hashes, and no address they were fetched from."""
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text
        assert text.count("--hash=sha256:") > 20
