"""What the agent counts for those who watch it: plain numbers, changed by the thread that decides. Pure."""

from bisect import bisect_left
from collections.abc import Container
from dataclasses import dataclass, field
from enum import StrEnum

from uncloud_host.events import ENDS, Event, Name
from uncloud_host.models import Status

_STEPS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ASKS = (None, Status.TO_START, Status.TO_RESTART)  # a put with one of these asks for a start


class Step(StrEnum):
    """What a start consists of, in this order."""

    DECIDED = "decided"  # since the agent heard of the entry
    CLAIMED = "claimed"  # its claim is in etcd
    ASKED = "asked"  # Ceph has been asked, files have been made, systemd has taken the unit
    EXECUTING = "executing"  # systemd says that QEMU is
    WRITTEN = "written"  # the entry says RUNNING


@dataclass(slots=True)
class _Start:
    revision: int  # of the entry that asks for it, perhaps
    heard: float
    last: float  # when the last step was done
    is_one: bool = False
    is_asked: bool = False


@dataclass(slots=True)
class Histogram:
    """How often something took how many seconds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)  # up to each bound, and above the last
    total: float = 0.0

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counts:
    """Since the agent's start. Another thread may read them at any time."""

    starts: int = 0
    restarts: int = 0
    ends: dict[Name, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    passes: Histogram = field(
        default_factory=lambda: Histogram(
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
        )
    )
    put_to_start: Histogram = field(
        default_factory=lambda: Histogram((0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0))
    )
    steps: dict[Step, Histogram] = field(default_factory=lambda: {step: Histogram(_STEPS) for step in Step})
    _starts: dict[str, _Start] = field(default_factory=dict)  # by VM

    def told(self, event: Event) -> None:
        """Count what has just been told, the first time that somebody told it."""
        self.starts += event.event == Name.STARTED
        self.restarts += event.event == Name.RESTARTED
        if event.event in self.ends:
            self.ends[event.event] += 1

    def heard(self, uuid: str, revision: int, now: float) -> None:
        """Remember when an entry of this host was heard of. `now` in seconds since 1970, as below."""
        self._starts[uuid] = _Start(revision, now, now)

    def decided(self, uuid: str, revision: int, status: Status | None, now: float) -> None:
        """Hear that a start begins, perhaps because of the entry of this revision."""
        if (start := self._starts.get(uuid)) and start.revision == revision and status in _ASKS:
            start.is_one = True
            self.step(uuid, Step.DECIDED, now)

    def step(self, uuid: str, step: Step, now: float) -> None:
        """Hear that a step of a start is done."""
        if (start := self._starts.get(uuid)) and start.is_one:
            self.steps[step].observe(max(0.0, now - start.last))
            start.last, start.is_asked = now, step == Step.ASKED
            start.is_one = step != Step.WRITTEN

    def began(self, uuid: str, since: float) -> None:
        """Hear since when a unit is active."""
        if (start := self._starts.get(uuid)) and start.is_asked:
            self.put_to_start.observe(max(0.0, since - start.heard))
            self.step(uuid, Step.EXECUTING, since)

    def forget(self, others_than: Container[str]) -> None:
        """Forget VMs that are gone."""
        self._starts = {uuid: start for uuid, start in self._starts.items() if uuid in others_than}
