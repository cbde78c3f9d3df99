"""Signals of systemd: hints that a unit of ours has changed, read by a connection and a thread of their own."""

import logging
import re
import select
import time
from collections.abc import Callable

from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, apply_signature, path_encode

from uncloud_host import unit
from uncloud_host.systemd import MANAGER, SYSTEMD, UNITS, SystemdError, text_of

logger = logging.getLogger(__name__)

_OURS = path_encode(UNITS, unit.PREFIX.encode())
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
                _wait(descriptor)
            raise SystemdError("the connection to the bus was lost")
        except (DBusBaseError, SystemdError, OSError, ValueError) as error:
            bus.close()
            if is_over():
                return
            logger.info("bus: %s; connecting again", text_of(error))
            pause = min(2 * pause, 5.0)
            time.sleep(pause)


def _subscribe(bus: DBus) -> None:
    bus.open()
    for rule in _SIGNALS:
        daemon = (b"org.freedesktop.DBus", b"/org/freedesktop/DBus", b"org.freedesktop.DBus")
        bus.call_method(*daemon, b"AddMatch", apply_signature(b"s", [rule]))
    bus.call_method(SYSTEMD, *MANAGER, b"Subscribe", [])


def _drain(bus: DBus) -> set[str | None]:
    """Take all waiting messages; by their path only, because decoding one body costs twenty times as much."""
    names: set[str | None] = set()
    while not (message := bus.process()).is_empty():
        path = message.get_path() or b""
        if path.startswith(_OURS):
            names.add(_decoded(path.removeprefix(UNITS + b"/")))
        elif message.get_member() == b"UnitRemoved":
            message.process_reply(False)  # noqa: FBT003 - no headers; cron removes units all day, ours are few
            if (name := message.body[0].decode(errors="replace")).startswith(unit.PREFIX):
                names.add(name)
        elif not path.startswith(UNITS):
            names.add(None)  # Reloading or a new PID 1: look at everything
    return names


def _wait(descriptor: int) -> None:
    """Wait for the bus. select(2) knows no descriptor above 1023, and a recorder is open for each VM."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    waiting.poll(_LEFT_OVER * 1000)


def _decoded(label: bytes) -> str:
    """Undo sd_bus_path_encode(): `_2d` is a dash."""
    return re.sub(rb"_([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), label).decode(errors="replace")
