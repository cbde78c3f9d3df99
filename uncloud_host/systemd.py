"""systemd over D-Bus, by pystemd; its signals are in `hints`. Text inside, bytes at the bus.

Traps of pystemd (0.13 to 0.15), each of which cost somebody hours: a connection belongs to one thread; calls on a
connection with matches swallow signals (two connections); `process()` handles one message, and an empty one means
that none is left; `wait()` holds the GIL; a failing call leaks its message, and with it the connection: nothing
is found out by exceptions; a connection that is not closed, though lost and forgotten, keeps its descriptors.
"""

import contextlib
import errno
import select
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pystemd.daemon
import pystemd.journal
from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, apply_signature, path_encode

from uncloud_host import unit
from uncloud_host.signatures import SIGNATURES
from uncloud_host.unit import Service, State, Value

SYSTEMD = b"org.freedesktop.systemd1"
MANAGER = (b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
UNITS = b"/org/freedesktop/systemd1/unit"
_TRANSIENT = "/run/systemd/transient/"
_CHANGED = "StateChangeTimestampMonotonic"
_PROPERTIES = {
    "ActiveState": (b"Unit", b"s"), "SubState": (b"Unit", b"s"), "InvocationID": (b"Unit", b"ay"),
    "StateChangeTimestamp": (b"Unit", b"t"), _CHANGED: (b"Unit", b"t"),
    "Environment": (b"Service", b"as"), "NRestarts": (b"Service", b"u"),
}  # fmt: skip
# No answer from systemd, but from the bus or the kernel: connection gone, nobody there, no reply in time.
_LOST = {
    errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNREFUSED, errno.EBADF, errno.ENXIO,
    errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EIO,
}  # fmt: skip


class SystemdError(Exception):
    """systemd or its bus could not be asked, or refused; the message is one line."""


class Refusal(SystemdError):
    """systemd answered, and the answer is no."""


class UnitExists(Refusal):
    """The name is taken: somebody, perhaps we before, did it already."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of ListUnits."""

    name: str
    state: State
    job: bool  # something is under way
    asked: float = field(compare=False)  # when the list was asked for, on time.monotonic's clock, which is systemd's


@dataclass(frozen=True, slots=True)
class Details:
    """What a unit says about its present run, all of it about the same one."""

    state: State
    environment: tuple[str, ...]
    invocation: str
    restarts: int
    since: float  # seconds since 1970


class Systemd:
    """One connection for calls, for the thread that decides."""

    def __init__(self) -> None:
        self._bus: DBus | None = None

    def units(self) -> list[Listed]:
        """List the units vm-*.service that systemd has in memory: 3 ms for 300."""
        asked = time.monotonic()
        rows = self._manager(b"ListUnitsByPatterns", b"asas", [], [f"{unit.PREFIX}*{unit.SUFFIX}".encode()])
        return [
            Listed(row[0].decode(), unit.state(row[3].decode(), row[4].decode()), bool(row[7]), asked) for row in rows
        ]

    def details(self, listed: Listed) -> Details:
        """Read what tells one run from another: five short calls, or as many as it takes while it changes."""
        path = path_encode(UNITS, listed.name.encode())
        run = self._read(path, "Environment", "NRestarts", "InvocationID", "StateChangeTimestamp")
        # PID 1 notes the time of each change: if the last one is older than the list, then all is of that state.
        if 0 < self._read(path, _CHANGED)[_CHANGED] < listed.asked * unit.SECOND:
            return _details(listed.state, run)
        before, now = None, run
        while now["InvocationID"] != before:  # else its state could be that of another run
            before = now["InvocationID"]
            # The invocation last: a unit that vanishes meanwhile has none, and cannot seem to be without environment.
            last = ("Environment", "NRestarts", "InvocationID")
            now = self._read(path, "ActiveState", "SubState", "StateChangeTimestamp", *last)
        return _details(unit.state(now["ActiveState"].decode(), now["SubState"].decode()), now)

    def invocation(self, name: str) -> str:
        """Read which run it is, now; nothing if there is none."""
        found = self._read(path_encode(UNITS, name.encode()), "InvocationID")
        return bytes(found["InvocationID"]).hex()

    def service(self, name: str) -> Service:
        """Tell how a service is that need not be a VM's."""
        path = path_encode(UNITS, name.encode())
        active: bytes = self._property(path, b"Unit", b"s", b"ActiveState")
        since: int = self._property(path, b"Unit", b"t", b"StateChangeTimestamp")
        result: bytes = self._property(path, b"Service", b"s", b"Result")
        return Service(active.decode(), result.decode(), since / unit.SECOND)

    def unit_file(self, name: str) -> str:
        """Say what an administrator has put in the way of a transient unit of this name; nothing if nothing is."""
        path = path_encode(UNITS, name.encode())
        if self._property(path, b"Unit", b"s", b"LoadState") == b"masked":
            return f"{name} is masked on this host"
        file: str = self._property(path, b"Unit", b"s", b"FragmentPath").decode(errors="replace")
        return "" if not file or file.startswith(_TRANSIENT) else f"there is a unit file of its name: {file}"

    def main_process(self, name: str) -> int:
        """Give the pid of a service's main process; 0 if it has none."""
        return int(self._property(path_encode(UNITS, name.encode()), b"Service", b"u", b"MainPID"))

    def start(self, name: str, properties: Iterable[tuple[str, Value]]) -> None:
        """Ask for a transient unit. Returns when the job is accepted, not when it is done: a signal tells that."""
        words = [*apply_signature(b"ss", [name.encode(), b"fail"]), *_listed(properties)]
        self._call(*MANAGER, b"StartTransientUnit", [*words, (ord("a"), b"(sa(sv))"), (-1, None)])

    def set_properties(self, name: str, properties: Iterable[tuple[str, Value]]) -> None:
        """Change what systemd can change while a unit runs; it lasts until the unit is gone."""
        words = [*apply_signature(b"sb", [name.encode(), True]), *_listed(properties)]
        self._call(*MANAGER, b"SetUnitProperties", words)

    def stop(self, name: str) -> None:
        """Ask for the stop of a unit. Returns when the job is accepted."""
        self._manager(b"StopUnit", b"ss", name.encode(), b"replace")

    def reset_failed(self, name: str) -> None:
        """Forget a failure: frees the name of a failed unit; on a running one it renews backoff and start limit."""
        self._manager(b"ResetFailedUnit", b"s", name.encode())

    def has_processes(self, name: str) -> bool:
        """Tell whether there are processes in a unit's cgroup, whatever its state says."""
        try:
            return bool(self._manager(b"GetUnitProcesses", b"s", name.encode()))
        except Refusal:  # there is no such unit any more
            return False

    def is_stopping(self) -> bool:
        """Tell whether the host is going down: then nothing may be started."""
        state: bytes = self._property(MANAGER[0], b"Manager", b"s", b"SystemState")
        return state == b"stopping"

    def stops(self, name: str) -> bool:
        """Tell whether a unit is not there any more or on its way: the stop of a slice waits for all that is in it."""
        path = path_encode(UNITS, name.encode())
        active: bytes = self._property(path, b"Unit", b"s", b"ActiveState")
        job: tuple[int, bytes] = self._property(path, b"Unit", b"(uo)", b"Job")
        return active != b"active" or job[0] != 0

    def booted(self) -> float:
        """Tell when this boot began, in seconds since 1970."""
        started: int = self._property(MANAGER[0], b"Manager", b"t", b"UserspaceTimestamp")
        return started / unit.SECOND

    def _manager(self, method: bytes, signature: bytes, *values: object) -> Any:
        return self._call(*MANAGER, method, apply_signature(signature, list(values)))

    def _read(self, path: bytes, *names: str) -> dict[str, Any]:
        """Read properties of a service, in this order."""
        return {name: self._property(path, *_PROPERTIES[name], name.encode()) for name in names}

    def _property(self, path: bytes, interface: bytes, rtype: bytes, name: bytes) -> Any:
        with self._errors():
            return self._open().get_property(SYSTEMD, path, SYSTEMD + b"." + interface, name, rtype)

    def _call(self, path: bytes, interface: bytes, method: bytes, words: list[tuple[int, Any]]) -> Any:
        with self._errors():
            return self._open().call_method(SYSTEMD, path, interface, method, words).body

    def _open(self) -> DBus:
        if self._bus and _is_lost(self._bus):  # a call would tell, and leak
            self._begin_anew()
        if self._bus is None:
            bus = DBus()
            bus.open()
            self._bus = bus
        return self._bus

    def _begin_anew(self) -> None:
        if self._bus is not None:
            self._bus.close()
        self._bus = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBusBaseError as error:
            name = error.err_name or b""
            if name.endswith(b".UnitExists"):
                raise UnitExists("the unit exists") from None
            if self._bus is not None and abs(error.errno) not in _LOST:
                raise Refusal(text_of(error)) from None
            self._begin_anew()
            raise SystemdError(text_of(error)) from None


def _details(state: State, found: Mapping[str, Any]) -> Details:
    return Details(
        state=state,
        environment=tuple(line.decode(errors="replace") for line in found["Environment"]),
        invocation=bytes(found["InvocationID"]).hex(),
        restarts=found["NRestarts"],
        since=found["StateChangeTimestamp"] / unit.SECOND,
    )


def _is_lost(bus: DBus) -> bool:
    waiting, descriptor = select.poll(), bus.get_fd()
    if descriptor >= 0:  # sd-bus closes it itself
        waiting.register(descriptor, 0)  # POLLHUP comes unasked
    return descriptor < 0 or bool(waiting.poll(0))


def _listed(properties: Iterable[tuple[str, Value]]) -> Iterator[tuple[int, Any]]:
    """Write an a(sv)."""
    yield ord("a"), b"(sv)"
    for key, value in properties:
        signature = SIGNATURES[key]
        yield from ((ord("r"), b"sv"), (ord("s"), key.encode()), (ord("v"), signature))
        yield from (*apply_signature(signature, [_encoded(value, signature)]), (-1, None), (-1, None))
    yield -1, None


def _encoded(value: Value, signature: bytes) -> object:
    """Texts are bytes on the bus, and bytes ("ay") are lists of numbers."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool | int):
        return value
    if signature == b"aay":
        return [list(str(part).encode()) for part in value]
    return [_encoded(part, b"") for part in value]


def text_of(error: Exception) -> str:
    """Give what an error says as text."""
    if isinstance(error, OSError) and error.strerror:
        return ": ".join([*([str(error.filename)] if error.filename else []), error.strerror])
    text = getattr(error, "err_message", b"") or str(error) or type(error).__name__
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def notify(**state: str | int) -> None:
    """Tell the service's own state to systemd (sd_notify(3)): ready=1, watchdog=1, status="...", stopping=1."""
    pystemd.daemon.notify(False, **state)  # noqa: FBT003 - keep $NOTIFY_SOCKET for the next time


def journal(message: str, priority: int, **fields: str) -> None:
    """Write a line with fields of our own to the journal (sd_journal_send(3))."""
    pystemd.journal.sendv(MESSAGE=message, PRIORITY=str(priority), SYSLOG_IDENTIFIER="uncloud-host", **fields)
