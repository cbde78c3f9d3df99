"""Whoever runs a VM has its claim; what is not believed is held. The rules about the claim on a VM whose unit is here.

Pure. These rules come before all others: a claim that is absent, or that a restored etcd brought back, is no reason to
stop a VM, but it would let another host start it.

A *hold* stands in the claim (`Claim.held`: None, not held; True, held; False, a person has confirmed that etcd is
right). While a VM is held its unit is left as it is. How a hold begins and what leaves it as it is, see `_hold`:

    the entry ...               and                                       then the VM is
    asks to run here            its unit is up                            not held (any more)
    asks to run here            it was stopped with all others            as it was
    is invalid                                                            as it was
    is gone, or says anything   it is held, or that is confirmed          as it was
    is gone                     that is in doubt, see `holds`             held
    is gone                     its claim is gone, too                    held
    says anything else          history went backwards: all is in doubt   held

It ends when the entry says what it did not say before (`is_newer`), when it asks to run, or by a person's word; then
what the entry says is done.
"""

from dataclasses import replace
from datetime import UTC, datetime

from uncloud_host.actions import Action, Secure, Tell
from uncloud_host.events import Name, stamp
from uncloud_host.facts import Claim, Desired, Doubt, Gone, Invalid, Me, Observed
from uncloud_host.models import VM, Status
from uncloud_host.unit import State

UP = (State.STARTING, State.RUNNING, State.EXITED, State.RESTARTING)
SHOULD_RUN = (None, Status.TO_START, Status.RUNNING, Status.FAILED, Status.TO_RESTART)
_ASKS = (Status.TO_START, Status.TO_RESTART)  # what only somebody who wants it writes
_LOST = "its entry and its claim are both gone from etcd, which seems to have lost its data"


def asks_to_run(desired: Desired, me: Me) -> bool:
    """Tell whether an entry says that its VM should run on this host."""
    return isinstance(desired, VM) and desired.entry.host == me.host and desired.entry.status in SHOULD_RUN


def to_give_up(claim: Claim | None, me: Me, wait: str) -> Claim | None:
    """Return a claim if it is ours to release. While this host waits, one of another boot may be that of a clone, which
    says that it is this host, too."""
    return claim if claim and (claim.is_of_boot(me) if wait else claim.is_of(me)) else None


def _asks_to_restart(desired: Desired) -> bool:
    return isinstance(desired, VM) and desired.entry.status == Status.TO_RESTART


def is_in_order(claim: Claim | None, desired: VM | Invalid, observed: Observed, me: Me) -> bool:
    """Tell whether a claim is as it should be for the unit that is here."""
    if claim is None or observed.evidence is None:
        return False
    wanted = (observed.evidence.claim, desired.create_revision, None)
    return claim.is_of_boot(me) and (claim.id, claim.entry, claim.held) == wanted


def is_newer(desired: Desired, claim: Claim) -> bool:
    """Tell whether an entry says something that it did not say when the VM was held.

    A later revision alone is not enough: a scheduler's or an agent's own write brings back what a backup said. So does
    the reason why another host waits, which its agent writes beside TO_START or TO_RESTART.
    """
    if not isinstance(desired, VM) or desired.mod_revision <= claim.mod_revision:
        return False
    status, host = desired.entry.status, desired.entry.host
    asks = status == Status.TO_STOP or (status in _ASKS and host == claim.host)
    return asks or _said(desired) != claim.said


def _said(desired: Desired) -> str:
    return f"{desired.entry.host} {desired.entry.status}" if isinstance(desired, VM) else ""


def is_recreated(vm: VM, claim: Claim | None) -> bool:
    """Tell whether the entry was deleted and created again since the claim was taken."""
    return claim is not None and claim.entry not in (0, vm.create_revision) and vm.create_revision > claim.mod_revision


def secured(
    desired: Desired, observed: Observed, claim: Claim | None, me: Me, doubt: Doubt | None, *, now: float
) -> list[Action] | None:
    """Decide about the claim on a VM whose unit is here. None: it is in order, and what etcd says is believed."""
    mine = claim if claim and claim.is_of(me) else None
    if claim and not mine and not (doubt and doubt.everything):
        return _disagreement(desired, claim, me)
    if mine and mine.held is not None and doubt and doubt.everything and (not mine.held or is_newer(desired, mine)):
        mine = replace(mine, held=None, why="")  # what ended the hold is in doubt itself
    held, why = _hold(desired, observed, mine, me, doubt)
    old = mine.held if mine else None
    wanted = _wanted(desired, observed, mine, me, adopt=doubt is not None, held=held, why=why, now=now)
    wanted = replace(wanted, mod_revision=claim.mod_revision if claim else 0)
    if wanted == claim:
        if claim.held and not is_newer(desired, claim):
            return [Tell(Name.HELD, claim.since, f"{claim.why}; it runs on")]
        return None
    entry = 0 if isinstance(desired, Gone) else desired.mod_revision
    secure = Secure(wanted, entry, why or ("its claim is brought up to date" if mine else "its claim was lost"))
    if held and not old:
        return [secure, Tell(Name.HELD, wanted.since, f"{why}; it runs on")]
    return [secure]


def stopped_with_all(desired: Desired, observed: Observed, claim: Claim | None, me: Me) -> Claim | None:
    """Give the claim that holds a VM which was stopped together with all others, until somebody says what is meant.

    A new boot or a newer entry says so.
    """
    if claim is None or claim.held is None or not claim.is_of_boot(me):
        return None
    over = observed.state in UP or is_newer(desired, claim) or not asks_to_run(desired, me)
    return None if over else claim


def held_by_hand(desired: VM, claim: Claim, why: str, *, now: float) -> list[Action]:
    """Hold a VM that somebody stopped together with all others of this host."""
    held = replace(claim, held=True, why=why, said=_said(desired), since=_stamp(now))
    return [Secure(held, desired.mod_revision, why), Tell(Name.HELD, held.since, f"{why}; it stays off")]


def _disagreement(desired: Desired, claim: Claim, me: Me) -> list[Action] | None:
    """It runs here and another machine has its claim: touched only if its entry says in so many words what to do."""
    if isinstance(desired, VM) and not asks_to_run(desired, me):
        return None
    if claim.host == me.host:
        return [Tell(Name.DUPLICATE_HOST, claim.id, another_machine(claim))]
    who = claim.host or "somebody unknown"
    return [Tell(Name.WRONG_HOST, claim.id, f"it runs here, but its claim is {who}'s; nothing is touched")]


def another_machine(claim: Claim) -> str:
    """Say that somebody has our name."""
    return f"its claim is that of another machine which is also called {claim.host} (machine id {claim.machine_id})"


def _hold(
    desired: Desired, observed: Observed, mine: Claim | None, me: Me, doubt: Doubt | None
) -> tuple[bool | None, str]:
    """Decide whether the VM is held, and why."""
    kept = (mine.held, mine.why) if mine else (None, "")
    if asks_to_run(desired, me) and not _asks_to_restart(desired):
        return (None, "") if observed.state in UP else kept  # kept: it was stopped with all others a moment ago
    if isinstance(desired, Invalid) or kept[0] is not None:
        return kept  # a stop or a restart that is older than the hold is as little believed as an absence
    gone = isinstance(desired, Gone)
    if doubt and (gone or doubt.everything):
        return True, doubt.reason
    return (True, _LOST) if gone and mine is None else kept


def _wanted(
    desired: Desired,
    observed: Observed,
    mine: Claim | None,
    me: Me,
    *,
    adopt: bool,
    held: bool | None,
    why: str,
    now: float,
) -> Claim:
    """Say how the claim should be. `adopt`: today's entry is the one that this VM runs for, whenever it was created."""
    assert observed.evidence is not None  # noqa: S101 - for mypy: foreign units do not come here
    entry = mine.entry if mine else 0
    same = mine is not None and held == mine.held
    if not isinstance(desired, Gone) and not (same and held is not None):
        is_unknown = mine is None or mine.entry == 0 or mine.held is not None
        older = mine is not None and desired.create_revision <= mine.mod_revision
        if adopt or is_unknown or older:
            entry = desired.create_revision
    since = mine.since if mine and same else _stamp(now)
    said = mine.said if mine and same else _said(desired) if held else ""
    replaces = mine.replaces if mine else ""
    id_ = observed.evidence.claim
    return Claim(desired.uuid, me.host, me.machine_id, me.boot_id, id_, entry, since, held, why, said, replaces)


def _stamp(now: float) -> str:
    return stamp(datetime.fromtimestamp(now, UTC))
