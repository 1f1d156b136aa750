"""How a process is called in `ps`: `postweir: judge 1`."""

import setproctitle


def set_title(name: str) -> None:
    """Show `postweir: NAME` as this process's command line."""
    setproctitle.setproctitle(f"postweir: {name}")
