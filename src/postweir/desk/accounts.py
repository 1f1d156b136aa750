"""Accounts: who pays, and the settings that are theirs."""

import ipaddress
import typing
from collections.abc import Callable, Sequence
from typing import Any

from postweir.desk import names
from postweir.desk.ports import Missing, Misused, Office, Tables
from postweir.identity.sender import Account, Directory
from postweir.mail.address import parse_path
from postweir.runtime.frames import Struct

SETTABLE = {
    k: v
    for k, v in typing.get_type_hints(Account).items()
    if k not in ("name", "suspended", "created_us")
}
CHOICES = {"bare_newline": ("refuse", "normalise")}
SOURCES = (*Account("").identity_order, "forwarded")
# Never 0: a lifetime of nothing would bounce all mail, and there is `account suspend` for a stop.
AT_LEAST = {"lifetime_s": 60, "sender_messages_1h": 1, "bounces_1h_max": 0}
AT_MOST = {"lifetime_s": 30 * 86_400, "sender_messages_1h": 10**9, "bounces_1h_max": 10**9}
NETWORKS_MAX = 1000  # all accounts' networks are looked up at each connection
DOMAINS_MAX = 1000  # gone through for each message, some 50 us


class Shown(Struct, frozen=True):
    """An account as commands show it."""

    account: str
    suspended: bool
    credentials: int  # in force
    settings: dict[str, Any]


def shown(directory: Directory, account: Account) -> Shown:
    """Return an account as commands show it."""
    in_force = [
        c for c in directory.credentials.values() if c.account == account.name and not c.revoked_us
    ]
    settings = {key: getattr(account, key) for key in SETTABLE}
    settings = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    return Shown(account.name, account.suspended, len(in_force), settings)


def known(tables: Tables) -> Directory:
    """Return the picture now."""
    found = tables.directory(-1)
    assert found is not None
    return found


def find(directory: Directory, name: str) -> Account:
    """Return an account. Raises Missing."""
    if name not in directory.accounts:
        hint = names.meant(name, list(directory.accounts)[:100]) or "; `account add` makes one"
        raise Missing(f"there is no account {name!r}{hint}")
    return directory.accounts[name]


def add(office: Office, name: str, words: Sequence[str]) -> Shown:
    """Add an account. Raises Misused when there is one of that name."""
    names.account_name(name)
    settings = read_settings(words)
    _unclaimed(known(office.tables), name, settings.get("networks", ()))
    if not office.tables.add_account(name, settings, office.note("account add", name)):
        raise Misused(f"there is an account {name!r} already; `account set` changes it")
    return show(office, name)


def ls(office: Office) -> list[Shown]:
    """Return all accounts by name."""
    directory = known(office.tables)
    return [shown(directory, directory.accounts[name]) for name in sorted(directory.accounts)]


def show(office: Office, name: str) -> Shown:
    """Return one account. Raises Missing."""
    directory = known(office.tables)
    return shown(directory, find(directory, name))


def change(office: Office, name: str, words: Sequence[str]) -> Shown:
    """Change settings of an account, each word `key=value`. Raises Missing, Misused."""
    settings = read_settings(words)
    if not settings:
        raise Misused("nothing to set: write KEY=VALUE; keys: " + ", ".join(SETTABLE))
    directory = known(office.tables)
    find(directory, name)
    _unclaimed(directory, name, settings.get("networks", ()))
    about = office.note("account set", name, " ".join(words)[: names.REASON_CHARS_MAX])
    office.tables.set_account(name, settings, about)
    return show(office, name)


def suspend(office: Office, name: str, suspended: bool, reason: str) -> Shown:
    """Suspend an account, or lift that: its mail is refused at once. Raises Missing."""
    verb = "account suspend" if suspended else "account resume"
    find(known(office.tables), name)
    office.tables.suspend_account(name, suspended, office.note(verb, name, names.reason(reason)))
    return show(office, name)


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return what `key=value` words set, in the form that is kept. Raises Misused."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if key not in SETTABLE:
            raise Misused(f"an account has no setting {key!r}{names.meant(key, SETTABLE)}")
        if not equals:
            raise Misused(f"{key} needs a value: write {key}=VALUE")
        found[key] = _value(key, text)
    return found


def _value(key: str, text: str) -> Any:
    kind = SETTABLE[key]
    if kind is bool:
        if text not in ("true", "false"):
            raise Misused(f"{key} is true or false, not {text!r}")
        return text == "true"
    if kind is int:
        return _number(key, text)
    if key in CHOICES and text not in CHOICES[key]:
        raise Misused(f"{key} is one of {', '.join(CHOICES[key])}, not {text!r}")
    if key == "return_path":
        return _return_path(text)
    if key in LISTS:
        return LISTS[key]([part.strip() for part in text.split(",") if part.strip()])
    return text


def _number(key: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise Misused(f"{key} is a whole number, not {text!r}")
    if not AT_LEAST[key] <= int(text) <= AT_MOST[key]:
        raise Misused(f"{key} is {text}; it must lie from {AT_LEAST[key]} to {AT_MOST[key]}")
    return int(text)


def _networks(parts: list[str]) -> list[str]:
    return [_network(part) for part in parts]


def _domains(parts: list[str]) -> list[str]:
    if len(parts) > DOMAINS_MAX:
        raise Misused(f"at most {DOMAINS_MAX} domains an account; leave it empty for any")
    found = [names.domain(part) for part in parts]
    return list(dict.fromkeys(found))


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as fault:
        raise Misused(
            f"networks: {fault}; write CIDR, such as 192.0.2.0/24,2001:db8::/32"
        ) from None


def _order(parts: list[str]) -> list[str]:
    for part in parts:
        if part not in SOURCES:
            raise Misused(f"identity_order: {part!r} is no source{names.meant(part, SOURCES)}")
    if len(set(parts)) != len(parts):
        raise Misused("identity_order names a source twice")
    return parts


LISTS: dict[str, Callable[[list[str]], list[str]]] = {
    "networks": _networks, "domains": _domains, "identity_order": _order,
}  # fmt: skip


def _return_path(text: str) -> str:
    found = parse_path(f"<{text}>") if text else ""
    if found is None:
        raise Misused(f"return_path: {text!r} is no address")
    return found


def _unclaimed(directory: Directory, name: str, networks: Sequence[str]) -> None:
    """Raise Misused when a network is another account's: it would be nobody's."""
    if len(networks) > NETWORKS_MAX:
        raise Misused(f"at most {NETWORKS_MAX} networks an account")
    for other in directory.accounts.values():
        taken = set(other.networks) & set(networks)
        if other.name != name and taken:
            raise Misused(f"network {min(taken)} is account {other.name!r}'s already")
