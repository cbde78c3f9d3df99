"""What the agent counts for those who watch it: plain numbers, changed by the thread that decides. Pure."""

from bisect import bisect_left
from collections.abc import Container
from dataclasses import dataclass, field

from uncloud_host.events import Event, Name
from uncloud_host.models import Status

ENDS = (
    Name.STOPPED, Name.STOPPED_BY_HAND, Name.POWERED_OFF, Name.PANICKED, Name.CRASHED, Name.KILLED, Name.OOM_KILLED,
    Name.COULD_NOT_START, Name.MOVED,
)  # fmt: skip
_ASKS = (None, Status.TO_START, Status.TO_RESTART)  # a put with one of these asks for a start


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
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)  # by VM: mod_revision of its entry, when
    _asked: dict[str, float] = field(default_factory=dict)  # by VM that is being started: when that was heard

    def told(self, event: Event) -> None:
        """Count what has just been told, the first time that somebody told it."""
        self.starts += event.event == Name.STARTED
        self.restarts += event.event == Name.RESTARTED
        if event.event in self.ends:
            self.ends[event.event] += 1

    def heard(self, uuid: str, revision: int, now: float) -> None:
        """Remember when an entry of this host was heard of. `now` in seconds since 1970, as below."""
        self._heard[uuid] = (revision, now)

    def starting(self, uuid: str, revision: int, status: Status | None) -> None:
        """Hear that a unit is started, because of the entry of this revision."""
        known, at = self._heard.get(uuid, (0, 0.0))
        if known == revision and status in _ASKS:
            self._asked[uuid] = at

    def began(self, uuid: str, since: float) -> None:
        """Hear since when a unit is active."""
        if (asked := self._asked.pop(uuid, None)) is not None:
            self.put_to_start.observe(max(0.0, since - asked))

    def forget(self, others_than: Container[str]) -> None:
        """Forget VMs that are gone."""
        self._heard = {uuid: heard for uuid, heard in self._heard.items() if uuid in others_than}
        self._asked = {uuid: asked for uuid, asked in self._asked.items() if uuid in others_than}
