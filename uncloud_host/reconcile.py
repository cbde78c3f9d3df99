"""What a pass does about one VM: desired (etcd) and observed (systemd) give actions, each with its reason. Pure.

An action is one step. When it is done the world has changed, somebody looks again, and the next step follows: so a
pass may be cut anywhere and the next one finishes the job. Nothing here follows from an error or from silence; what
could not be read never reaches these functions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from uncloud_host.events import End, Name, conclude
from uncloud_host.models import VM, Status
from uncloud_host.unit import Evidence, State

# Seconds until FAILED is tried again, after each failure; the last one stays. TO_START tries at once.
RETRIES = (300, 600, 1200, 2400, 3600)
# Seconds of running after which systemd's count of restarts begins anew: it never falls by itself, and a VM that ended
# eight times in a year would wait five minutes at the ninth.
STABLE = 600.0
HEALTHY = 10.0  # seconds of running after which a reason told earlier is history


@dataclass(frozen=True, slots=True)
class Me:
    """Who this agent is. The name is what entries call the host; the machine id is what claims are compared by."""

    host: str
    machine_id: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Which machine may run a VM now, as read from etcd at `mod_revision`."""

    uuid: str
    host: str
    machine_id: str
    boot_id: str
    id: str
    entry: int  # the entry's create_revision
    since: str
    mod_revision: int = 0
    held: bool | None = None  # True: it runs on although etcd seems to have lost it; False: a person has ended that
    replaces: str = ""  # the id of the claim that was taken over


@dataclass(frozen=True, slots=True)
class Invalid:
    """An entry that nobody can start; what runs is left alone."""

    uuid: str
    reason: str
    mod_revision: int
    told: bool  # its status_reason already says so


@dataclass(frozen=True, slots=True)
class Gone:
    """etcd was read and has no entry for this uuid."""

    uuid: str


Desired = VM | Invalid | Gone


@dataclass(frozen=True, slots=True)
class Observed:
    """What systemd says about the VM's unit."""

    state: State
    evidence: Evidence | None = None  # None on a unit that exists: it is foreign
    invocation: str = ""
    restarts: int = 0  # by systemd, since the last start by somebody
    since: float = 0.0  # when this state began, seconds since 1970


@dataclass(frozen=True, slots=True)
class Start:
    """Claim the VM and start its unit."""

    vm: VM
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the unit; `event` is what its end will be told as."""

    uuid: str
    reason: str
    event: Name = Name.STOPPED


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget failures: frees the name of a unit that systemd has given up, renews the backoff of one that runs."""

    uuid: str
    reason: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Write status (None: leave it) and status_reason (no text: remove it), unless the entry has changed since."""

    mod_revision: int
    status: Status | None
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give up the claim: the VM is proven not to run here."""

    claim: Claim
    reason: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell people, once for each subject."""

    event: Name
    subject: str
    reason: str


Action = Start | Stop | Reset | SetStatus | Release | Tell

_UP = (State.STARTING, State.RUNNING, State.EXITED, State.RESTARTING)
_SHOULD_RUN = (None, Status.TO_START, Status.RUNNING, Status.FAILED, Status.TO_RESTART)


def needs_claim(desired: Desired, me: Me) -> bool:
    """Tell whether the plan depends on who may run the VM; a start finds that out itself, in its transaction."""
    return isinstance(desired, Gone) or (
        isinstance(desired, VM) and (desired.entry.host != me.host or desired.entry.status not in _SHOULD_RUN)
    )


def settled(desired: Desired, observed: Observed, me: Me, *, now: float) -> bool:
    """Tell cheaply that there is nothing to plan: the VM runs as asked, as most do most of the time."""
    if not isinstance(desired, VM) or (desired.entry.host, desired.entry.status) != (me.host, Status.RUNNING):
        return False
    runs = observed.state == State.RUNNING and observed.evidence is not None
    return runs and not desired.entry.status_reason and not _is_stable_again(observed, now)


def retry_delay(failures: int) -> int:
    """Give the seconds from the failure with this number (from 1) to the next try."""
    return RETRIES[min(failures, len(RETRIES)) - 1]


def plan(desired: Desired, observed: Observed, claim: Claim | None, me: Me, *, now: float, retry: bool) -> list[Action]:
    """Decide about one VM. `retry`: the slow retry of a FAILED one is due. `now` in seconds since 1970."""
    if observed.state != State.ABSENT and observed.evidence is None:
        return list(_foreign(desired, me))
    mine = claim if claim and claim.machine_id == me.machine_id else None
    if isinstance(desired, Invalid):
        return list(_invalid(desired))
    if isinstance(desired, Gone):
        return list(_gone(desired, observed, mine))
    if desired.entry.host != me.host:
        return list(_stopped(desired.uuid, observed, mine, f"the entry's host is {desired.entry.host} now"))
    if desired.entry.status in _SHOULD_RUN:
        return list(_run(desired, observed, now=now, retry=retry))
    if desired.entry.status == Status.STOP:
        return list(_stopped(desired.uuid, observed, mine, "its status is STOP"))
    return list(_to_stop(desired, observed, claim, mine))


def has_consequences(end: End) -> bool:
    """Tell whether an end may have to be written into the VM's entry."""
    return conclude(end)[0] in (Name.STOPPED_BY_HAND, Name.COULD_NOT_START)


def after(end: End, desired: Desired, me: Me) -> list[Action]:
    """What the recorded end of a run means for the entry: only while it says RUNNING, any other word is newer."""
    if not isinstance(desired, VM) or (desired.entry.host, desired.entry.status) != (me.host, Status.RUNNING):
        return []
    event, reason = conclude(end)
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
    if isinstance(desired, VM) and desired.entry.host == me.host and desired.entry.status in _SHOULD_RUN:
        text = "a unit of that name exists on this host which uncloud-host did not start"
        yield from _fail(desired, text, str(desired.mod_revision))


def _gone(desired: Gone, observed: Observed, mine: Claim | None) -> Iterator[Action]:
    if mine is None and observed.state != State.ABSENT:
        # Entry and claim gone: etcd lost its data, nobody deleted a VM. It runs on.
        yield Tell(Name.HELD, observed.invocation, "its entry and its claim are gone from etcd; it runs on")
        return
    yield from _stopped(desired.uuid, observed, mine, "its entry was deleted")


def _stopped(uuid: str, observed: Observed, mine: Claim | None, reason: str) -> Iterator[Action]:
    if observed.state == State.EXITED:
        yield Stop(uuid, "the guest powered itself off", Name.POWERED_OFF)
    elif observed.state in _UP:
        yield Stop(uuid, reason)
    elif observed.state == State.FAILED:
        yield Reset(uuid, reason)
    elif observed.state == State.ABSENT and mine:
        yield Release(mine, reason)


def _to_stop(vm: VM, observed: Observed, claim: Claim | None, mine: Claim | None) -> Iterator[Action]:
    yield from _stopped(vm.uuid, observed, mine, "its status is TO_STOP")
    if observed.state == State.ABSENT and (mine or claim is None):  # with a claim elsewhere, that host stops it
        yield SetStatus(vm.mod_revision, Status.STOP, "", "it does not run any more")


def _run(vm: VM, observed: Observed, *, now: float, retry: bool) -> Iterator[Action]:
    status = vm.entry.status
    restart = status == Status.TO_RESTART and _older(observed, vm)
    match observed.state:
        case State.ABSENT:
            if status != Status.FAILED or (retry and vm.entry.restart != "no"):
                yield Start(vm, _why_start(status))
        case State.RUNNING if not restart:
            yield from _runs(vm, observed, now)
        case State.RUNNING | State.STARTING | State.RESTARTING if restart:
            yield Stop(vm.uuid, "its status is TO_RESTART")
        case State.EXITED:
            yield from _exited(vm)
        case State.FAILED:
            if status in (Status.RUNNING, Status.TO_RESTART) and not restart:
                text = f"systemd gave up restarting it; see journalctl -u vm-{vm.uuid}"
                yield from _fail(vm, text, observed.invocation, Name.GAVE_UP)
            elif status != Status.FAILED or (retry and vm.entry.restart != "no"):
                yield Reset(vm.uuid, _why_start(status))


def _runs(vm: VM, observed: Observed, now: float) -> Iterator[Action]:
    if _is_stable_again(observed, now):
        yield Reset(vm.uuid, "it has run for 10 minutes")
    if vm.entry.status != Status.RUNNING or (vm.entry.status_reason and now - observed.since >= HEALTHY):
        yield SetStatus(vm.mod_revision, Status.RUNNING, "", "it runs")


def _exited(vm: VM) -> Iterator[Action]:
    """The guest powered itself off and systemd was told not to start it again."""
    if vm.entry.status == Status.RUNNING:
        yield SetStatus(vm.mod_revision, Status.STOP, "guest powered off", "the guest powered itself off")
    else:
        yield Stop(vm.uuid, "the guest powered itself off", Name.POWERED_OFF)


def _is_stable_again(observed: Observed, now: float) -> bool:
    return observed.restarts > 0 and now - observed.since >= STABLE


def _older(observed: Observed, vm: VM) -> bool:
    return observed.evidence is None or observed.evidence.mod_revision < vm.mod_revision


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
