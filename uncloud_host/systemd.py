"""systemd over D-Bus: the only module that imports pystemd. Text inside, bytes at the bus.

Traps of pystemd (0.13 to 0.15), each of which cost somebody hours: a connection belongs to one thread; calls on a
connection with matches swallow signals (two connections); `process()` handles one message, and an empty one means
that none is left; `wait()` holds the GIL; a failing call leaks 1 to 2 kB, so nothing is found out by exceptions; a
connection that is not closed, though lost and forgotten, keeps its descriptors.
"""

import contextlib
import errno
import logging
import re
import select
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pystemd.daemon
import pystemd.journal
from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, apply_signature, path_encode

from uncloud_host import unit
from uncloud_host.signatures import SIGNATURES
from uncloud_host.unit import Service, State, Value

logger = logging.getLogger(__name__)

_SYSTEMD = b"org.freedesktop.systemd1"
_MANAGER = (b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
_UNITS = b"/org/freedesktop/systemd1/unit"
_TRANSIENT = "/run/systemd/transient/"
_OURS = path_encode(_UNITS, unit.PREFIX.encode())
_SENDER = b"type='signal',sender='org.freedesktop.systemd1'"
_SIGNALS = (
    # Each change also comes as ...Service, with 300 properties: not asked for.
    _SENDER + b",interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
    b"path_namespace='/org/freedesktop/systemd1/unit',arg0='org.freedesktop.systemd1.Unit'",
    _SENDER + b",interface='org.freedesktop.systemd1.Manager',member='UnitRemoved'",
    _SENDER + b",interface='org.freedesktop.systemd1.Manager',member='Reloading'",
    b"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
)
_LEFT_OVER = 5.0  # seconds: sd-bus may keep a message behind one that it answers itself
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
        body = self._manager(b"ListUnitsByPatterns", b"asas", [], [f"{unit.PREFIX}*{unit.SUFFIX}".encode()])
        return [Listed(row[0].decode(), unit.state(row[3].decode(), row[4].decode()), bool(row[7])) for row in body]

    def details(self, name: str) -> Details:
        """Read what tells one run from another: seven short calls, for units that have changed."""
        path, before = path_encode(_UNITS, name.encode()), None
        # The invocation last: a unit that vanishes meanwhile has none, and cannot seem to be one without environment.
        where = {
            b"ActiveState": (b"Unit", b"s"), b"SubState": (b"Unit", b"s"), b"StateChangeTimestamp": (b"Unit", b"t"),
            b"Environment": (b"Service", b"as"), b"NRestarts": (b"Service", b"u"), b"InvocationID": (b"Unit", b"ay"),
        }  # fmt: skip
        found = {b"InvocationID": self._property(path, *where[b"InvocationID"], b"InvocationID")}
        while found[b"InvocationID"] != before:  # else its state could be that of another run
            before = found[b"InvocationID"]
            found = {key: self._property(path, *place, key) for key, place in where.items()}
        return Details(
            state=unit.state(found[b"ActiveState"].decode(), found[b"SubState"].decode()),
            environment=tuple(line.decode(errors="replace") for line in found[b"Environment"]),
            invocation=bytes(found[b"InvocationID"]).hex(),
            restarts=found[b"NRestarts"],
            since=found[b"StateChangeTimestamp"] / unit.SECOND,
        )

    def service(self, name: str) -> Service:
        """Tell how a service is that need not be a VM's."""
        path = path_encode(_UNITS, name.encode())
        active: bytes = self._property(path, b"Unit", b"s", b"ActiveState")
        since: int = self._property(path, b"Unit", b"t", b"StateChangeTimestamp")
        result: bytes = self._property(path, b"Service", b"s", b"Result")
        return Service(active.decode(), result.decode(), since / unit.SECOND)

    def unit_file(self, name: str) -> str:
        """Say what an administrator has put in the way of a transient unit of this name; nothing if nothing is."""
        path = path_encode(_UNITS, name.encode())
        if self._property(path, b"Unit", b"s", b"LoadState") == b"masked":
            return f"{name} is masked on this host"
        file: str = self._property(path, b"Unit", b"s", b"FragmentPath").decode(errors="replace")
        return "" if not file or file.startswith(_TRANSIENT) else f"there is a unit file of its name: {file}"

    def main_process(self, name: str) -> int:
        """Give the pid of a service's main process; 0 if it has none."""
        return int(self._property(path_encode(_UNITS, name.encode()), b"Service", b"u", b"MainPID"))

    def start(self, name: str, properties: Iterable[tuple[str, Value]]) -> None:
        """Ask for a transient unit. Returns when the job is accepted, not when it is done: a signal tells that."""
        words = [*apply_signature(b"ss", [name.encode(), b"fail"]), *_listed(properties)]
        self._call(*_MANAGER, b"StartTransientUnit", [*words, (ord("a"), b"(sa(sv))"), (-1, None)])

    def set_properties(self, name: str, properties: Iterable[tuple[str, Value]]) -> None:
        """Change what systemd can change while a unit runs; it lasts until the unit is gone."""
        words = [*apply_signature(b"sb", [name.encode(), True]), *_listed(properties)]
        self._call(*_MANAGER, b"SetUnitProperties", words)

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
        state: bytes = self._property(_MANAGER[0], b"Manager", b"s", b"SystemState")
        return state == b"stopping"

    def stops(self, name: str) -> bool:
        """Tell whether a unit is not there any more or on its way: the stop of a slice waits for all that is in it."""
        path = path_encode(_UNITS, name.encode())
        active: bytes = self._property(path, b"Unit", b"s", b"ActiveState")
        job: tuple[int, bytes] = self._property(path, b"Unit", b"(uo)", b"Job")
        return active != b"active" or job[0] != 0

    def booted(self) -> float:
        """Tell when this boot began, in seconds since 1970."""
        started: int = self._property(_MANAGER[0], b"Manager", b"t", b"UserspaceTimestamp")
        return started / unit.SECOND

    def _manager(self, method: bytes, signature: bytes, *values: object) -> Any:
        return self._call(*_MANAGER, method, apply_signature(signature, list(values)))

    def _property(self, path: bytes, interface: bytes, rtype: bytes, name: bytes) -> Any:
        with self._errors():
            return self._open().get_property(_SYSTEMD, path, _SYSTEMD + b"." + interface, name, rtype)

    def _call(self, path: bytes, interface: bytes, method: bytes, words: list[tuple[int, Any]]) -> Any:
        with self._errors():
            return self._open().call_method(_SYSTEMD, path, interface, method, words).body

    def _open(self) -> DBus:
        if self._bus is None:
            bus = DBus()
            bus.open()
            self._bus = bus
        return self._bus

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBusBaseError as error:
            name = error.err_name or b""
            if name.endswith(b".UnitExists"):
                raise UnitExists("the unit exists") from None
            if self._bus is not None and abs(error.errno) not in _LOST:
                raise Refusal(_message(error)) from None
            if self._bus is not None:
                self._bus.close()
            self._bus = None  # begin anew
            raise SystemdError(_message(error)) from None


def watch(
    changed: Callable[[str | None], None], is_over: Callable[[], bool], connected: Callable[[], None] = lambda: None
) -> None:
    """Tell of each unit of ours that changed, and None when anything may have: thread body, until `is_over`.

    Signals are hints. They come in storms at a daemon-reload and some states last for less than a millisecond: the
    truth is read back by whoever gets the hint.
    """
    pause = 0.1
    while not is_over():
        bus = DBus()
        try:
            _subscribe(bus)
            connected()
            changed(None)
            pause = 0.1
            while not is_over() and (descriptor := bus.get_fd()) >= 0:  # sd-bus closes it itself when it is lost
                for name in _drain(bus):  # first: subscribing may have read some
                    changed(name)
                select.select([descriptor], [], [], _LEFT_OVER)
            raise SystemdError("the connection to the bus was lost")
        except (DBusBaseError, SystemdError, OSError, ValueError) as error:
            bus.close()
            if is_over():
                return
            logger.info("bus: %s; connecting again", _message(error))
            pause = min(2 * pause, 5.0)
            time.sleep(pause)


def _subscribe(bus: DBus) -> None:
    bus.open()
    for rule in _SIGNALS:
        daemon = (b"org.freedesktop.DBus", b"/org/freedesktop/DBus", b"org.freedesktop.DBus")
        bus.call_method(*daemon, b"AddMatch", apply_signature(b"s", [rule]))
    bus.call_method(_SYSTEMD, *_MANAGER, b"Subscribe", [])


def _drain(bus: DBus) -> set[str | None]:
    """Take all waiting messages; by their path only, because decoding one body costs twenty times as much."""
    names: set[str | None] = set()
    while not (message := bus.process()).is_empty():
        path = message.get_path() or b""
        if path.startswith(_OURS):
            names.add(_decoded(path.removeprefix(_UNITS + b"/")))
        elif message.get_member() == b"UnitRemoved":
            message.process_reply(False)  # noqa: FBT003 - no headers; cron removes units all day, ours are few
            if (name := message.body[0].decode(errors="replace")).startswith(unit.PREFIX):
                names.add(name)
        elif not path.startswith(_UNITS):
            names.add(None)  # Reloading or a new PID 1: look at everything
    return names


def _decoded(label: bytes) -> str:
    """Undo sd_bus_path_encode(): `_2d` is a dash."""
    return re.sub(rb"_([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), label).decode(errors="replace")


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


def _message(error: Exception) -> str:
    text = getattr(error, "err_message", b"") or str(error) or type(error).__name__
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def notify(**state: str | int) -> None:
    """Tell the service's own state to systemd (sd_notify(3)): ready=1, watchdog=1, status="...", stopping=1."""
    pystemd.daemon.notify(False, **state)  # noqa: FBT003 - keep $NOTIFY_SOCKET for the next time


def journal(message: str, priority: int, **fields: str) -> None:
    """Write a line with fields of our own to the journal (sd_journal_send(3))."""
    pystemd.journal.sendv(MESSAGE=message, PRIORITY=str(priority), SYSLOG_IDENTIFIER="uncloud-host", **fields)
