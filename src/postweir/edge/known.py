"""Who is known here, as the tables stand now: sessions outlive credentials."""

from postweir.edge.sasl import Claim
from postweir.edge.worker import Worker
from postweir.identity.credentials import check
from postweir.identity.sender import Account


def payer(worker: Worker, *, username: str, client: str) -> Account | None:
    """Return whose mail this is: of who logged in, else of the client's network; None: nobody's."""
    directory = worker.directory
    if username:
        credential = directory.now.credentials.get(username)
        if credential is None or credential.revoked_us:
            return None
        return directory.now.accounts.get(credential.account)
    name = directory.networks.owner(client)
    return directory.now.accounts.get(name) if name else None


def holds(worker: Worker, claim: Claim) -> bool:
    """True when name and secret belong together and are in force."""
    found = check(worker.directory.now, claim.username, claim.secret, worker.secret)
    return found is not None


def loggable(worker: Worker, claim: Claim) -> str:
    """Return the name for a log: one we do not know may be a secret in the wrong place."""
    return claim.username if claim.username in worker.directory.now.credentials else "?"
