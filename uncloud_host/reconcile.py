"""What a pass does about one VM: desired (etcd), observed (systemd) and claim give actions, each with its reason. Pure.

An action is one step. When it is done the world has changed, somebody looks again, and the next step follows: so a
pass may be cut anywhere and the next one finishes the job. Nothing here follows from an error or from silence; what
could not be read never reaches these functions.
"""

from collections.abc import Iterator

from uncloud_host import claiming, limits
from uncloud_host.actions import Action, Limit, Release, Reset, SetStatus, Start, Stop, Tell, Wait
from uncloud_host.claiming import UP, asks_to_run
from uncloud_host.endings import End, conclude
from uncloud_host.events import Name
from uncloud_host.facts import Claim, Desired, Doubt, Gone, Invalid, Me, Observed
from uncloud_host.models import VM, Status
from uncloud_host.unit import State

# Seconds until FAILED is tried again, after each failure; the last one stays. TO_START tries at once.
RETRIES = (300, 600, 1200, 2400, 3600)
# Seconds of running after which systemd's count of restarts begins anew: it never falls by itself, and a VM that ended
# eight times in a year would wait five minutes at the ninth.
STABLE = 600.0
WAITS = "waits for"
HEALTHY = 10.0  # seconds of running after which a reason told earlier is history


def settled(desired: Desired, observed: Observed, claim: Claim | None, me: Me, *, now: float) -> bool:
    """Tell cheaply that there is nothing to plan: the VM runs as asked, as most do most of the time."""
    if not isinstance(desired, VM) or (desired.entry.host, desired.entry.status) != (me.host, Status.RUNNING):
        return False
    runs = observed.state == State.RUNNING and claiming.is_in_order(claim, desired, observed, me)
    if not runs or desired.entry.status_reason or _is_stable_again(observed, now):
        return False
    return _limit(desired, observed) is None


def must_read(desired: Desired, observed: Observed, claim: Claim | None, me: Me) -> bool:
    """Tell whether entry and claim must be read from etcd, both at one revision, before anything is planned.

    Not to be read for a start, whose transaction finds out, and while a VM and its claim are in order.
    """
    if isinstance(desired, Gone) or (isinstance(desired, VM) and not asks_to_run(desired, me)):
        return True
    if observed.state == State.ABSENT:
        return claim is not None and not claim.is_of(me)  # nobody tells of its end while it is elsewhere
    if observed.evidence is None:
        return False
    # A run from a later entry than this one: this one is stale, or etcd's history is another one now.
    later = observed.evidence.mod_revision > desired.mod_revision
    return later or not claiming.is_in_order(claim, desired, observed, me)


def retry_delay(failures: int) -> int:
    """Give the seconds from the failure with this number (from 1) to the next try."""
    return RETRIES[min(failures, len(RETRIES)) - 1]


def plan(
    desired: Desired,
    observed: Observed,
    claim: Claim | None,
    me: Me,
    *,
    now: float,
    retry: bool = False,
    doubt: Doubt | None = None,
    wait: str = "",
) -> list[Action]:
    """Decide about one VM. `now` in seconds since 1970.

    `retry`: the slow retry of a FAILED one is due; `doubt`: what etcd says of it is not believed; `wait`: why this host
    starts nothing.
    """
    if observed.state != State.ABSENT:
        if observed.evidence is None:
            return list(_foreign(desired, me))
        if claim and not claim.is_of(me) and claim.replaces == observed.evidence.claim:
            return list(_stopped(desired.uuid, observed, None, f"it was taken over by {claim.host}"))
        doubt = doubt or _second_witness(desired, observed, claim)
        actions = claiming.secured(desired, observed, claim, me, doubt, now=now)
        if actions is not None:
            return actions
    mine = claiming.to_give_up(claim, me, wait)
    match desired:
        case Invalid():
            return list(_invalid(desired))
        case Gone():
            return list(_stopped(desired.uuid, observed, mine, "its entry was deleted"))
    if asks_to_run(desired, me):
        return list(_should_run(desired, observed, claim, me, now=now, retry=retry, wait=wait))
    return list(_should_not_run(desired, observed, claim, mine, me))


def _second_witness(desired: Desired, observed: Observed, claim: Claim | None) -> Doubt | None:
    """Doubt an entry that is older than the run and a claim that is not the run's: etcd was restored, unseen."""
    if isinstance(desired, Gone) or observed.evidence is None or (claim and claim.id == observed.evidence.claim):
        return None
    is_older = desired.mod_revision < observed.evidence.mod_revision
    return Doubt("its entry is older than its run, as if restored from a backup", everything=True) if is_older else None


def _should_not_run(vm: VM, observed: Observed, claim: Claim | None, mine: Claim | None, me: Me) -> Iterator[Action]:
    if vm.entry.host != me.host:
        text = f"the entry's host is {vm.entry.host} now"
        yield from _stopped(vm.uuid, observed, mine, text, Name.MOVED)
        return
    yield from _stopped(vm.uuid, observed, mine, f"its status is {vm.entry.status}")
    is_over = observed.state == State.ABSENT and (mine or claim is None)  # with a claim elsewhere, that host stops it
    if vm.entry.status == Status.TO_STOP and is_over:
        yield SetStatus(vm.mod_revision, Status.STOP, "", "it does not run any more")


def _should_run(
    vm: VM, observed: Observed, claim: Claim | None, me: Me, *, now: float, retry: bool, wait: str
) -> Iterator[Action]:
    is_mine = claim is not None and claim.is_of(me)
    if held := claiming.stopped_with_all(vm, observed, claim, me):
        yield from _stopped_with_all(vm, observed, held)
    elif observed.state != State.ABSENT and is_mine and claiming.is_recreated(vm, claim):
        again = _stopped(vm.uuid, observed, None, "its entry was deleted and created again")
        yield from [Wait(vm.uuid, wait)] if wait else again
    elif observed.state == State.ABSENT and claim and not is_mine:
        yield from _claimed_elsewhere(vm, claim, me)
    else:
        yield from _run(vm, observed, now=now, retry=retry, wait=wait)


def is_between_runs(observed: Observed, invocation: str) -> bool:
    """Tell whether a stop now is the end of no run: systemd waits before it restarts the VM, no program is there to
    record anything. `invocation` is read after the rest: if it is another one, systemd has been faster.
    """
    return observed.state == State.RESTARTING and observed.invocation == invocation


def has_consequences(end: End) -> bool:
    """Tell whether an end may have to be written into etcd."""
    return conclude(end)[0] in (Name.STOPPED_BY_HAND, Name.COULD_NOT_START)


def after(end: End, desired: Desired, claim: Claim | None, me: Me, *, now: float) -> list[Action]:
    """What the recorded end of a run means for the entry: only while it says RUNNING, any other word is newer.

    Why it could not start is also told to who wants it to start; not beside TO_RESTART, which any write would renew.
    """
    if not isinstance(desired, VM) or desired.entry.host != me.host:
        return []
    event, reason = conclude(end)
    starts = event == Name.COULD_NOT_START and desired.entry.status in (None, Status.TO_START)
    if desired.entry.status != Status.RUNNING and not starts:
        return []
    if event == Name.STOPPED_BY_HAND and end.by == "many":
        return claiming.held_by_hand(desired, claim, reason, now=now) if claim and claim.is_of_boot(me) else []
    if event == Name.STOPPED_BY_HAND:
        return [SetStatus(desired.mod_revision, Status.STOP, f"stopped by hand: {reason}", reason)]
    if event == Name.COULD_NOT_START and desired.entry.status_reason != reason:
        return [SetStatus(desired.mod_revision, None, reason, reason)]
    return []


def _invalid(entry: Invalid) -> Iterator[Action]:
    if not entry.told:
        yield Tell(Name.INVALID, str(entry.mod_revision), entry.reason)
        yield SetStatus(entry.mod_revision, None, entry.reason, entry.reason)


def _foreign(desired: Desired, me: Me) -> Iterator[Action]:
    if isinstance(desired, VM) and asks_to_run(desired, me):
        text = "a unit of that name exists on this host which uncloud-host did not start"
        yield from _fail(desired, text, str(desired.mod_revision))


def _stopped(
    uuid: str, observed: Observed, mine: Claim | None, reason: str, event: Name = Name.STOPPED
) -> Iterator[Action]:
    if observed.state == State.EXITED:
        yield Stop(uuid, "the guest powered itself off", Name.POWERED_OFF)
    elif observed.state in UP:
        yield Stop(uuid, reason, event)
    elif observed.state == State.FAILED:
        yield Reset(uuid, reason)
    elif observed.state == State.ABSENT and mine:
        yield Release(mine, reason)


def _stopped_with_all(vm: VM, observed: Observed, held: Claim) -> Iterator[Action]:
    if held.held:
        yield Tell(Name.HELD, held.since, f"{held.why}; it stays off")
    elif observed.state == State.FAILED:
        yield Reset(vm.uuid, held.why)
    elif observed.state == State.ABSENT:
        yield SetStatus(vm.mod_revision, Status.STOP, f"stopped by hand: {held.why}", "somebody confirmed it")


def _claimed_elsewhere(vm: VM, claim: Claim, me: Me) -> Iterator[Action]:
    """Wait: as long as its claim is there, that machine may run it, also if nobody hears from it."""
    text = f"{WAITS} {claim.host or 'somebody unknown'}, which has its claim"
    if claim.host == me.host:
        # Not written into the entry: it is that machine's, too, and both would write in turns.
        yield Tell(Name.DUPLICATE_HOST, claim.id, claiming.another_machine(claim))
    elif vm.entry.status_reason != text:
        yield SetStatus(vm.mod_revision, None, text, text)


def _run(vm: VM, observed: Observed, *, now: float, retry: bool, wait: str) -> Iterator[Action]:
    status = vm.entry.status
    restart = status == Status.TO_RESTART and _is_of_another_entry(observed, vm)
    match observed.state:
        case State.ABSENT:
            if status != Status.FAILED or (retry and vm.entry.restart != "no"):
                yield Wait(vm.uuid, wait) if wait else Start(vm, _why_start(status))
        case State.RUNNING if not restart:
            yield from _runs(vm, observed, now)
        case State.RUNNING | State.STARTING | State.RESTARTING if restart:
            yield Wait(vm.uuid, wait) if wait else Stop(vm.uuid, "its status is TO_RESTART")
        case State.EXITED:
            yield from _exited(vm, observed)
        case State.FAILED:
            is_answer = status in (None, Status.TO_START) and not _is_of_another_entry(observed, vm)
            if is_answer or (status in (Status.RUNNING, Status.TO_RESTART) and not restart):
                why = "it ended, and its restart is no" if vm.entry.restart == "no" else "systemd gave up restarting it"
                text = f"{why}; see journalctl -u vm-{vm.uuid}"
                yield from _fail(vm, text, observed.invocation, Name.GAVE_UP)
            elif status != Status.FAILED or (retry and vm.entry.restart != "no"):
                yield Reset(vm.uuid, _why_start(status))


def _runs(vm: VM, observed: Observed, now: float) -> Iterator[Action]:
    if _is_stable_again(observed, now):
        yield Reset(vm.uuid, "it has run for 10 minutes")
    is_healthy = now - observed.since >= HEALTHY or str(vm.entry.status_reason).startswith(WAITS)
    if vm.entry.status == Status.FAILED:
        if is_healthy:  # not sooner: a VM that ends again and again would be told as resolved each time
            yield SetStatus(vm.mod_revision, Status.RUNNING, "", "it runs")
    elif vm.entry.status != Status.RUNNING or (vm.entry.status_reason and is_healthy):
        yield SetStatus(vm.mod_revision, Status.RUNNING, "", "it runs")
    if limit := _limit(vm, observed):
        yield limit


def _limit(vm: VM, observed: Observed) -> Limit | None:
    """Change limits, if the entry has others than the unit."""
    if observed.evidence is None or not (vm.entry.limits.model_fields_set or observed.evidence.limits):
        return None  # most VMs: no fingerprint needs to be computed
    is_pending = observed.evidence.fingerprint != vm.entry.fingerprint()
    if observed.evidence.limits == limits.fingerprint(vm, is_pending=is_pending):
        return None
    return Limit(vm, observed.evidence, "its entry has other limits")


def _exited(vm: VM, observed: Observed) -> Iterator[Action]:
    """The guest powered itself off and systemd was told not to start it again; before RUNNING was written, perhaps."""
    if vm.entry.status == Status.RUNNING or not _is_of_another_entry(observed, vm):
        yield SetStatus(vm.mod_revision, Status.STOP, "guest powered off", "the guest powered itself off")
    else:
        yield Stop(vm.uuid, "the guest powered itself off", Name.POWERED_OFF)


def _is_stable_again(observed: Observed, now: float) -> bool:
    return observed.restarts > 0 and now - observed.since >= STABLE


def _is_of_another_entry(observed: Observed, vm: VM) -> bool:
    """Unequal, not older: after etcd went backwards the revision of a run may be beyond all that will come for years.
    A run from a later entry is not restarted for a stale one, for then etcd is read first (`must_read`)."""
    return observed.evidence is None or observed.evidence.mod_revision != vm.mod_revision


def _fail(vm: VM, text: str, subject: str, event: Name = Name.COULD_NOT_START) -> Iterator[Action]:
    """Say FAILED and why, once: what already stands in the entry is not said again."""
    if (vm.entry.status, vm.entry.status_reason) != (Status.FAILED, text):
        yield Tell(event, subject, text)
        yield SetStatus(vm.mod_revision, Status.FAILED, text, text)


def failed(vm: VM, text: str) -> list[Action]:
    """What to do about a start that failed before there was a unit."""
    return list(_fail(vm, text, str(vm.mod_revision)))


def _why_start(status: Status | None) -> str:
    if status is None:
        return "it is a new entry"
    if status == Status.RUNNING:
        return "its status is RUNNING and it does not run"
    return f"its status is {status}"
