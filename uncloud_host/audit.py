"""Is all as etcd says, on this host, and are the others there? What was read becomes findings. Pure.

What was read is not of one moment, and what is under way is no finding: so each has to last for a while (`after`)
before it counts, and whoever asks looks again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from uncloud_host import lasting
from uncloud_host.actions import Tell
from uncloud_host.claiming import UP, asks_to_run
from uncloud_host.events import Event, Name
from uncloud_host.facts import Claim, Desired, Gone, Observed
from uncloud_host.findings import Asked, Code, Finding, Found, Key, Named
from uncloud_host.models import VM, is_uuid
from uncloud_host.reconcile import WAITS, plan
from uncloud_host.strangers import describe
from uncloud_host.unit import Evidence, State, name

SOON = 10.0  # seconds in which what was read at different moments comes to agree
LATE = 60.0
SILENT = 180.0
UNAUDITED = 1200.0  # the lease of /audit/HOST
_AHEAD = (State.STARTING, State.RUNNING, State.RESTARTING)  # a unit that goes on with what it was started with
_ABSENT = Observed(State.ABSENT)


def classify(found: Found) -> list[Finding]:
    """Find what is not as it should be, also what has not lasted long enough to count."""
    findings = [*_agent(found), *_programs(found), *_units(found)]
    if found.etcd:
        for uuid, (desired, claim) in found.etcd.vms.items():
            findings += _vm(found, uuid, desired, claim)
        findings += _hosts(found, found.etcd)
    order = list(Code)
    return sorted(findings, key=lambda finding: (order.index(finding.code), finding.name, finding.about))


def remembered(findings: Sequence[Finding], since: Mapping[Key, float], known: Collection[Key]) -> list[Finding]:
    """Say of each finding since when it lasts, from earlier looks; what is `known` has been told, and counts."""
    return [
        replace(one, since=min(one.since, since.get(one.key, one.since)), after=0.0 if one.key in known else one.after)
        for one in findings
    ]


def _agent(found: Found) -> Iterator[Finding]:
    me, agent = found.me, found.agent
    down = partial(Finding, Code.AGENT_DOWN, me.host, event=Name.AGENT_DOWN)
    if agent.active in ("failed", "inactive"):
        # At an upgrade, or by somebody who starts it again, it is stopped for a moment.
        after = LATE if agent.active == "inactive" else 0.0
        text = f"uncloud-host.service is {agent.active} ({agent.result}); VMs run on, but nobody starts or stops any"
        yield down(text, agent.since or found.now, after)
    elif found.etcd:
        shown = found.etcd.hosts.get(me.host)
        is_double = ("duplicate-host", "") in found.open  # the agents tell
        if shown and (is_double or shown.machine_id != me.machine_id or shown.boot_id == me.boot_id):
            return
        what = "is of another boot" if shown else "is not there"
        text = f"uncloud-host.service is {agent.active}, but out of step: its key in etcd {what}"
        yield down(text, found.now, LATE)


def _programs(found: Found) -> Iterator[Finding]:
    by_unit = {name(uuid): uuid for uuid in found.units}
    for one in found.programs:
        uuid = by_unit.get(one.unit)
        if uuid is not None and found.mains.get(uuid, one.pid) in (0, one.pid):
            continue  # 0: it is being stopped. Units that are not ours are findings themselves
        yield Finding(
            Code.FOREIGN, one.key, describe(one), one.since, SOON, name=one.name, event=Name.FOREIGN,
        )  # fmt: skip


def _units(found: Found) -> Iterator[Finding]:
    for unit in sorted(found.odd):
        text = f"{unit} is no unit of uncloud-host, and no VM's"
        yield Finding(Code.FOREIGN, unit, text, found.now, SOON, event=Name.FOREIGN)
    for uuid, observed in found.units.items():
        if observed.evidence is None and observed.state != State.ABSENT:
            runs = [describe(one) for one in found.programs if one.unit == name(uuid)]
            text = "; ".join([f"{name(uuid)} is no unit of uncloud-host", *runs])
            yield Finding(Code.FOREIGN, uuid, text, observed.since or found.now, SOON, event=Name.FOREIGN)


def _vm(found: Found, uuid: str, desired: Desired, claim: Claim | None) -> Iterator[Finding]:
    observed = found.units.get(uuid, _ABSENT)
    is_mine = claim is not None and claim.is_of(found.me)
    if (claim and is_mine and claim.held is not None) or (observed.state != State.ABSENT and not observed.evidence):
        return
    evidence, now = observed.evidence, found.now
    called = desired.name if isinstance(desired, VM) else evidence.name if evidence else uuid
    says = (action for action in plan(desired, observed, claim, found.me, now=now) if isinstance(action, Tell))
    tell = next((one for one in says if one.event in (Name.WRONG_HOST, Name.DUPLICATE_HOST)), None)
    asked = isinstance(desired, VM) and asks_to_run(desired, found.me)
    if tell:
        yield Finding(
            Code.WRONG_HOST, uuid, tell.reason, now, SOON, called, tell.event, tell.subject, observed.invocation
        )
    elif isinstance(desired, Gone) and observed.state in UP:
        text = f"{name(uuid)} runs without an entry in etcd"
        yield Finding(Code.FOREIGN, uuid, text, now, LATE, called, Name.FOREIGN, invocation=observed.invocation)
    elif isinstance(desired, VM) and asked and observed.state in (State.ABSENT, State.FAILED):
        if uuid not in found.stopped:
            yield _missing(found, desired, observed, claim if not is_mine else None, called)
    elif isinstance(desired, VM) and asked and evidence and observed.state in _AHEAD and _is_older(evidence, desired):
        text = "it runs with an older entry, until it is restarted (uncloud-host restart)"
        yield Finding(Code.STALE, uuid, text, observed.since, name=called)


def _is_older(evidence: Evidence, vm: VM) -> bool:
    return evidence.fingerprint != vm.entry.fingerprint()


def _missing(found: Found, vm: VM, observed: Observed, elsewhere: Claim | None, called: str) -> Finding:
    if elsewhere:
        # Longer than a guest has to power off on the old host.
        text, after = f"it {WAITS} {elsewhere.host or 'somebody unknown'}, which has its claim", SILENT
    else:
        said = vm.entry.status_reason if isinstance(vm.entry.status_reason, str) else ""
        text, after = f"it should run here and does not: {said or f'its unit is {observed.state}'}", LATE
    since = observed.since or found.now
    return Finding(Code.MISSING, vm.uuid, text, since, after, called, Name.MISSING, invocation=observed.invocation)


def _hosts(found: Found, etcd: Asked) -> Iterator[Finding]:
    """Of the living hosts the first by name reports; another one goes on with what it has told."""
    reports = is_first(found.me.host, etcd.hosts, etcd.audited)
    for host, named in etcd.named.items():
        finding = _host(found, etcd, host, named) if host != found.me.host else None
        if finding and (reports or finding.key in found.open):
            yield finding


def is_first(host: str, hosts: Collection[str], audited: Collection[str]) -> bool:
    """Tell whether it is this host's turn to report others: one that is not audited cannot."""
    return host in hosts and not any(other < host for other in hosts if other in audited)


def _host(found: Found, etcd: Asked, host: str, named: Named) -> Finding | None:
    shown = etcd.hosts.get(host)
    if shown is None and host not in etcd.audited and not named.claims and host not in etcd.logged:
        if not named.run:
            return None
        which = named.example + ", ..." * (named.run > 1)
        text = f"{host} has never been seen; {_count(named.run, 'VM')} should run there: {which}"
        return Finding(Code.UNKNOWN_HOST, host, text, found.now, LATE, event=Name.UNKNOWN_HOST)
    if not named.all and not named.claims:
        return None
    whose = f"{_count(named.all, 'entry', 'entries')} and {_count(named.claims, 'claim')} name it"
    if shown is None:
        text = f"{host} is silent: its agent does not show itself in etcd; {whose}"
        return Finding(Code.HOST_SILENT, host, text, found.now, SILENT, event=Name.HOST_SILENT)
    # Where our own is not there either, etcd has lost them all, or audits have just begun.
    if host not in etcd.audited and found.me.host in etcd.audited and found.now - shown.since > UNAUDITED:
        text = f"{host} has not been audited for 20 minutes; {whose}"
        return Finding(Code.HOST_SILENT, host, text, found.now, event=Name.HOST_SILENT)
    return None


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def over(kind: str, about: str, since: float, found: Found) -> str | None:
    """Say why a trouble that is no finding any more is over; None if that is not known, or is another's to tell."""
    if found.etcd is None and not about.startswith("pid-"):
        return None
    match kind:
        case "foreign":
            return "it is gone" if not is_uuid(about) else "it is gone, or has an entry"
        case "agent-down" if found.agent.active == "active":
            return "it works"
        case "host-silent":
            return "it shows itself, or nothing names it any more"
        case "unknown-host":
            return "it has been seen, or nothing should run there any more"
        case "down" | "wrong-host" | "duplicate-host" if found.etcd and is_uuid(about):
            desired, claim = found.etcd.vms.get(about, (Gone(about), None))
            if isinstance(desired, Gone):
                return None  # absence is weak: the agent knows whether it is to be believed
            observed = found.units.get(about, _ABSENT)
            return lasting.over(kind, since, desired, observed, claim, found.me, now=found.now)
    return None


def reminder(troubles: Sequence[tuple[str, str]], oldest: float, host: str, hours: int, now: float) -> Event | None:
    """Remind people of what lasts (about what, and why) at the first audit of each period; None before it has lasted
    for half of one.

    `hours`: how long a period is; 0 for never.
    """
    length = hours * 3600.0
    if not hours or not troubles or oldest > now - now % length - length / 2:
        return None
    told = "; ".join(f"{about}: {why}" if about else why for about, why in troubles)
    text = f"{_count(len(troubles), 'problem')}: {told}"
    period = f"{hours} h {now // length:.0f}"
    return Event("", Name.REMINDER, period, datetime.fromtimestamp(now, UTC), host, "", text)
