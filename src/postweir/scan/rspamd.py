"""Asks an rspamd over HTTP (`/checkv2`), and takes of its answer what it may say.

What rspamd does with the answer elsewhere, it does not do here: its action and score are facts,
and the policy decides. https://docs.rspamd.com/developers/protocol
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp

from postweir.runtime import frames
from postweir.scan.finding import Finding, Measure, Seen, tame
from postweir.scan.remote import About, Unsound

BODY_BYTES_MAX = 20 * 1024 * 1024  # rspamd itself takes 50 MB; it reads a megabyte in some 50 ms
ANSWER_BYTES_MAX = 256 * 1024  # a long answer has 200 symbols, 20 KiB
SYMBOLS_MAX = 64  # a fact's list has no more
HEADER_CHARS_MAX = 512
CONNECTIONS_MAX = 64
IDLE_S = 15.0
SCORE_MAX = 10_000.0
_VIRUS = "_VIRUS"  # CLAM_VIRUS, SOPHOS_VIRUS, ...: how its antivirus module names what it found
# A listed address, and a link whose text shows another's: how sure each makes us.
_PHISHING = {"PHISHED_": 1.0, "PHISHING": 0.5}


class Rspamd:
    """One rspamd; made on the event loop that asks."""

    name = "rspamd"
    bytes_max = BODY_BYTES_MAX
    facts: Mapping[str, type] = {
        "rspamd.known": bool, "rspamd.score": float, "rspamd.action": str, "rspamd.symbols": list,
    }  # fmt: skip

    def __init__(self, url: str, *, user: bool) -> None:
        """`user`: say who sent it; rspamd then leaves out checks that are for strangers."""
        self._url, self._user = url.rstrip("/") + "/checkv2", user
        self._session: aiohttp.ClientSession | None = None
        self.version = ""

    async def look(self, body: bytes, about: About, wait_s: float) -> Seen:
        """Return what it says. Raises Unsound, OSError, TimeoutError, aiohttp.ClientError."""
        session = self._session = self._session or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S)
        )
        async with session.post(
            self._url,
            data=body,
            headers=list(_headers(about, user=self._user)),
            timeout=aiohttp.ClientTimeout(total=wait_s),
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
        ) as answer:
            if answer.status != 200:
                raise Unsound(f"HTTP {answer.status}")
            said = await answer.content.readexactly(_length(answer.content_length))
            self.version = tame(answer.headers.get("Server", "")).removeprefix("rspamd/")
        return seen(said, self.version)

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()


def seen(said: bytes, version: str) -> Seen:
    """Return what an answer says. Raises Unsound."""
    try:
        answer = frames.from_json(said, dict[str, Any])
        score, needed = float(answer["score"]), float(answer["required_score"])
        action, symbols = answer["action"], _symbols(answer.get("symbols", {}))
    except (frames.Torn, KeyError, TypeError, ValueError, OverflowError) as fault:
        raise Unsound(f"no answer of rspamd: {fault}") from None
    if not (math.isfinite(score) and math.isfinite(needed) and type(action) is str):
        raise Unsound("no answer of rspamd: its score or action is none")
    names = [name for name, _ in symbols]
    measures: dict[str, Measure] = {
        "rspamd.known": True,
        "rspamd.score": max(-SCORE_MAX, min(score, SCORE_MAX)),
        "rspamd.action": tame(action),
        "rspamd.symbols": names[:SYMBOLS_MAX],
    }
    return Seen(list(_findings(score, needed, tame(action), symbols, version)), measures)


def _symbols(said: Any) -> list[tuple[str, float]]:
    """Return name and weight of each symbol, the heaviest first. Raises as `seen` expects."""
    if not isinstance(said, dict):
        raise TypeError("symbols are no table")
    weighed = [(tame(name), float(one["score"])) for name, one in said.items()]
    return sorted(weighed, key=lambda symbol: (-symbol[1], symbol[0]))


def _findings(
    score: float, needed: float, action: str, symbols: Sequence[tuple[str, float]], version: str
) -> Iterator[Finding]:
    """Yield what amounts to a finding: as sure as the score is near to what rspamd rejects at."""
    if score > 0 and needed > 0:
        what = f"{action}: " + ", ".join(name for name, weight in symbols[:5] if weight > 0)
        yield Finding("rspamd", "spam", tame(what), min(score / needed, 1.0), version)
    for name, weight in symbols:
        if name.endswith(_VIRUS):
            yield Finding("rspamd", "virus", name, 1.0, version)
        for begin, certainty in _PHISHING.items():
            if name.startswith(begin) and weight > 0:
                yield Finding("rspamd", "phishing", name, certainty, version)


def _headers(about: About, *, user: bool) -> Iterator[tuple[str, str]]:
    yield "IP", _clean(about.client)
    yield "Helo", _clean(about.helo)
    yield "From", _clean(about.mail_from)
    yield "Queue-Id", _clean(about.message)
    if user:
        yield "User", _clean(about.sender or about.account)
    for recipient in about.recipients:
        yield "Rcpt", _clean(recipient)


def _clean(text: str) -> str:
    """Return text that is one header value, whatever a client wrote."""
    return "".join(c for c in text[:HEADER_CHARS_MAX] if c.isprintable())


def _length(declared: int | None) -> int:
    """Return how long an answer says it is: rspamd always says, and never this much."""
    if declared is None or not 0 < declared <= ANSWER_BYTES_MAX:
        raise Unsound("an answer of no length, or too long")
    return declared
