"""Asks the shards, and the file of one that is silent."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from postweir.desk.ports import Office, Unreadable
from postweir.runtime import frames
from postweir.spool.ports import Page

V = TypeVar("V")

PAGE_ROWS = 1000  # a page stays far below a frame's bound


async def page(office: Office, shard: int, question: str, argument: str, after: int) -> Page:
    """Return one page of what a shard knows. Raises Unreadable."""
    try:
        return await office.shards.read(shard, question, argument, after, PAGE_ROWS)
    except ConnectionError:
        pass  # silent or down: its file can still be read
    try:
        return await asyncio.to_thread(
            office.shards.read_file, shard, question, argument, after, PAGE_ROWS
        )
    except OSError as fault:
        why = f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault)
        raise Unreadable(
            f"shard {shard} does not answer, nor can its file be read: {why}"
        ) from None


async def packed(office: Office, shard: int, question: str, argument: str) -> AsyncIterator[bytes]:
    """Yield all rows of a shard's answer, page by page. Raises Unreadable."""
    after: int | None = 0
    while after is not None:
        found = await page(office, shard, question, argument, after)
        for row in found.rows:
            yield row
        assert found.next is None or found.next != after, "a page that leads to itself"
        after = found.next


async def rows(
    office: Office, shard: int, question: str, argument: str, kind: type[V]
) -> AsyncIterator[V]:
    """Yield all rows of an answer that are of one kind. Raises Unreadable."""
    async for row in packed(office, shard, question, argument):
        yield opened(shard, row, kind)


def opened(shard: int, row: bytes, kind: type[V]) -> V:
    """Return a row as what it is. Raises Unreadable."""
    try:
        return frames.unpack(row, kind)
    except frames.Torn as fault:
        raise Unreadable(f"shard {shard} speaks another version: {fault}") from None
