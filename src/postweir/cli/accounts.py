"""`postweir account …` and `postweir credential …`."""

from typing import Annotated

import typer

from postweir.cli import printing
from postweir.cli.words import CONFIG, Config, DryRun, Json, Reason, ask, group
from postweir.desk import accounts, credentials

account = group("Who pays for the relay: accounts and their settings.")
credential = group("User names and secrets that let an account's mail in.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
Of = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]…", help="Settings: " + ", ".join(accounts.SETTABLE) + "."),
]


def _show(found: accounts.Shown, as_json: bool) -> None:
    if as_json:
        return printing.show_json(found)
    state = "suspended" if found.suspended else "active"
    return printing.pairs(
        [("account", found.account), ("state", state), ("credentials", found.credentials),
         *((key, _setting(value)) for key, value in found.settings.items())]
    )  # fmt: skip


def _setting(value: object) -> object:
    """Return a setting in the words that `account set` takes."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value == "" else value


@account.command("add")
def add(
    context: typer.Context, name: Name, words: Words = None,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Add an account."""
    found = ask(context, config, lambda office: accounts.add(office, name, words or []))
    if as_json:
        return _show(found, as_json)
    printing.line(f"account {name} added")
    return printing.line(f"let its mail in with: postweir credential add {name}")


@account.command("ls")
def ls(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """List accounts."""
    found = ask(context, config, accounts.ls)
    if as_json:
        return printing.show_json(found)
    rows = [
        (a.account, "suspended" if a.suspended else "active", a.credentials,
         a.settings["networks"])
        for a in found
    ]  # fmt: skip
    printing.table(("account", "state", "credentials", "networks"), rows, fold="networks")
    return None if found else printing.aside("no accounts yet: postweir account add NAME")


@account.command("show")
def show(
    context: typer.Context, name: Name, config: Config = CONFIG, as_json: Json = False
) -> None:
    """Show an account and its settings."""
    _show(ask(context, config, lambda office: accounts.show(office, name)), as_json)


@account.command("set")
def change(
    context: typer.Context, name: Name, words: Words = None,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Change settings: KEY=VALUE, lists with commas."""
    _show(ask(context, config, lambda office: accounts.change(office, name, words or [])), as_json)


@account.command("suspend")
def suspend(
    context: typer.Context, name: Name, reason: Reason = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Refuse an account's new mail from now on."""
    found = ask(context, config, lambda office: accounts.suspend(office, name, True, reason))
    if as_json:
        return _show(found, as_json)
    return printing.line(f"account {name} suspended; what is queued still leaves")


@account.command("resume")
def resume(
    context: typer.Context, name: Name, reason: Reason = "",
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Take a suspended account's mail again."""
    found = ask(context, config, lambda office: accounts.suspend(office, name, False, reason))
    if as_json:
        return _show(found, as_json)
    return printing.line(f"account {name} resumed")


@credential.command("add")
def add_credential(
    context: typer.Context, name: Of, config: Config = CONFIG, as_json: Json = False
) -> None:
    """Make a user name and a secret, shown once."""
    made = ask(context, config, lambda office: credentials.add(office, name))
    if as_json:
        return printing.show_json(made)
    printing.pairs(
        [("account", made.account), ("username", made.username), ("secret", made.secret)]
    )
    return printing.aside("Keep the secret now: only a hash of it is stored.")


@credential.command("ls")
def ls_credentials(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[ACCOUNT]", help="Of this account only.")] = "",
    config: Config = CONFIG,
    as_json: Json = False,
) -> None:
    """List credentials."""
    found = ask(context, config, lambda office: credentials.ls(office, name))
    if as_json:
        return printing.show_json(found)
    rows = [
        (c.account, c.username, "revoked" if c.revoked_us else "active",
         printing.when(c.created_us), printing.when(c.revoked_us))
        for c in found
    ]  # fmt: skip
    return printing.table(("account", "username", "state", "created", "revoked"), rows)


@credential.command("revoke")
def revoke(
    context: typer.Context, name: Of, *,
    username: Annotated[
        str, typer.Argument(metavar="[USERNAME]", help="Only this one; without it, all.")
    ] = "",
    reason: Reason = "", dry_run: DryRun = False,
    config: Config = CONFIG, as_json: Json = False,
) -> None:  # fmt: skip
    """Put one credential, or all, out of force."""
    done = ask(
        context,
        config,
        lambda office: credentials.revoke(office, name, username, reason, dry_run=dry_run),
    )
    if as_json:
        names = [c.username for c in done]
        return printing.show_json({"account": name, "revoked": names, "dry_run": dry_run})
    for one in done:
        printing.line(f"would revoke {one.username}" if dry_run else f"{one.username} revoked")
    return None
