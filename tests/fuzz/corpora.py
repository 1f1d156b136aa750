"""What a guided run starts from: seeds as files, other servers' seeds, words worth trying."""

import ast
import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.mutate import LENGTH_MAX, SCRAPS
from tests.harness import CORPORA

WORDS = (
    b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA\r\n", b"RSET\r\n",
    b"NOOP\r\n", b"QUIT\r\n", b"VRFY x\r\n", b"AUTH PLAIN", b"AUTH LOGIN", b"STARTTLS\r\n",
    b"BDAT 3 LAST\r\n", b" SIZE=9", b" BODY=8BITMIME", b" AUTH=<>", b"AHNob3AAc2VjcmV0\r\n",
    b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\xfe\n", b"\r\xfe", b".\xfe", b"\xfd",
    b"Received: from ", b"X-AuthUser: ", b"250-PIPELINING\r\n", b"220 go\r\n",
)  # fmt: skip


def learn(folder: Path, seeds: list[bytes]) -> None:
    """Put seeds where libFuzzer looks for them, beside what it found itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed[:LENGTH_MAX])


def dictionary() -> str:
    """Return the words in the form of libFuzzer."""
    words = [word for word in dict.fromkeys((*WORDS, *SCRAPS)) if len(word) <= 64]
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)


def conversations() -> Iterator[bytes]:
    """Yield the client's side of other servers' scripts and seeds; nothing when they are not here.

    A cut stands where a server would be waited for.
    """
    archive = CORPORA / "protocol.tar.xz"
    if not archive.exists():
        return
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None and (said := _said(member.name, file.read())):
                yield said


def _said(name: str, data: bytes) -> bytes:
    if data.startswith(b"go test fuzz v1"):
        return _of_go(data.decode("latin-1"))
    if name.endswith(".raw"):
        return data.replace(b"\r\n", b"\r\n\xfe")
    marks = {".cmy": b"c -> ", ".test": b"C: "}
    mark = marks.get(Path(name).suffix)
    if mark is None:
        return b""
    lines = [line.removeprefix(mark) for line in data.splitlines() if line.startswith(mark)]
    return b"".join(line + b"\r\n\xfe" for line in lines)


def _of_go(text: str) -> bytes:
    """Return the values of a Go fuzz corpus entry, one behind the other."""
    said = []
    for line in text.splitlines():
        kind, _, value = line.removesuffix(")").partition("(")
        if kind in ("[]byte", "string") and value:
            try:
                said.append(ast.literal_eval(value).encode("latin-1", "replace"))
            except (ValueError, SyntaxError):
                continue
    return b"\xfe".join(said)
