"""What people are shown of VMs: rows, details, and what a pass would do; as tables and for JSON. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from uncloud_host import names, unit
from uncloud_host.actions import Action, SetStatus, Tell
from uncloud_host.events import clean, stamp
from uncloud_host.facts import Claim, Desired, Gone, Invalid, Me, Observed
from uncloud_host.models import VM, Status
from uncloud_host.reconcile import RETRIES
from uncloud_host.reconcile import plan as planned
from uncloud_host.unit import State

HEAD = ("UUID", "NAME", "ASKED", "UNIT", "SINCE", "CLAIM", "VNC", "NOTE")
_OLD = (State.STARTING, State.RUNNING, State.RESTARTING)  # states in which a unit goes on with what it was started with
_SCREEN = (State.STARTING, State.RUNNING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class Seen:
    """One VM as it was found."""

    desired: Desired
    written: Mapping[str, object]  # the entry's fields as they stand, as far as they can be read
    observed: Observed
    claim: Claim | None
    trouble: str = ""  # with its disks; the others are seen anyway

    @property
    def uuid(self) -> str:
        """Which VM it is."""
        return self.desired.uuid

    @property
    def host(self) -> str:
        """The host that the entry names, else the one that it was started as."""
        return self.word("host") or (self.observed.evidence.host if self.observed.evidence else "")

    @property
    def name(self) -> str:
        """What people call it, also when its entry is invalid or gone."""
        return self.word("name") or (self.observed.evidence.name if self.observed.evidence else "") or self.uuid

    def word(self, field: str) -> str:
        """A field of the entry; empty if it is no text."""
        value = self.written.get(field)
        return value if isinstance(value, str) else ""

    def concerns(self, me: Me) -> bool:
        """Tell whether this machine has anything to do with it."""
        return self.host == me.host or self.observed.state != State.ABSENT or self.is_claimed_by(me)

    def is_claimed_by(self, me: Me) -> bool:
        """Tell whether the claim is this machine's."""
        return self.claim is not None and self.claim.is_of(me)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `ls`."""

    uuid: str
    name: str
    host: str
    asked: str | None
    unit: str | None  # None: it is another host's
    since: str | None
    claim: str | None
    claim_is_ours: bool
    vnc: str
    note: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a pass would do, in words."""

    action: str
    reason: str

    def __str__(self) -> str:
        return clean(f"{self.action}: {self.reason}")


def row(seen: Seen, me: Me) -> Row:
    """Say in a line how a VM stands."""
    is_here = seen.concerns(me)
    since = stamp(datetime.fromtimestamp(seen.observed.since, UTC)) if seen.observed.since else None
    asked, claim = seen.word("status") or None, seen.claim.host or "?" if seen.claim else None
    state, is_ours = state_word(seen.observed) if is_here else None, seen.is_claimed_by(me)
    return Row(
        seen.uuid, seen.name, seen.host, asked, state, since, claim, is_ours, _vnc(seen), "; ".join(_notes(seen, me))
    )


def state_word(observed: Observed) -> str:
    """Our word for the unit's state."""
    return "foreign" if observed.state != State.ABSENT and observed.evidence is None else str(observed.state)


def _vnc(seen: Seen) -> str:
    return next(iter(screens(seen)), "")


def screens(seen: Seen, *, has_socket: bool | None = None) -> list[str]:
    """Say where the screen of a VM is: the tcp address, the unix socket. `has_socket`: if that has been looked for."""
    evidence, desired = seen.observed.evidence, seen.desired
    if evidence is None or seen.observed.state not in _SCREEN:
        return []
    if has_socket is None:  # without a valid entry nobody knows; the socket is the default
        has_socket = desired.entry.vnc.unix if isinstance(desired, VM) else True
    return [evidence.vnc] * bool(evidence.vnc) + [f"{names.runtime_directory(seen.uuid)}/vnc.sock"] * has_socket


def _notes(seen: Seen, me: Me) -> Iterator[str]:
    desired, evidence = seen.desired, seen.observed.evidence
    if seen.claim and seen.claim.held:
        yield f"held: {seen.claim.why}" if seen.claim.why else "held"
    if isinstance(desired, Gone):
        yield "no entry"
    if seen.trouble:
        yield seen.trouble
    if evidence and evidence.host != me.host:
        yield f"started as {evidence.host}'s"
    elif seen.host not in (me.host, "") and seen.concerns(me):
        yield f"its host is {seen.host}"
    if isinstance(desired, VM) and evidence and seen.observed.state in _OLD:
        yield from ["pending"] * (evidence.fingerprint != desired.entry.fingerprint())
    if reason := desired.reason if isinstance(desired, Invalid) else seen.word("status_reason"):
        yield reason


def steps(seen: Seen, me: Me, *, now: float) -> list[Step]:
    """Say what a pass would do about a VM now."""
    if isinstance(seen.desired, Invalid) and not seen.concerns(me):
        return []  # it is told by another host
    found = [_step(action) for action in _plan(seen, me, now=now, retry=False)]
    if not found and _plan(seen, me, now=now, retry=True):
        minutes = ", ".join(str(seconds // 60) for seconds in RETRIES)
        return [Step("wait", f"its status is FAILED; tried again after {minutes} minutes, at once with TO_START")]
    return found


def _plan(seen: Seen, me: Me, *, now: float, retry: bool) -> Sequence[Action]:
    return planned(seen.desired, seen.observed, seen.claim, me, now=now, retry=retry)


def _step(action: Action) -> Step:
    verb = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(action).__name__).lower()
    match action:
        case SetStatus(status=None):
            verb = "set-status-reason"
        case SetStatus(_, Status() as status):
            verb = f"{verb} {status}"
        case Tell(event):
            verb = f"{verb} {event}"
    return Step(verb, action.reason)


def record(seen: Seen, me: Me, plan: Sequence[Step]) -> dict[str, object]:
    """Say everything about one VM."""
    observed = seen.observed
    return asdict(row(seen, me)) | {
        "entry": _entry(seen.desired) if isinstance(seen.desired, VM) else dict(seen.written),
        "revision": None if isinstance(seen.desired, Gone) else seen.desired.mod_revision,
        "unit_name": unit.name(seen.uuid),
        "invocation": observed.invocation or None,
        "restarts": observed.restarts,
        "evidence": asdict(observed.evidence) if observed.evidence else None,
        "claim_record": asdict(seen.claim) if seen.claim else None,
        "screens": screens(seen),
        "console": f"{names.runtime_directory(seen.uuid)}/console.sock" if observed.state in _SCREEN else None,
        "plan": [asdict(step) for step in plan],
    }


def _entry(vm: VM) -> dict[str, object]:
    told: dict[str, object] = vm.entry.model_dump(mode="json")
    nics = [nic.model_dump() | {"mac": nic.mac or names.mac(vm.uuid, n)} for n, nic in enumerate(vm.entry.nics)]
    return told | {"nics": nics}


def flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Write a record as fields with paths, as people and jq write them."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from flat(part, f"{path}[{index}]")
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        yield path, "-" if value in (None, "", [], {}) else text


def table(rows: Sequence[Row], *, now: float, hosts: bool) -> str:
    """Lay out rows in columns, with the host's only where there are several."""
    lines = [HEAD, *(_cells(one, now) for one in rows)]
    if hosts:
        lines = [
            (*line[:2], host, *line[2:]) for line, host in zip(lines, ["HOST", *(r.host for r in rows)], strict=True)
        ]
    return columns(lines)


def _cells(one: Row, now: float) -> tuple[str, ...]:
    claim = f"{one.claim}!" if one.claim and one.unit and not one.claim_is_ours else one.claim
    since = short(now - datetime.fromisoformat(one.since).timestamp()) if one.since else None
    return (one.uuid, one.name, one.asked or "-", one.unit or "-", since or "-", claim or "-", one.vnc or "-", one.note)


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Align cells, each fit for a terminal."""
    shown = [[clean(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in shown]
    return "".join(f"{line.rstrip()}\n" for line in padded)


def short(seconds: float) -> str:
    """Write a duration in one number."""
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{letter}"
    return f"{max(0, seconds):.0f}s"


def matching(word: str, names: Mapping[str, str]) -> list[str]:
    """Find which VMs (uuid: name) a word may mean: a uuid, else a name, else the beginning of a uuid.

    In this order: among thousands of uuids, one begins with any short name like `db`.
    """
    if word in names:
        return [word]
    named = sorted(uuid for uuid, name in names.items() if word and name == word)
    return named or sorted(uuid for uuid in names if word and uuid.startswith(word.lower()))
