"""How the end of a run is recorded, and what is concluded from it: one event, with the true reason. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from uncloud_host.events import Event, Name

# Signals that say that a program is broken; all others come from outside.
_FATAL = frozenset({"SEGV", "ABRT", "BUS", "ILL", "FPE", "TRAP", "SYS", "XCPU", "XFSZ"})
_SETUP = range(200, 244)  # exit statuses of PID 1 when it could not even execute (systemd.exec(5))
_YOUNG = 2.0  # seconds: QEMU exits with 1 for a bad disk and for a guest's panic alike; no guest panics sooner


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
        subject=between(end.invocation) if end.is_after else end.invocation,
        time=datetime.fromtimestamp(end.ended, UTC),
        host=host,
        name=name,
        reason=reason,
        invocation="" if end.is_after else end.invocation,
        trail={key: value for key, value in trail.items() if value},
    )


def between(invocation: str) -> str:
    """Name what a stop is about that comes after the end of a run and before the beginning of the next."""
    return f"{invocation} is over"


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
    return end.by == "host" or bool(was_executed)
