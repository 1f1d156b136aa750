"""What is in force and since when: for people, and for commands that change it."""

from collections import Counter
from collections.abc import Sequence

from postweir.desk import judges
from postweir.desk.judges import Health, State
from postweir.desk.ports import KeptPolicy, Missing, Misused, Office, Policies
from postweir.judge import bundles, kills
from postweir.judge.kills import Kills
from postweir.policy.bundle import Bundle, from_canonical
from postweir.runtime.frames import Struct, Torn

PREFIX_CHARS_MIN = 4  # of a policy's hash: less is a slip of the pen


class Shown(Struct, frozen=True):
    """One line of the history."""

    number: int
    verb: str
    policy: str
    at_us: int
    by: str
    reason: str
    in_force: bool


class Status(Struct, frozen=True):
    """Which policy is in force, and what every judge makes of it."""

    promoted: str  # "" when nobody knows
    candidate: str | None = None
    stage: str | None = None
    share: float = 0
    barred: list[str] = []
    judges: dict[str, str] = {}  # what each judge that answered runs
    deployment: int = 0  # 0: no operator ever deployed one, it is the shipped one
    at_us: int = 0
    by: str = ""
    reason: str = ""
    rules: dict[str, int] = {}  # by mode
    killed: list[str] = []  # what `policy kill` keeps off
    kill_fault: str = ""  # why kill.toml does not count
    states: list[State] = []


class Source(Struct, frozen=True):
    """A policy as it was written."""

    policy: str
    source: str
    at_us: int
    by: str


def history(office: Office) -> list[Shown]:
    """Return what was put in force, the latest first. Raises OSError."""
    found = policies(office).deployments()
    last = found[-1].number if found else 0
    return [
        Shown(d.number, d.verb, d.policy, d.at_us, d.by, d.reason, d.number == last)
        for d in reversed(found)
    ]


async def status(office: Office) -> Status:
    """Return which policy is in force. What the tables cannot say, the judges' disks do."""
    try:
        last = policies(office).last()
    except OSError:
        last = None
    found = await judges.healths(office)
    running = {str(i): str(said["policy"]) for i, said in found.items()
               if said is not None and said.get("policy")}  # fmt: skip
    on_disk = disk(office)
    promoted = last.policy if last else next(iter(running.values()), next(iter(on_disk), ""))
    killed, fault = killed_now(office)
    bundle = on_disk.get(promoted) or _bundle(office, promoted)
    return Status(
        promoted, judges=running,
        deployment=last.number if last else 0, at_us=last.at_us if last else 0,
        by=last.by if last else "", reason=last.reason if last else "",
        rules=dict(Counter(rule.mode for rule in bundle.rules)) if bundle else {},
        killed=[one.what for one in killed.kills], kill_fault=fault,
        states=[_standing(i, said, promoted) for i, said in found.items()],
    )  # fmt: skip


def show(office: Office, name: str) -> Source:
    """Return a policy as it was written. Raises Missing, Misused, OSError."""
    last = policies(office).last()
    policy = named(office, name) if name else last.policy if last else bundles.shipped().hash
    kept = kept_policy(policies(office), policy)
    return Source(policy, kept.source, kept.at_us, kept.by)


def named(office: Office, name: str) -> str:
    """Return the policy, ever promoted, that a name or the beginning of one means.

    Raises Missing, Misused, OSError.
    """
    known = [one.policy for one in policies(office).deployments()]
    return chosen(name, [*known, bundles.shipped().hash])


def chosen(name: str, known: Sequence[str]) -> str:
    """Return the one policy of those known that begins so. Raises Missing, Misused."""
    if not begins_one(name):
        least = f"pol_ and at least {PREFIX_CHARS_MIN} characters of its hash"
        raise Misused(f"{name!r} names no policy: write {least}; see: postweir policy history")
    prefix = "pol_" + name.removeprefix("pol_").lower()
    found = sorted({one for one in known if one.startswith(prefix)})
    if len(found) > 1:
        raise Misused(
            f"{name} is the beginning of {len(found)}: {', '.join(one[:16] for one in found)}"
        )
    if not found:
        raise Missing(f"no policy {name} was ever promoted; see: postweir policy history")
    return found[0]


def begins_one(name: str) -> bool:
    """True for what the name of a policy may begin with."""
    digits = name.removeprefix("pol_").lower()
    return len(digits) >= PREFIX_CHARS_MIN and set(digits) <= set("0123456789abcdef")


def disk(office: Office) -> dict[str, Bundle]:
    """Return what the judges have on their disks, by name, the promoted one first."""
    folder = office.settings.data / "policy"
    found: dict[str, Bundle] = {}
    for index in range(1, office.settings.judge.workers + 1):
        for name, bundle in bundles.seen(folder / str(index)):
            found.setdefault(name, bundle)
    return found


def killed_now(office: Office) -> tuple[Kills, str]:
    """Return what `kill.toml` says, and why it cannot be read, if it cannot."""
    try:
        return kills.parse(kills.read(office.settings.data / "policy" / "kill.toml")), ""
    except FileNotFoundError:
        return Kills(), ""
    except (OSError, Torn) as fault:
        return Kills(), getattr(fault, "strerror", None) or str(fault)


def policies(office: Office) -> Policies:
    """Return the store of policies."""
    assert office.policies is not None
    return office.policies


async def in_force(office: Office) -> str:
    """Return the policy in force, as far as anybody knows. Raises OSError."""
    last = policies(office).last()
    if last is not None:
        return last.policy
    said = [one for one in (await judges.healths(office)).values() if one]
    running = str(said[0].get("policy", "")) if said else ""
    return running or next(iter(disk(office)), bundles.shipped().hash)


def kept_policy(kept: Policies, policy: str) -> KeptPolicy:
    """Return a policy that was promoted, or is the shipped one. Raises Missing, OSError."""
    found = kept.kept(policy)
    if found is not None:
        return found
    shipped = bundles.shipped()
    if shipped.hash != policy:
        raise Missing(f"{policy} is not in the tables")
    return KeptPolicy(policy, shipped.canonical, bundles.shipped_text(), 0, "")


def _standing(index: int, said: Health | None, promoted: str) -> State:
    """Return how one judge stands just now."""
    if said is None:
        return State(index, judges.SILENT, why="it does not answer")
    policy = str(said.get("policy", ""))
    killed = said.get("killed") or {}
    why = [str(said.get("refused", "")), *_kept_off(killed)]
    state = judges.RUNS if policy and policy == promoted else judges.REFUSES
    return State(index, state, policy, "; ".join(filter(None, why)))


def _kept_off(killed: Health) -> list[str]:
    rules = ", ".join(map(str, killed.get("rules", ())))
    return [
        "the engine is off" if killed.get("engine_off") else "",
        f"killed to {killed['to']}" if killed.get("to") else "",
        f"killed: {rules}" if rules else "",
        f"kill.toml: {killed['fault']}" if killed.get("fault") else "",
    ]


def _bundle(office: Office, policy: str) -> Bundle | None:
    try:
        kept = policies(office).kept(policy)
        return from_canonical(kept.canonical) if kept else None
    except (OSError, Torn):
        return None
