"""What a mail says: a subject for a phone at night, then what happened, how it stands, and what to type. Pure."""

import email.policy
import email.utils
import hashlib
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.message import EmailMessage

from uncloud_host import shown
from uncloud_host.events import LASTING, Event, Name
from uncloud_host.letters import ENDS
from uncloud_host.models import is_uuid
from uncloud_host.shown import Shown

EVENTS = "X-Uncloud-Events"  # the header that names the ids of all events in a mail
UNFOLDED = 300  # characters: a subject is one line, also for those who read mails as files
SUBJECT, NAME = 160, 60  # characters at most
WIDE = 100
LISTED = 300  # events
_BEGINS = frozenset({Name.STARTED, Name.RESTARTED})
_ASKED = {
    "agent": "uncloud-host, by what etcd asks",
    "operator": "somebody on this host, by systemctl stop",
    "many": "somebody on this host, by systemctl stop of many VMs",
    "restart": "somebody on this host, by systemctl restart",
    "shutdown": "the shutdown of this host",
    "host": "this host, which went down",
}
_ENDED = {
    Name.KILLED: "somebody or something else on this host, by a signal",
    Name.OOM_KILLED: "the kernel, or systemd-oomd",
    Name.CRASHED: "QEMU itself",
    Name.PANICKED: "the guest",
    Name.POWERED_OFF: "the guest",
    Name.COULD_NOT_START: "nobody",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """How things stand while a mail is written."""

    at: float  # seconds since 1970
    units: Mapping[str, Shown]  # by VM
    console: Sequence[str] = ()  # last lines before the end, if the mail is about one VM


def message(events: Sequence[Event], scene: Scene, sender: str, to: Sequence[str]) -> EmailMessage:
    """Write the mail about events, oldest first.

    The Message-ID follows from the events, so that a second delivery can be told; mails about a VM are a thread.
    """
    domain = sender.rpartition("@")[2]
    vms = list(dict.fromkeys(event.vm for event in events))
    mail = EmailMessage(policy=email.policy.SMTP.clone(max_line_length=UNFOLDED))
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Subject"] = subject(events, scene)
    mail["Date"] = email.utils.format_datetime(max(event.time for event in events))
    mail["Message-ID"] = f"<{identity([event.id for event in events])}@{domain}>"
    if len(vms) == 1 and is_uuid(vms[0]):
        mail["In-Reply-To"] = mail["References"] = f"<vm-{vms[0]}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail[EVENTS] = " ".join(event.id for event in events)
    text = _about_one(events, scene) if len(vms) == 1 else _about_many(events, vms, scene)
    mail.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    return mail


def identity(ids: Sequence[str]) -> str:
    """Name a mail after its events: one like the event, several by a hash."""
    return ids[0] if len(ids) == 1 else hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:24]


def subject(events: Sequence[Event], scene: Scene) -> str:
    """Say in one line which VM, what, whether it is back, and why."""
    vms = {event.vm for event in events}
    first = events[0]
    if len(vms) == 1:
        text = _headline(events, scene)
    elif all(event.event == Name.HELD for event in events):
        text = f"{len(vms)} VMs are held: {first.reason}"
    else:
        text = _tally(events, scene)
    # A name that looks like an encoded word (RFC 2047) would be decoded by whoever reads the header.
    line = " ".join(f"[{first.host}] {text}".replace("=?", "= ?").split())
    return line if len(line) <= SUBJECT else f"{line[: SUBJECT - 3]}..."


def chief(events: Sequence[Event]) -> Event:
    """Choose what matters most, and of that the last."""

    def rank(event: Event) -> int:
        name = event.event
        if name == Name.COULD_NOT_START:
            return 3
        order = (name == Name.GAVE_UP, name in LASTING, name == Name.RESOLVED, name in ENDS, name not in _BEGINS, True)
        return order.index(True)

    best = min(map(rank, events))
    return [event for event in events if rank(event) == best][-1]


def _headline(events: Sequence[Event], scene: Scene) -> str:
    event = chief(events)
    name = (event.name if len(event.name) <= NAME else f"{event.name[:NAME]}...") if event.vm else ""
    ends = [each for each in events if each.event in ENDS]
    if event.event in ENDS and len(ends) > 2:  # noqa: PLR2004 - two are told as they were
        took = max(each.time for each in ends) - min(each.time for each in ends)
        what = f"ended {len(ends)} times in {shown.span(max(1.0, took.total_seconds()))}"
    elif event.event == Name.RESTARTED:
        what = "runs again"
    else:
        what = event.phrase
    return f"{name} {what}{_is_back(events, event, scene)}: {event.reason}"


def _is_back(events: Sequence[Event], event: Event, scene: Scene) -> str:
    """Say after an end how it stands now."""
    if event.event not in ENDS:
        return ""
    state = shown.short(scene.units.get(event.vm))
    if not state and events[-1].event in _BEGINS:
        state = "runs again"
    is_said = event.event in (Name.COULD_NOT_START, Name.POWERED_OFF) and state in ("is down", "is off")
    return f", {state}" if state and not is_said else ""


def _tally(events: Sequence[Event], scene: Scene) -> str:
    """Count VMs by what happened to them, the worst first."""
    by_vm = _by_vm(events)
    chiefs = {vm: chief(told) for vm, told in by_vm.items()}
    kinds = Counter(event.event for event in chiefs.values() if event.vm)
    order = list(dict.fromkeys(event.event for event in sorted(chiefs.values(), key=_badness)))
    count = sum(kinds.values())
    if len(kinds) == 1:
        text = f"{count} VMs {next(iter(kinds))}"
    else:
        text = f"{count} VMs: " + ", ".join(f"{kinds[kind]} {kind}" for kind in order if kinds[kind])
    ended = [vm for vm, told in by_vm.items() if any(each.event in ENDS for each in told)]
    back = sum(_is_back(by_vm[vm], _last_end(by_vm[vm]), scene) == ", runs again" for vm in ended)
    host = [event.phrase for event in chiefs.values() if not event.vm]
    return ", ".join(filter(None, [*host, text, f"{back} run again" if ended else ""]))


def _last_end(events: Sequence[Event]) -> Event:
    return [event for event in events if event.event in ENDS][-1]


def _badness(event: Event) -> tuple[bool, bool]:
    return (event.event != Name.GAVE_UP, not event.is_failure)


def _by_vm(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.vm, []).append(event)
    return found


def _about_one(events: Sequence[Event], scene: Scene) -> str:
    event = chief(events)
    ends = [each for each in events if each.event in ENDS]
    stands = shown.now(scene.units.get(event.vm), scene.at) if event.vm else ""
    facts = [
        ("VM", f"{event.name} ({event.vm})" if event.name != event.vm else event.vm) if event.vm else ("", ""),
        ("Host", event.host),
        ("Event", event.event),
        ("When", shown.clock(event.time.timestamp())),
        ("Reason", event.reason),
        *_trail(event if event.trail or not ends else ends[-1]),
        ("Now", stands),
    ]
    parts = ["\n".join(textwrap.wrap(f"{_sentence(event)}.", WIDE)), "\n".join(_aligned(facts))]
    if len(events) > 1:
        parts.append("What happened, in UTC:\n" + "\n".join(_listed(events)))
    if scene.console:
        words = "\n".join(f"  | {line}" for line in scene.console)
        parts.append(f"The last lines of its console, which are the guest's own words:\n{words}")
    return "\n\n".join([*parts, _further(event, events)])


def _sentence(event: Event) -> str:
    return f"VM {event.name} on {event.host} {event.phrase}: {event.reason}" if event.vm else event.sentence


def _trail(event: Event) -> Iterator[tuple[str, str]]:
    """Say in words what is known of an end, or of what is over."""
    trail = event.trail
    by, exit_ = trail.get("by", ""), trail.get("exit", "")
    code, _, status = exit_.partition(" ")
    facts = {
        "Asked by": _ASKED.get(by, ""),
        "Ended by": _ENDED.get(event.event, "") if by == "itself" else "",
        "QEMU": (f"exited with {status}" if code == "exited" else f"died of signal {status}") if status else "",
        "QEMU said": trail.get("qemu", ""),
        "systemd": f"Result={trail['result']}" if "result" in trail else "",
        "Had run": f"for {shown.span(float(trail['seconds']))}" if "seconds" in trail else "",
        "Restarts": f"{trail['restarts']} before this end" if "restarts" in trail else "",
        "Reboots": f"{trail['reboots']}, by the guest itself" if "reboots" in trail else "",
        "Was": trail.get("was", ""),
        "Since": trail.get("since", ""),
    }
    yield from facts.items()


def _about_many(events: Sequence[Event], vms: Sequence[str], scene: Scene) -> str:
    first = events[0]
    by_vm = _by_vm(events)
    parts = [f"On {first.host}: {_tally(events, scene)}."]
    if all(event.event == Name.HELD for event in events):
        parts = ["\n".join(textwrap.wrap(f"{len(vms)} VMs of {first.host} are held: {first.reason}.", WIDE))]
    left = LISTED
    for vm in vms:
        told = by_vm[vm]
        name = told[-1].name
        head = f"host {first.host}" if not vm else f"{name} ({vm})" if name != vm else vm
        stands = shown.now(scene.units.get(vm), scene.at) if vm else ""
        lines = _listed(told[: max(0, left)])
        left -= len(told)
        parts.append("\n".join([head, *lines, *([f"  now       {stands}"] if stands else [])]))
    return "\n\n".join([*parts, _further(chief(events), events)])


def _listed(events: Sequence[Event]) -> list[str]:
    lines = []
    for event in events[:LISTED]:
        clock = f"{event.time.astimezone(UTC):%H:%M:%S}"
        lines += textwrap.wrap(
            f"{clock}  {event.event}: {event.reason}", WIDE, initial_indent="  ", subsequent_indent=" " * 12
        )
    return lines + ([f"  and {len(events) - LISTED} more"] if len(events) > LISTED else [])


def _aligned(facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    for key, value in facts:
        if value:
            label = f"{key}:"
            yield from textwrap.wrap(f"{label:<11}{value}", WIDE, subsequent_indent=" " * 11)


def _further(event: Event, events: Sequence[Event]) -> str:
    """Give the commands to type next."""
    since = shown.clock(max(0.0, min(each.time for each in events).timestamp() - 60))
    is_one = len({each.vm for each in events}) == 1
    if not is_one:
        commands = ["uncloud-host ls", f"journalctl -u 'vm-*' --since '{since}'"]
    elif not is_uuid(event.vm):
        commands = ["uncloud-host ls", f"journalctl -u uncloud-host --since '{since}'"]
    else:
        name = f"vm-{event.vm}"
        commands = [
            f"systemctl status {name}",
            f"journalctl -u {name} --since '{since}'",
            f"uncloud-host show {event.vm}",
        ]
    match event.event:
        case Name.HELD:
            which = event.vm if is_one else "--all"
            commands.append(f"uncloud-host confirm {which}     (if that was meant; else put back what is gone)")
        case Name.GAVE_UP | Name.COULD_NOT_START if is_one:
            commands.append(f"uncloud-host start {event.vm}    (when it is mended)")
    return f"To look further, on {event.host}:\n" + "".join(f"  {command}\n" for command in commands)
