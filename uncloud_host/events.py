"""What is worth telling people: events, and how the end of a VM becomes one. Pure.

An event's id is a hash of what it is about, so that everyone who sees the same end makes the same event, and the spool
keeps one of them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum


class Name(StrEnum):
    """The names of events, an interface for people and programs."""

    STARTED = "started"
    STOPPED = "stopped"
    RESTARTED = "restarted"
    CRASHED = "crashed"
    KILLED = "killed"
    OOM_KILLED = "oom-killed"
    POWERED_OFF = "powered-off"
    PANICKED = "panicked"
    WATCHDOG = "watchdog"
    DISK_ERROR = "disk-error"
    COULD_NOT_START = "could-not-start"
    GAVE_UP = "gave-up"
    STOPPED_BY_HAND = "stopped-by-hand"
    INVALID = "invalid"
    HELD = "held"
    MOVED = "moved"
    MISSING = "missing"
    FOREIGN = "foreign"
    WRONG_HOST = "wrong-host"
    UNKNOWN_HOST = "unknown-host"
    DUPLICATE_HOST = "duplicate-host"
    RESOLVED = "resolved"
    ETCD_LOST = "etcd-lost"
    ETCD_BACK = "etcd-back"
    HOST_SILENT = "host-silent"
    AGENT_DOWN = "agent-down"
    REMINDER = "reminder"


ENDS = (
    Name.STOPPED, Name.STOPPED_BY_HAND, Name.POWERED_OFF, Name.PANICKED, Name.CRASHED, Name.KILLED, Name.OOM_KILLED,
    Name.COULD_NOT_START, Name.MOVED,
)  # fmt: skip
FAILURES = frozenset(
    {
        Name.CRASHED,
        Name.KILLED,
        Name.OOM_KILLED,
        Name.PANICKED,
        Name.WATCHDOG,
        Name.DISK_ERROR,
        Name.COULD_NOT_START,
        Name.GAVE_UP,
        Name.INVALID,
        Name.HELD,
        Name.MISSING,
        Name.FOREIGN,
        Name.WRONG_HOST,
        Name.UNKNOWN_HOST,
        Name.DUPLICATE_HOST,
        Name.ETCD_LOST,
        Name.HOST_SILENT,
        Name.AGENT_DOWN,
        Name.REMINDER,
    }
)
# Those that begin something which lasts, until `resolved`. Several may begin one: a VM that could not be started and is
# then found missing has one problem.
LASTING = {
    Name.COULD_NOT_START: "down",
    Name.GAVE_UP: "down",
    Name.MISSING: "down",
    Name.DISK_ERROR: "disk",
    Name.INVALID: "invalid",
    Name.HELD: "held",
    Name.FOREIGN: "foreign",
    Name.WRONG_HOST: "wrong-host",
    Name.UNKNOWN_HOST: "unknown-host",
    Name.DUPLICATE_HOST: "duplicate-host",
    Name.HOST_SILENT: "host-silent",
    Name.AGENT_DOWN: "agent-down",
}
LONGEST = 500  # characters of a text in an event


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a VM on this host, or, without a VM, to the host."""

    vm: str
    event: Name
    subject: str  # what makes it one event: an invocation or a mod_revision, mostly
    time: datetime  # when it happened, UTC
    host: str
    name: str
    reason: str
    invocation: str = ""
    trail: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make texts from outside fit for every channel: no half characters, no control characters, not too long."""
        for name in ("vm", "subject", "name", "reason", "invocation"):
            object.__setattr__(self, name, clean(getattr(self, name)))

    @property
    def id(self) -> str:
        """Equal for everyone who sees the same thing: a beginning is one, whatever it is called later, and so is an
        end, whatever another witness concludes."""
        what: str = self.event
        if self.event in (Name.STARTED, Name.RESTARTED):
            what = "began"
        elif self.event in ENDS:
            what = "ended"
        return hashlib.sha256(f"{self.vm} {self.subject} {what}".encode()).hexdigest()[:24]

    def record(self) -> dict[str, object]:
        """Give the record as it is written to etcd."""
        told = asdict(self) | {"id": self.id, "time": stamp(self.time)}
        del told["subject"]
        return told

    @property
    def sentence(self) -> str:
        """One line for people."""
        return f"{f'VM {self.name}' if self.vm else f'host {self.host}'} {self.phrase}: {self.reason}"

    @property
    def phrase(self) -> str:
        """What follows the name in a sentence."""
        return (_PHRASES if self.vm else _ABOUT_HOST).get(self.event, self.event)

    @property
    def is_failure(self) -> bool:
        """Tell whether somebody may have to do something about it."""
        return self.event in FAILURES


_PHRASES = {
    Name.STARTED: "started",
    Name.STOPPED: "stopped",
    Name.RESTARTED: "was restarted",
    Name.CRASHED: "crashed",
    Name.KILLED: "was killed",
    Name.OOM_KILLED: "was killed for lack of memory",
    Name.POWERED_OFF: "powered itself off",
    Name.PANICKED: "panicked",
    Name.WATCHDOG: "was reset by its watchdog",
    Name.DISK_ERROR: "is paused, a disk failed",
    Name.COULD_NOT_START: "could not start",
    Name.GAVE_UP: "is not restarted any more",
    Name.STOPPED_BY_HAND: "was stopped by hand",
    Name.INVALID: "is left as it is",
    Name.HELD: "is held",
    Name.MOVED: "moves away",
    Name.MISSING: "is missing",
    Name.FOREIGN: "does not belong here",
    Name.WRONG_HOST: "is claimed by another host",
    Name.UNKNOWN_HOST: "is asked of a host that nobody knows",
    Name.DUPLICATE_HOST: "is claimed by another host of the same name",
    Name.RESOLVED: "is well again",
}
_ABOUT_HOST = {
    Name.FOREIGN: "runs what does not belong here",
    Name.DUPLICATE_HOST: "shares its name with another machine",
    Name.RESOLVED: "is well again",
    Name.ETCD_LOST: "has lost etcd",
    Name.ETCD_BACK: "has etcd back",
    Name.HOST_SILENT: "misses another host",
    Name.UNKNOWN_HOST: "misses another host",
    Name.AGENT_DOWN: "has no agent that works",
    Name.REMINDER: "has problems that last",
}


@dataclass(frozen=True, slots=True)
class Spooled:
    """An event and when it was recorded, in nanoseconds since 1970."""

    ns: int
    event: Event
    quiet: bool = False  # it repeats what has been mailed, and is no mail of its own


def clean(text: str) -> str:
    """Give a text that can be written anywhere."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown}..."


def stamp(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
