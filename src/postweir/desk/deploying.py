"""Puts a policy in force, and goes back from one: every judge says whether it follows."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from postweir.desk import judges, names, policies, promoted
from postweir.desk.judges import Health, State
from postweir.desk.policies import Fault
from postweir.desk.ports import Missing, Note, Office, Policies
from postweir.judge import bundles, checking
from postweir.judge.gates import Progress
from postweir.judge.ports import Deployment, Loadable
from postweir.policy import facts
from postweir.policy.bundle import Bundle
from postweir.runtime.frames import Struct

POOLS_TOLD_MAX = 10


class Deployed(Struct, frozen=True):
    """What became of a deployment or a rollback."""

    policy: str  # "" when it has faults
    before: str  # the one in force until now
    number: int = 0  # of the deployment; 0: none was made
    in_force: bool = False  # it was in force already
    dry_run: bool = False
    judges: list[State] = []
    faults: list[Fault] = []
    notices: list[Fault] = []  # what an operator should know, and keeps nothing back


async def deploy(
    office: Office, path: Path, reason: str, *, dry_run: bool, tell: Progress | None = None
) -> Deployed:
    """Check a policy, keep it, and have every judge run it. Raises OSError, Misused."""
    reason = names.reason(reason)
    kept = promoted.policies(office)
    before = await promoted.in_force(office)
    report = await asyncio.to_thread(checking.check_file, path, progress=tell)
    if report.parsed is None or not report.ok:
        faults = policies.checked(path, report).faults
        return Deployed("", before, dry_run=dry_run, faults=faults)
    policy = Loadable(report.parsed.bundle, report.parsed.sets)
    notices = _poolless(office, policy.bundle, report.parsed.source.where)
    last = kept.last()
    if last is not None and last.policy == policy.policy:
        states = [] if dry_run else await _followed(office, last)
        return Deployed(policy.policy, before, last.number, True, dry_run, states, notices=notices)
    if dry_run:
        return Deployed(policy.policy, before, dry_run=True, notices=notices)
    text = report.parsed.source.text
    note = office.note("policy deploy", policy.policy, reason)
    return await _put(office, note, policy, text, before=before, notices=notices)


async def rollback(office: Office, name: str, reason: str, *, dry_run: bool) -> Deployed:
    """Go back to the policy promoted before, or to that one. Raises OSError, Missing, Misused."""
    reason = names.reason(reason)
    kept = promoted.policies(office)
    before = await promoted.in_force(office)
    deployments = kept.deployments()
    policy = promoted.named(office, name) if name else _before(deployments)
    last = deployments[-1] if deployments else None
    if policy == (last.policy if last else bundles.shipped().hash):
        number = last.number if last else 0
        states = await _followed(office, last) if last and not dry_run else []
        return Deployed(policy, before, number, True, dry_run, states)
    whole, source = _stored(kept, policy)
    notices = _poolless(office, whole.bundle, lambda _: policy[:16])
    if dry_run:
        return Deployed(policy, before, dry_run=True, notices=notices)
    note = office.note("policy rollback", policy, reason)
    return await _put(office, note, whole, source, before=before, notices=notices)


def trail(deployments: Sequence[Deployment]) -> list[str]:
    """Return the policies one can go back along; the last one is in force.

    Who goes back twice wants the one before, and not the one they went back from.
    """
    found: list[str] = []
    before: set[str] = set()
    for one in deployments:
        if one.verb == "rollback" and one.policy in found:
            while found[-1] != one.policy:
                found.pop()
        elif one.verb == "rollback" and one.policy not in before:
            found = [one.policy]  # the shipped one: nothing was before it
        elif not found or found[-1] != one.policy:
            found.append(one.policy)
        before.add(one.policy)
    return found


def _poolless(office: Office, bundle: Bundle, where: Callable[[int], str]) -> list[Fault]:
    """Return a notice for each rule with a pool that the settings do not have.

    Its mail leaves all the same, as if the rule had named none.
    """
    pools = office.settings.delivery.pools
    do = f"add it to delivery.pools, or correct the rule; there {_are(list(pools))}"
    return [
        Fault(where(n), rule.id, f"pool {rule.pool} is not in the settings (delivery.pools):"
              " its mail leaves by none", do)
        for n, rule in enumerate(bundle.rules)
        if rule.pool and rule.pool not in pools and rule.mode != "off"
    ]  # fmt: skip


def _are(pools: Sequence[str]) -> str:
    return f"are {', '.join(pools[:POOLS_TOLD_MAX])}" if pools else "are none yet"


async def _put(
    office: Office, note: Note, policy: Loadable, source: str, *, before: str, notices: list[Fault]
) -> Deployed:
    verb = note.verb.removeprefix("policy ")
    number = promoted.policies(office).deploy(verb, policy, source, facts.CANONICAL, note)
    made = Deployment(number, verb, policy.policy, note.at_us, note.by, note.reason)
    states = await _followed(office, made)
    return Deployed(policy.policy, before, number, judges=states, notices=notices)


async def _followed(office: Office, deployment: Deployment) -> list[State]:
    """Wait until every judge runs what was deployed, or says why not."""

    def judged(said: Health) -> tuple[str, str]:
        seen = said.get("deployment", 0)
        if seen > deployment.number:
            return judges.REFUSES, f"deployment {seen} came after it"
        if seen < deployment.number:
            return judges.WAITS, "it has not taken it yet"
        if said.get("policy") == deployment.policy:
            return judges.RUNS, ""
        killed = said.get("killed") or {}
        if killed.get("to"):
            return judges.REFUSES, f"`policy kill --to {killed['to']}` is in force"
        if said.get("refused"):
            return judges.REFUSES, str(said["refused"])
        return judges.WAITS, "it is loading it"

    return await judges.until(office, judged)


def _before(deployments: Sequence[Deployment]) -> str:
    """Return the policy promoted before the one in force. Raises Missing."""
    way = trail(deployments)
    shipped = bundles.shipped().hash
    if len(way) > 1:
        return way[-2]
    if not way or way[0] == shipped:
        raise Missing("nothing was promoted before the policy in force; there is no way back")
    return shipped


def _stored(kept: Policies, policy: str) -> tuple[Loadable, str]:
    """Return a policy that was promoted once, with its source. Raises Missing."""
    shipped = bundles.shipped_whole()
    whole = shipped if shipped.policy == policy else kept.loadable(policy)
    if whole is None:
        raise Missing(f"the sets of {policy} are no longer kept; deploy it anew from its file")
    return whole, promoted.kept_policy(kept, policy).source
