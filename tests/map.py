"""Print the map of the house: each file with the first line of its docstring."""

import ast
from pathlib import Path


def caption(path: Path) -> str:
    """Return a module's own sentence."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "?").splitlines()[0]


def draw(folder: Path, depth: int = 0) -> None:
    """Print a folder, its files first."""
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        name = "  " * depth + path.name
        if path.is_dir() and (path / "__init__.py").exists():
            print(f"{name + '/':28} {caption(path / '__init__.py')}")
            draw(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            print(f"{name:28} {caption(path)}")


if __name__ == "__main__":
    draw(Path(__file__).parent.parent / "src" / "postweir")
