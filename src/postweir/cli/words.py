"""The options that every command has, and how a command reaches the desk."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from postweir.desk.ports import Office, Opener

V = TypeVar("V")

Config = Annotated[
    Path, typer.Option("-c", "--config", metavar="FILE", help="The settings.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of stable JSON.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the records.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
ByAccount = Annotated[str, typer.Option("--account", metavar="NAME", help="Of this account.")]
BySender = Annotated[
    str, typer.Option("--sender", metavar="KEY", help="Of this sender: 'account|type|identity'.")
]
ByDomain = Annotated[
    str, typer.Option("--domain", metavar="DOMAIN", help="To recipients in this domain.")
]
CONFIG = Path("postweir.toml")


@dataclass(frozen=True, slots=True)
class Doors:
    """What `processes` hands to the commands."""

    open: Opener
    up: Callable[[Path], int]
    process: Callable[[Sequence[str]], int]


def doors(context: typer.Context) -> Doors:
    """Return what the commands were given."""
    found = context.find_root().obj
    assert isinstance(found, Doors)
    return found


def ask(context: typer.Context, config: Path, verb: Callable[[Office], V]) -> V:
    """Open the office, do one verb, close it."""

    async def go() -> V:
        async with doors(context).open(config) as office:
            return verb(office)

    return asyncio.run(go())


def wait(context: typer.Context, config: Path, verb: Callable[[Office], Awaitable[V]]) -> V:
    """Open the office, do one verb that asks the shards, close it."""

    async def go() -> V:
        async with doors(context).open(config) as office:
            return await verb(office)

    return asyncio.run(go())


def group(sentence: str) -> typer.Typer:
    """Return a noun, whose commands are its verbs."""
    return typer.Typer(
        help=sentence, no_args_is_help=True, rich_markup_mode=None, add_completion=False
    )
