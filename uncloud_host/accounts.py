"""How long VMs ran within a period, as an accountant asks: clipped, summed, a line for each. Pure.

Times are whole milliseconds since 1970.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from uncloud_host.events import clean, stamp
from uncloud_host.runtime import Run
from uncloud_host.view import columns

Lines = list[dict[str, object]]
SECOND = 1000
VM_FIELDS = (
    "vm", "name", "hosts", "runs", "seconds", "cpu_seconds", "estimated", "last_end", "event", "reason",
)  # fmt: skip
RUN_FIELDS = (
    "vm", "host", "name", "invocation", "boot_id", "started", "stopped", "from", "to", "seconds", "event", "reason",
    "exit", "cpu_seconds", "memory_peak", "io_read_bytes", "io_write_bytes", "vnc", "reboots", "estimated",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` up to but not including `until`; None where it is open."""

    since: int | None = None
    until: int | None = None

    def clip(self, run: Run, now: int) -> tuple[int, int] | None:
        """Give what of a run lies within, up to now if it goes on; None if that is nothing."""
        stopped = max(run.started, now) if run.stopped is None else run.stopped
        since = run.started if self.since is None else max(run.started, self.since)
        until = stopped if self.until is None else min(stopped, self.until)
        # A run of no length is in the period in which it was.
        is_within = since < until or (since == until == run.started and (self.until is None or until < self.until))
        return (since, until) if is_within else None

    def has_end(self, run: Run) -> bool:
        """Tell whether a run ended within: at midnight is still in the month in which it ran."""
        if run.stopped is None or (self.until is not None and run.stopped > self.until):
            return False
        return self.since is None or run.stopped > self.since or run.started >= self.since


def month(text: str) -> Period:
    """Read a month of UTC, as in 2026-11. Raises ValueError."""
    first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    if first.strftime("%Y-%m") != text:
        raise ValueError
    return Period(_milliseconds(first), _milliseconds(_next(first)))


def this_month(now: datetime) -> Period:
    """Give the month of UTC that it is."""
    return month(now.astimezone(UTC).strftime("%Y-%m"))


def moment(text: str) -> int:
    """Read a date (its beginning in UTC) or a time in RFC 3339. Raises ValueError."""
    if len(text) == len("2026-11-25"):
        day = date.fromisoformat(text)
        return _milliseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError
    return _milliseconds(time)


def runs(found: Iterable[Run], period: Period, now: int) -> Lines:
    """Give a line for each run within a period, in the order of their beginnings."""
    return [
        run.record() | {"from": _stamp(part[0]), "to": _stamp(part[1]), "seconds": _seconds(part)}
        for run in sorted(found, key=_order)
        if (part := period.clip(run, now))
    ]


def vms(found: Iterable[Run], period: Period, now: int) -> Lines:
    """Give a line for each VM that ran within a period, by name."""
    by_vm: dict[str, list[Run]] = {}
    for run in sorted(found, key=_order):
        if period.clip(run, now):
            by_vm.setdefault(run.vm, []).append(run)
    lines = [_vm(of_one, period, now) for of_one in by_vm.values()]
    return sorted(lines, key=lambda line: (str(line["name"]), str(line["vm"])))


def settled(found: Iterable[Run]) -> Iterator[Run]:
    """End runs that no host will ever close: the next run of that VM has begun, and no VM runs twice."""
    ordered = sorted(found, key=lambda run: (run.vm, *_order(run)))
    for run, after in zip(ordered, [*ordered[1:], None], strict=True):
        if after and run.vm == after.vm and run.stopped is None:
            reason = f"not known; it ran again on {after.host} then"
            yield replace(run, stopped=after.started, reason=reason, estimated=True)
        else:
            yield run


def _vm(found: Sequence[Run], period: Period, now: int) -> dict[str, object]:
    parts = [part for run in found if (part := period.clip(run, now))]
    ended = [run for run in found if period.has_end(run)]
    last = max(ended, key=lambda run: run.stopped or 0, default=None)
    cpu = [run.cpu_seconds for run in ended if run.cpu_seconds is not None]
    return {
        "vm": found[-1].vm,
        "name": found[-1].name,
        "hosts": list(dict.fromkeys(run.host for run in found)),
        "runs": len(found),
        "seconds": sum(until - since for since, until in parts) / SECOND,
        "cpu_seconds": round(sum(cpu), 3) if cpu else None,
        "estimated": sum(run.estimated for run in ended),
        "last_end": _stamp(last.stopped) if last and last.stopped is not None else None,
        "event": last.event if last else None,
        "reason": last.reason if last else None,
    }


def table(lines: Lines, *, of_runs: bool, hosts: bool) -> str:
    """Lay out lines for people."""
    head = _RUN if of_runs else _VM
    shown = {title: field for title, field in head.items() if hosts or not title.startswith("HOST")}
    return columns([list(shown), *([_cell(line, field) for field in shown.values()] for line in lines)])


_RUN = {
    "STARTED": "started", "STOPPED": "stopped", "HOST": "host", "SECONDS": "seconds", "TIME": "time",
    "CPU-SECONDS": "cpu_seconds", "EVENT": "event", "REASON": "reason",
}  # fmt: skip
_VM = {
    "UUID": "vm", "NAME": "name", "HOSTS": "hosts", "RUNS": "runs", "SECONDS": "seconds", "TIME": "time",
    "CPU-SECONDS": "cpu_seconds", "LAST-END": "last_end", "REASON": "reason",
}  # fmt: skip


def _cell(line: dict[str, object], field: str) -> str:
    value = line.get(field)
    match field:
        case "time":
            return _clock(line["seconds"])
        case "seconds" | "cpu_seconds" if isinstance(value, float | int):
            return f"{value:.3f}"
        case "hosts" if isinstance(value, list):
            return ",".join(value)
        case "stopped" if value is None:
            return "runs on"
        case "reason" if line.get("estimated"):
            return f"{value or ''} (estimated)".lstrip()
    return "-" if value is None else str(value)


def _clock(seconds: object) -> str:
    whole = int(seconds) if isinstance(seconds, int | float) else 0
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def as_csv(lines: Lines, *, of_runs: bool) -> str:
    """Write lines for accounting programs, as in RFC 4180; what is not known is empty."""
    names = RUN_FIELDS if of_runs else VM_FIELDS
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for line in lines:
        writer.writerow([_plain(line[name]) for name in names])
    return text.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return clean(value) if isinstance(value, str) else value


def _order(run: Run) -> tuple[int, str]:
    return run.started, run.key


def _seconds(part: tuple[int, int]) -> float:
    return (part[1] - part[0]) / SECOND


def _next(first: datetime) -> datetime:
    """Give the first day of the next month."""
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * SECOND)


def _stamp(milliseconds: int) -> str:
    return stamp(datetime.fromtimestamp(milliseconds / SECOND, UTC))
