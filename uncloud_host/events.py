"""What is worth telling people: events, and how the end of a VM becomes one. Pure.

An event's id is a hash of what it is about, so that everyone who sees the same end makes the same event, and the spool
keeps one of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
# Signals that say that a program is broken; all others come from outside.
_FATAL = frozenset({"SEGV", "ABRT", "BUS", "ILL", "FPE", "TRAP", "SYS", "XCPU", "XFSZ"})
_SETUP = range(200, 244)  # exit statuses of PID 1 when it could not even execute (systemd.exec(5))
LONGEST = 500  # characters of a text in an event
_YOUNG = 2.0  # seconds: QEMU exits with 1 for a bad disk and for a guest's panic alike; no guest panics sooner


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a VM on this host, or, without a VM, to the host."""

    vm: str
    event: Name
    subject: str  # what makes it one event: an invocation or a mod_revision
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
        """Equal for everyone who sees the same thing: a beginning is one, whatever it is called later."""
        what = "began" if self.event in (Name.STARTED, Name.RESTARTED) else self.event
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


@dataclass(frozen=True, slots=True)
class End:
    """How one run of a VM ended, as the unit's recorder (ExecStopPost=) saw it. Every field may be missing."""

    vm: str
    invocation: str
    by: str  # agent, operator, many (an operator stopped many VMs at once), restart, shutdown, host or itself
    why: str = ""  # the agent's words, if it was the agent; which ones, if there were many
    event: str = ""
    result: str = ""  # systemd's $SERVICE_RESULT
    exit_code: str = ""  # exited, killed, dumped; nothing if no process ever ran
    exit_status: str = ""  # a number or a signal's name
    shutdown: str = ""  # the reason in QEMU's own SHUTDOWN event
    started: float = 0.0  # seconds since 1970
    ended: float = 0.0
    asked: float = 0.0  # when the unit left its active state, if its stop was asked for
    restarts: int = 0  # by systemd before this run
    said: str = ""  # QEMU's last line
    is_after: bool = False  # the run was over already: somebody stopped the unit while it waited to be restarted
    usage: Mapping[str, int] = field(default_factory=dict)  # systemd's CPUUsageNSec, MemoryPeak, IOReadBytes ...
    revision: int = 0  # of the entry that asked for it, if the agent did
    reboots: int = 0  # of the guest, by itself
    signs: Sequence[str] = ()  # lines of the flight recorder, see signs.py
    boot_id: str = ""  # of the host's boot in which it ended, if the unit's recorder saw it

    @classmethod
    def read(cls, text: str | bytes) -> "End":
        """Read a record; what cannot be read raises ValueError. Unknown fields of newer recorders are left out."""
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no object")
        known = {name: found[name] for name in cls.__slots__ if name in found}
        end = cls(**known)
        times = {name: float(getattr(end, name)) for name in ("started", "ended", "asked")}
        numbers = {name: int(getattr(end, name)) for name in ("restarts", "revision", "reboots")}
        texts = set(cls.__slots__) - times.keys() - numbers.keys() - {"is_after", "usage", "signs"}
        if not all(isinstance(getattr(end, name), str) for name in texts) or not isinstance(end.is_after, bool):
            raise ValueError("not texts")
        if not isinstance(end.usage, dict) or not isinstance(end.signs, list | tuple):
            raise ValueError("usage is no object, or signs are no list")
        usage = {str(key): int(value) for key, value in end.usage.items()}
        signs = tuple(map(str, end.signs))
        datetime.fromtimestamp(max(times["started"], times["ended"]), UTC)  # ValueError or OverflowError
        return cls(**known | times | numbers | {"usage": usage, "signs": signs})


_BY_QEMU = {
    "guest-panic": (Name.PANICKED, "the guest's kernel panicked"),
    "guest-shutdown": (Name.POWERED_OFF, "the guest shut itself down"),
    "host-signal": (Name.KILLED, "somebody sent QEMU a signal"),
    "host-qmp-quit": (Name.KILLED, "somebody told QEMU to quit"),
}


def ended(end: End, host: str, name: str) -> Event:
    """Conclude why a run ended. The order of the questions matters: who asked first, then how it ended."""
    event, reason = conclude(end)
    exit_ = " ".join(filter(None, [end.exit_code, end.exit_status]))
    trail = {"by": end.by, "result": end.result, "exit": exit_, "qemu": end.shutdown}
    trail |= {key: str(getattr(end, key) or "") for key in ("revision", "reboots", "restarts")}
    if 0 < end.started < end.ended:
        trail["seconds"] = f"{end.ended - end.started:.1f}"
    return Event(
        vm=end.vm,
        event=event,
        subject=end.invocation,
        time=datetime.fromtimestamp(end.ended, UTC),
        host=host,
        name=name,
        reason=reason,
        invocation=end.invocation,
        trail={key: value for key, value in trail.items() if value},
    )


def conclude(end: End) -> tuple[Name, str]:
    """Give the event and the reason in words."""
    forced = ", it did not react and was killed" if end.result == "timeout" else ""
    match end.by:
        case "agent":
            return Name(end.event) if end.event in set(Name) else Name.STOPPED, (end.why or "asked to stop") + forced
        case "host":
            return Name.KILLED, "this host went down without shutting down"
        case "shutdown":
            return Name.STOPPED, "this host is shutting down" + forced
        case "operator":
            return Name.STOPPED_BY_HAND, "systemctl stop on this host" + forced
        case "many":
            return Name.STOPPED_BY_HAND, f"systemctl stop of {end.why or 'many VMs'}" + forced
        case "restart":
            return Name.STOPPED, "systemctl restart on this host" + forced
    said = f": {end.said}" if end.said else ""
    if told := _BY_QEMU.get(end.shutdown):
        return told[0], told[1] + said
    return _by_exit(end, said)


def _by_exit(end: End, said: str) -> tuple[Name, str]:
    if end.result == "oom-kill":
        return Name.OOM_KILLED, "this host ran out of memory"
    if end.result == "watchdog":
        return Name.WATCHDOG, "it did not answer its watchdog"
    if end.exit_code in ("killed", "dumped"):
        if end.exit_status in _FATAL:
            return Name.CRASHED, f"QEMU died of signal {end.exit_status}{said}"
        return Name.KILLED, f"QEMU was killed by signal {end.exit_status} from outside{said}"
    if not end.exit_code or (end.exit_status.isdigit() and int(end.exit_status) in _SETUP):
        return (
            Name.COULD_NOT_START,
            f"systemd could not set it up ({end.exit_status or end.result or 'no trace'}){said}",
        )
    if end.exit_status == "0":
        return Name.POWERED_OFF, "QEMU ended by itself"
    if end.ended - end.started < _YOUNG:
        return Name.COULD_NOT_START, f"QEMU exited with {end.exit_status}{said}"
    return Name.CRASHED, f"QEMU exited with {end.exit_status}{said}"


def has_run(end: End) -> bool:
    """Tell whether QEMU was there at all, however shortly: what systemd could not set up is no run."""
    was_executed = end.exit_code and not (end.exit_status.isdigit() and int(end.exit_status) in _SETUP)
    return conclude(end)[0] != Name.COULD_NOT_START or bool(was_executed)


def clean(text: str) -> str:
    """Give a text that can be written anywhere."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown}..."


def stamp(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
