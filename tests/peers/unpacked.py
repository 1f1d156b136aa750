"""Programs that `.ci/peers` unpacks: found there first, else where the machine has them."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PEERS = Path(os.environ.get("POSTWEIR_PEERS", ROOT / ".peers"))
LIBRARIES = f"{PEERS}/usr/lib/x86_64-linux-gnu:{PEERS}/lib/x86_64-linux-gnu:{PEERS}/usr/lib/postfix"


def program(name: str) -> str | None:
    """Return the path of a program, None when it is neither unpacked nor installed."""
    for folder in ("usr/bin", "bin", "usr/sbin", "sbin"):
        if os.access(found := PEERS / folder / name, os.X_OK):
            return str(found)
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def environment() -> dict[str, str]:
    """Return the environment in which an unpacked program finds its libraries."""
    return {**os.environ, "LD_LIBRARY_PATH": LIBRARIES}
