"""The metrics: their names, what they mean, and their values as things stand. Pure.

The names are an interface, described in uncloud-host(8).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from uncloud_host.counts import Counts, Histogram
from uncloud_host.events import LASTING, Name, clean
from uncloud_host.facts import Observed
from uncloud_host.unit import State

AUDITED = (
    Name.MISSING, Name.FOREIGN, Name.WRONG_HOST, Name.UNKNOWN_HOST, Name.HOST_SILENT, Name.AGENT_DOWN,
)  # fmt: skip
STATES = (*(state for state in State if state != State.ABSENT), "foreign")

Sample = tuple[Mapping[str, str], float | Histogram]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a VM has used in its present run. None: this kernel does not count it, or the unit has just ended."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `kind` in Prometheus' words; a counter's name is without _total."""

    name: str
    kind: str
    means: str
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Seen:
    """How things stand at one moment."""

    counts: Counts
    units: Mapping[str, Observed]
    usage: Mapping[str, Usage]  # of those units that run
    etcd_connected: bool
    etcd_reconnects: int
    bus_reconnects: int
    waiting: Mapping[str, int]  # events, by channel
    failures: Mapping[str, int]  # by channel
    troubles: Sequence[tuple[str, str]] = field(default=())  # kind and name of the event that began it


def families(seen: Seen) -> Iterator[Family]:
    """Give all metrics."""
    yield from _of_vms(seen)
    yield from _of_each_vm(seen)
    yield from _of_the_agent(seen)


def _of_vms(seen: Seen) -> Iterator[Family]:
    states = Counter("foreign" if unit.evidence is None else str(unit.state) for unit in seen.units.values())
    by_state = [({"state": str(state)}, float(states[str(state)])) for state in STATES]
    yield Family("uncloud_vms", "gauge", "VMs with a unit on this host, by what the unit is doing.", by_state)
    counts = seen.counts
    yield _one("uncloud_starts", "counter", "Starts of VMs by the agent or by hand.", counts.starts)
    yield _one("uncloud_restarts", "counter", "Restarts of VMs by systemd, after an end.", counts.restarts)
    ends = [({"event": str(event)}, float(count)) for event, count in counts.ends.items()]
    yield Family("uncloud_ends", "counter", "Ends of VMs, and starts that failed, by event.", ends)
    yield _one(
        "uncloud_put_to_start_seconds",
        "histogram",
        "From when the agent hears of an entry that asks for a start until systemd says that its unit is active.",
        counts.put_to_start,
    )
    steps = [({"step": str(step)}, histogram) for step, histogram in counts.steps.items()]
    means = "The steps of such a start, each from the one before; decided: from when the agent hears of the entry."
    yield Family("uncloud_start_step_seconds", "histogram", means, steps)


def _of_each_vm(seen: Seen) -> Iterator[Family]:
    ours = sorted((uuid, unit) for uuid, unit in seen.units.items() if unit.evidence)
    labels = {uuid: {"uuid": uuid, "name": clean(unit.evidence.name)} for uuid, unit in ours if unit.evidence}
    yield Family(
        "uncloud_vm_info", "gauge", "1 for each VM with a unit on this host.", [(v, 1.0) for v in labels.values()]
    )
    since = [(labels[uuid], unit.since) for uuid, unit in ours if unit.state == State.RUNNING]
    means = "When the present run of a VM began, in seconds since 1970."
    yield Family("uncloud_vm_start_time_seconds", "gauge", means, since)
    for name, kind, means, attribute in (
        ("uncloud_vm_cpu_seconds", "counter", "CPU time of a VM in its present run.", "cpu_seconds"),
        ("uncloud_vm_memory_bytes", "gauge", "Memory of a VM with all that QEMU needs.", "memory_bytes"),
        ("uncloud_vm_io_read_bytes", "counter", "Read from block devices in the present run.", "read_bytes"),
        ("uncloud_vm_io_written_bytes", "counter", "Written to block devices in the present run.", "written_bytes"),
    ):
        found = [(uuid, getattr(usage, attribute)) for uuid, usage in seen.usage.items() if uuid in labels]
        known = [(labels[uuid], float(value)) for uuid, value in found if value is not None]
        if known:
            yield Family(name, kind, means, known)


def _of_the_agent(seen: Seen) -> Iterator[Family]:
    yield _one("uncloud_pass_seconds", "histogram", "Passes of the agent that were finished.", seen.counts.passes)
    yield _one("uncloud_etcd_connected", "gauge", "1 while the agent is in step with etcd.", seen.etcd_connected)
    yield _one("uncloud_etcd_reconnects", "counter", "How often etcd was lost and came back.", seen.etcd_reconnects)
    yield _one("uncloud_dbus_reconnects", "counter", "How often D-Bus was lost and came back.", seen.bus_reconnects)
    for channel, means in (
        ("mail", "Events that wait to be mailed."),
        ("log", "Events that wait to be written to etcd."),
    ):
        yield _one(f"uncloud_{channel}_waiting", "gauge", means, seen.waiting[channel])
    for channel, means in (
        ("mail", "Attempts to send mails that failed."),
        ("log", "Attempts to write to /v1/log that failed."),
    ):
        yield _one(f"uncloud_{channel}_failures", "counter", means, seen.failures[channel])
    kinds, codes = Counter(kind for kind, _ in seen.troubles), Counter(event for _, event in seen.troubles)
    open_ = [({"kind": clean(kind)}, float(kinds[kind])) for kind in sorted({*LASTING.values(), *kinds})]
    yield Family("uncloud_troubles", "gauge", "What is wrong on this host and lasts, by kind.", open_)
    found = [({"code": str(code)}, float(codes[code])) for code in AUDITED]
    yield Family("uncloud_audit_findings", "gauge", "What the audit has found and still is so, by code.", found)


def _one(name: str, kind: str, means: str, value: float | Histogram) -> Family:
    return Family(name, kind, means, [({}, value)])
