"""Frames over a unix socket: what one loop turn says goes out in one write."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from postweir.runtime.frames import Frame, Splitter, Torn, encode

BACKLOG_BYTES_MAX = 64 * 1024 * 1024  # a neighbour that reads nothing is cut off, not fed
REDIAL_S_FIRST, REDIAL_S_MAX = 0.02, 0.1  # a restart takes a third of a second; see spool.known
CLOSE_S = 1.0  # a process that ends waits no longer for a neighbour that is stopped

OnFrames = Callable[["Link", list[Any]], None]
OnLink = Callable[["Link"], None]


class Link(asyncio.Protocol):
    """One connection. `send` never blocks; frames arrive in batches, in order."""

    def __init__(self, family: Any, on_link: OnLink, on_frames: OnFrames, on_lost: OnLink) -> None:
        self._splitter: Splitter[Frame] = Splitter(family)
        self._on_link, self._on_frames, self._on_lost = on_link, on_frames, on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[Frame] = []
        self.heard_at = self._loop.time()  # when bytes last came
        self.state: Any = None  # whose link it is: free for the owner

    @property
    def connected(self) -> bool:
        return self._transport is not None

    @property
    def skipped(self) -> int:
        """Frames with a tag we do not know: the neighbour is newer."""
        return self._splitter.skipped

    def send(self, frame: Frame) -> None:
        """Say something; lost without a word when the link is down (`on_lost` told)."""
        if self._transport is None:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame)

    def close(self) -> None:
        """Hang up once what was said is out."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        frames, self._unsent = self._unsent, []
        if self._transport is None or not frames:
            return
        self._transport.write(encode(frames))
        if self._transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._on_link(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        try:
            frames = self._splitter.feed(data)
        except Torn:
            self.abort()
            return
        if frames:
            self._on_frames(self, frames)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._unsent.clear()
        self._on_lost(self)


async def serve(
    path: Path, family: Any, on_link: OnLink, on_frames: OnFrames, on_lost: OnLink
) -> asyncio.AbstractServer:
    """Answer on a unix socket; a socket file left by a dead process is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Link(family, on_link, on_frames, on_lost), str(path)
    )
    os.chmod(path, 0o600)
    return server


async def connect(
    path: Path, family: Any, on_frames: OnFrames, on_lost: OnLink | None = None
) -> Link:
    """Call once. Raises OSError when nobody answers."""
    _, link = await asyncio.get_running_loop().create_unix_connection(
        lambda: Link(family, _ignore, on_frames, on_lost or _ignore), str(path)
    )
    return link


class Line:
    """A link that is called again whenever it is lost, until it is closed."""

    def __init__(
        self, path: Path, family: Any, *, on_link: OnLink, on_frames: OnFrames, on_lost: OnLink
    ) -> None:
        self._path, self._family = path, family
        self._on_link, self._on_frames, self._on_lost = on_link, on_frames, on_lost
        self._lost = asyncio.Event()
        self.link: Link | None = None
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def send(self, frame: Frame) -> bool:
        """Say something; False when the line is down now."""
        if self.link is None:
            return False
        self.link.send(frame)
        return True

    def hang_up(self) -> None:
        """Drop the connection there is; a new call follows."""
        if self.link is not None:
            self.link.abort()

    async def close(self) -> None:
        """Hang up for good, once what was said is out or the neighbour has had time to read it."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        link = self.link
        if link is not None:
            link.close()
            try:
                await asyncio.wait_for(self._lost.wait(), CLOSE_S)
            except TimeoutError:
                link.abort()

    async def _keep(self) -> None:
        wait_s = REDIAL_S_FIRST
        while True:
            self._lost.clear()
            try:
                await asyncio.get_running_loop().create_unix_connection(
                    lambda: Link(self._family, self._up, self._on_frames, self._down),
                    str(self._path),
                )
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, REDIAL_S_MAX)
                continue
            wait_s = REDIAL_S_FIRST
            await self._lost.wait()

    def _up(self, link: Link) -> None:
        self.link = link
        self._on_link(link)

    def _down(self, link: Link) -> None:
        self.link = None
        self._lost.set()
        self._on_lost(link)


def _ignore(_: Link) -> None:
    return None
