"""How long VMs ran: the record of a run, from its beginning to its end. Pure.

Times are whole milliseconds since 1970, so that sums are exact. What is not known is None and never 0.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from uncloud_host.endings import End
from uncloud_host.events import Event, stamp
from uncloud_host.facts import Me

KEPT = 13  # months
_KEY = "%Y%m%dT%H%M%SZ"  # sorts by time
LARGEST = 10**18  # of numbers in a record; others may have written them


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a VM; `stopped` is None while it goes on."""

    vm: str
    invocation: str
    key: str  # below /runtime/VM/; made at the beginning and never changed: systemd's times differ by milliseconds
    host: str
    name: str
    boot_id: str | None
    started: int
    stopped: int | None = None
    event: str | None = None  # how it ended
    reason: str | None = None
    exit: int | str | None = None  # QEMU's exit code, or the signal that it died of
    cpu_seconds: float | None = None
    memory_peak: int | None = None  # bytes, as the next two
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    vnc: str | None = None  # ADDRESS:PORT
    reboots: int | None = None  # of the guest, by itself
    estimated: bool = False  # nobody saw its end: `stopped` is the last moment at which this host is known to have run

    @property
    def path(self) -> str:
        """Its key below /runtime/."""
        return f"{self.vm}/{self.key}"

    @property
    def milliseconds(self) -> int | None:
        """How long it ran; None while it does."""
        return None if self.stopped is None else self.stopped - self.started

    def record(self) -> dict[str, object]:
        """Give the record as it is written to etcd."""
        seconds = None if self.milliseconds is None else self.milliseconds / 1000
        stopped = None if self.stopped is None else _stamp(self.stopped)
        told: dict[str, object] = {name: getattr(self, name) for name in ("vm", "host", "name", "invocation")}
        told |= {"boot_id": self.boot_id, "started": _stamp(self.started), "stopped": stopped, "seconds": seconds}
        return told | {name: getattr(self, name) for name in _REST}


_NUMBERS = ("memory_peak", "io_read_bytes", "io_write_bytes", "reboots")
_REST = (
    "event", "reason", "exit", "cpu_seconds", "memory_peak", "io_read_bytes", "io_write_bytes", "vnc", "reboots",
    "estimated",
)  # fmt: skip


def opened(vm: str, invocation: str, name: str, since: float, me: Me, vnc: str = "") -> Run:
    """Open the record of a run that began at `since`, in seconds since 1970; its screen is at `vnc`, if anywhere."""
    started = _milliseconds(since)
    start = datetime.fromtimestamp(started / 1000, UTC).strftime(_KEY)
    return Run(vm, invocation, f"{start}-{invocation}", me.host, name, me.boot_id, started, vnc=vnc or None)


def closed(run: Run, end: End, event: Event) -> Run:
    """Close the record. The end's own times count; a clock that was set back meanwhile makes no run end before it."""
    started = _milliseconds(end.started) if end.started else run.started
    usage = end.usage
    cpu = usage.get("CPUUsageNSec")
    return replace(
        run,
        boot_id=end.boot_id or run.boot_id,
        started=started,
        stopped=max(started, _milliseconds(end.ended)),
        event=str(event.event),
        reason=event.reason,
        exit=_exit(end),
        cpu_seconds=None if cpu is None else round(cpu / 1e9, 3),
        memory_peak=usage.get("MemoryPeak"),
        io_read_bytes=usage.get("IOReadBytes"),
        io_write_bytes=usage.get("IOWriteBytes"),
        reboots=end.reboots if usage else None,  # only the recorder counts them
        estimated=end.by == "host",
    )


def last_seen(awake: float, entry: float, booted: float) -> float:
    """Tell when a host that lost power went down, in seconds since 1970: by the agent's last sign of life and the
    journal's last entry, the later of them, and never after the next boot began."""
    return min(max(awake, entry), booted)


def cut_short(boot_id: str, runs: Sequence[Run], left: Sequence[End], last: float) -> list[End]:
    """End what ran in a boot that ended by a loss of power: its open runs, and what the journal says was `left`.

    Those whose end nobody saw ended at `last`, in seconds since 1970.
    """
    found = {end.invocation: end for end in left}
    for run in runs:
        end = found.get(run.invocation, End(run.vm, run.invocation, "host"))
        found[run.invocation] = replace(end, started=run.started / 1000)
    return [replace(end, ended=end.ended or last, boot_id=boot_id) for end in found.values()]


def read(path: str, text: str | bytes) -> Run:
    """Read a record, with its key below /runtime/. Raises ValueError."""
    vm, _, key = path.partition("/")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no object")
    texts = {
        name: _text(found.get(name)) for name in ("invocation", "host", "name", "boot_id", "event", "reason", "vnc")
    }
    numbers = {name: _whole(found.get(name)) for name in _NUMBERS}
    started, exit_ = _time(found.get("started")), found.get("exit")
    if started is None:
        raise ValueError("started: expected a time")
    return Run(
        vm=vm,
        invocation=texts["invocation"] or "",
        key=key,
        host=texts["host"] or "",
        name=texts["name"] or vm,
        boot_id=texts["boot_id"],
        started=started,
        stopped=_time(found.get("stopped")),
        event=texts["event"],
        reason=texts["reason"],
        exit=exit_ if isinstance(exit_, int | str) else None,
        cpu_seconds=_number(found.get("cpu_seconds")),
        memory_peak=numbers["memory_peak"],
        io_read_bytes=numbers["io_read_bytes"],
        io_write_bytes=numbers["io_write_bytes"],
        vnc=texts["vnc"],
        reboots=numbers["reboots"],
        estimated=found.get("estimated") is True,
    )


def may_write(run: Run, found: bytes | None) -> bool:
    """Tell whether this run is to be written where `found` is: a record is closed once, by the host that opened it."""
    if found is None:
        return True
    try:
        there = read(run.path, found)
    except (ValueError, RecursionError):
        return run.stopped is not None  # the invocation in its key is ours
    return run.stopped is not None and there.stopped is None and there.host == run.host


def too_old(now: datetime) -> int:
    """Give the time before which runs that ended are forgotten."""
    month = now.year * 12 + now.month - 1 - KEPT
    first = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return _milliseconds(first.timestamp())


def may_be_old(key: str, limit: int) -> bool:
    """Tell from its key alone whether a run may have ended before `limit`: not if it began later."""
    return key < datetime.fromtimestamp(limit / 1000, UTC).strftime(_KEY)


def is_old(path: str, value: bytes, host: str, limit: int) -> bool:
    """Tell whether this host may delete a record: its own, of a run that ended before `limit`."""
    try:
        run = read(path, value)
    except (ValueError, RecursionError):
        return False
    return run.host == host and run.stopped is not None and run.stopped < limit


def _exit(end: End) -> int | str | None:
    if end.exit_code in ("killed", "dumped"):
        return end.exit_status or None
    return int(end.exit_status) if end.exit_code == "exited" and end.exit_status.isdigit() else None


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _stamp(milliseconds: int) -> str:
    return stamp(datetime.fromtimestamp(milliseconds / 1000, UTC))


def _time(value: object) -> int | None:
    if value is None:
        return None
    time = datetime.fromisoformat(_text(value) or "")
    if time.tzinfo is None or not datetime(1970, 1, 1, tzinfo=UTC) <= time < datetime(9999, 1, 1, tzinfo=UTC):
        raise ValueError("expected a time in RFC 3339, since 1970")
    return _milliseconds(time.timestamp())


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("expected a text")
    return value


def _whole(value: object) -> int | None:
    found = _number(value)
    return None if found is None else int(found)


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise ValueError("expected a number")
    return value
