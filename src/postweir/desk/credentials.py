"""Credentials: a user name with a secret that is shown once."""

from postweir.desk import accounts, names
from postweir.desk.ports import Missing, Office
from postweir.identity import credentials
from postweir.identity.sender import Credential
from postweir.runtime.frames import Struct


class Made(Struct, frozen=True):
    """A new credential; nobody keeps the secret."""

    account: str
    username: str
    secret: str


class Shown(Struct, frozen=True):
    """A credential as commands show it."""

    account: str
    username: str
    created_us: int
    revoked_us: int  # 0: in force


def add(office: Office, account: str) -> Made:
    """Make a credential of an account. Raises Missing, OSError, ValueError."""
    accounts.find(accounts.known(office.tables), account)
    key = credentials.server_secret(office.settings.data)
    while True:
        made, secret = credentials.generate(account, key, created_us=office.now_us())
        if office.tables.add_credential(made, office.note("credential add", made.username)):
            return Made(account, made.username, secret)


def ls(office: Office, account: str) -> list[Shown]:
    """Return credentials by age, of one account or ("") of all. Raises Missing."""
    directory = accounts.known(office.tables)
    if account:
        accounts.find(directory, account)
    found = [c for c in directory.credentials.values() if account in ("", c.account)]
    return [_shown(c) for c in sorted(found, key=lambda c: (c.created_us, c.username))]


def revoke(
    office: Office, account: str, username: str, reason: str, *, dry_run: bool = False
) -> list[Shown]:
    """Put one credential, or ("") all of an account, out of force; returns those that were.

    A dry run returns those that would be.

    Raises Missing when there is none in force.
    """
    note = names.reason(reason)
    in_force = [c for c in ls(office, account) if not c.revoked_us]
    chosen = [c for c in in_force if username in ("", c.username)]
    done = [
        c
        for c in chosen
        if dry_run
        or office.tables.revoke_credential(
            c.username, office.note("credential revoke", c.username, note)
        )
    ]
    if not done:
        what = f"no credential {username!r}" if username else "no credential"
        hint = names.meant(username, [c.username for c in in_force]) if username else ""
        raise Missing(f"account {account!r} has {what} in force{hint}")
    return done


def _shown(credential: Credential) -> Shown:
    return Shown(
        credential.account, credential.username, credential.created_us, credential.revoked_us
    )
