"""Events on disk, until they are told: the file is the event, and whoever creates it first has seen it first.

events/ID   the event, complete as soon as it is there, never changed
told/CHANNEL/ID  an empty file: this channel (log, mail) has told it
ends/UUID.INVOCATION  what the recorder of a VM wrote; it is removed when it has had all its consequences
position  where etcd's history stood
"""

import json
import os
import time
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from uncloud_host.endings import End
from uncloud_host.etcderror import Position
from uncloud_host.events import Event, Name, Spooled

DIRECTORY = Path("/var/lib/uncloud-host")
INTENTS = Path("/run/uncloud-host/intents")
LIMITS = Path("/run/uncloud-host/limits")
ENDS_IN_MEMORY = Path("/run/uncloud-host/ends")  # where recorders write while the disk is full
KEPT = 7 * 86400.0  # seconds; so long nobody tells an event twice
FRESH = KEPT - 86400  # seconds; of what is older it may be forgotten that it was told
HOUR = 3600.0
CHANNELS = ("log", "mail")  # see channels.py
_LARGEST = 64 * 1024  # bytes of a file that others had a hand in


class Spool:
    """The events of this host. For several threads and programs at once: every step is one atomic file operation."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._events = directory / "events"
        self._told = {channel: directory / "told" / channel for channel in CHANNELS}
        self._ends, self._ends_in_memory = directory / "ends", ENDS_IN_MEMORY
        self._position = directory / "position"
        self._remembered: Position | None = None
        self._forgot = 0.0
        for made in (self._events, *self._told.values(), self._ends, self._ends_in_memory):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, event: Event, *, quiet: bool = False) -> bool:
        """Keep an event; False if somebody has seen it before. `quiet`: it is no mail of its own."""
        path = self._events / event.id
        if path.exists():
            return False
        told = {"ns": time.time_ns(), "subject": event.subject, "quiet": quiet, **event.record()}
        new = path.with_name(f".{event.id}.{os.getpid()}")
        write(new, json.dumps(told))
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        finally:
            new.unlink()
        return True

    def has(self, event: Event) -> bool:
        """Tell whether somebody has seen it before."""
        return (self._events / event.id).exists()

    def find(self, ids: Iterable[str]) -> list[Spooled]:
        """Read events again, told or not; those that are forgotten are left out."""
        return [spooled for name in ids if (spooled := self._read(name))]

    def pending(self, channel: str) -> list[Spooled]:
        """List what a channel has not told yet, oldest first."""
        done = set(os.listdir(self._told[channel]))
        names = [name for name in os.listdir(self._events) if name not in done and not name.startswith(".")]
        return sorted((s for name in names if (s := self._read(name))), key=lambda s: (s.ns, s.event.id))

    def waiting(self, channel: str) -> int:
        """Count what a channel has not told yet."""
        done = set(os.listdir(self._told[channel]))
        return sum(name not in done and not name.startswith(".") for name in os.listdir(self._events))

    def told(self, channel: str, events: Sequence[Spooled]) -> None:
        """Remember that a channel has told these."""
        for spooled in events:
            (self._told[channel] / spooled.event.id).touch(mode=0o600)

    def forget(self, now: float, lasting: Callable[[], Container[str]] = lambda: ()) -> None:
        """Remove events that every channel told long ago, once an hour.

        `now` in seconds since 1970. `lasting`: the events that began what still lasts; they would be told again. A disk
        that became read-only forgets nothing.
        """
        if abs(now - self._forgot) < HOUR:
            return
        self._forgot = now
        spared = lasting()
        for name in os.listdir(self._events):
            if name in spared:
                continue
            marks = [directory / name for directory in self._told.values()]
            with suppress(OSError):  # not told yet, or read-only
                if max(mark.stat().st_mtime for mark in marks) < now - KEPT:
                    (self._events / name).unlink()
                    for mark in marks:
                        mark.unlink()

    def ends(self) -> list[tuple[Path, End | None]]:
        """List the recorded ends as they happened; None for one that cannot be read."""
        # .new: one that the recorder is writing
        directories = (self._ends, self._ends_in_memory)
        paths = [path for where in directories for path in where.iterdir() if path.suffix != ".new"]
        found = [(path, _read_end(path)) for path in paths]
        return sorted(found, key=lambda pair: pair[1].ended if pair[1] else 0.0)

    def position(self) -> Position | None:
        """Where etcd's history stood when this host last agreed with it; None if that is not known."""
        try:
            return Position(**{key: int(value) for key, value in json.loads(_head(self._position)).items()})
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def remember(self, position: Position, *, backwards: bool) -> None:
        """Remember where etcd's history stands: a backup that is restored while the agent is away must be noticed.

        Only if `backwards` one that does not follow from what is remembered: else nobody has drawn conclusions yet.
        """
        before = self._remembered = self._remembered or self.position()
        if position == before or (before and not backwards and not position.follows(before)):
            return
        self._remembered = position
        with suppress(OSError):  # a full disk: an older position serves as well
            new = self._position.with_suffix(".new")
            write(new, json.dumps(asdict(position)), sync=False)
            new.rename(self._position)

    def _read(self, name: str) -> Spooled | None:
        try:
            found = json.loads(_head(self._events / name))
            texts = {key: found[key] for key in ("vm", "subject", "host", "name", "reason", "invocation")}
            event = Event(
                **texts, event=Name(found["event"]), time=datetime.fromisoformat(found["time"]), trail=found["trail"]
            )
            return Spooled(int(found["ns"]), event, quiet=found.get("quiet") is True)
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None


def _read_end(path: Path) -> End | None:
    try:
        return End.read(_head(path))
    except (OSError, ValueError, TypeError, RecursionError, OverflowError):
        return None


def write_intent(uuid: str, invocation: str, event: Name, why: str, revision: int) -> None:
    """Say, before it is done, that the end of this run is ours: the recorder cannot tell who asked for a stop.

    `revision`: of the entry that asks for it; 0 if there is none.
    """
    INTENTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = INTENTS / f".{uuid}"
    write(new, json.dumps({"invocation": invocation, "event": event, "why": why, "revision": revision}), sync=False)
    new.rename(INTENTS / uuid)


def read_intent(uuid: str, invocation: str) -> tuple[str, str] | None:
    """Give event and reason of our intent for this run, if there is one."""
    try:
        found = json.loads(_head(INTENTS / uuid))
        return (str(found["event"]), str(found["why"])) if found["invocation"] == invocation else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def tidy(running: Container[str]) -> None:
    """Remove what concerns VMs that do not run any more."""
    for directory in (INTENTS, LIMITS):
        for uuid in os.listdir(directory) if directory.is_dir() else ():
            if uuid not in running:
                (directory / uuid).unlink(missing_ok=True)


def remove_intent(uuid: str, invocation: str) -> None:
    """The end of this run has been told; an intent for another run stays."""
    if read_intent(uuid, invocation):
        (INTENTS / uuid).unlink(missing_ok=True)


def write_end(end: End, directories: Sequence[Path] = (ENDS_IN_MEMORY, DIRECTORY / "ends")) -> None:
    """Record an end as a VM's recorder does; none runs when a unit is stopped that waits to be restarted.

    In the first directory that has room. Raises OSError if none has.
    """
    for directory in directories:
        new = directory / f"{end.vm}.{end.invocation}.{'after' if end.is_after else 'found'}.new"
        try:
            write(new, json.dumps(asdict(end)), sync=False)
            new.rename(new.with_suffix(""))
        except OSError:
            if directory == directories[-1]:
                raise
        else:
            return


def write_limits(uuid: str, start: str, fingerprint: str) -> None:
    """Remember which limits a unit was given after its start; no secret, so that `plan` need not be root's."""
    LIMITS.mkdir(parents=True, exist_ok=True)
    LIMITS.chmod(0o755)
    new = LIMITS / f".{uuid}"
    write(new, f"{start}\n{fingerprint}", sync=False)
    new.chmod(0o644)
    new.rename(LIMITS / uuid)


def limits(uuid: str, start: str) -> str | None:
    """Give the fingerprint of the limits that the unit of this start was given since, if any were."""
    try:
        found, _, fingerprint = _head(LIMITS / uuid).partition("\n")
    except OSError:
        return None
    return fingerprint if found == start else None


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, so that it is there also after a power failure."""
    new = path.with_name(f".{path.name}.new")
    write(new, text)
    new.rename(path)


def _head(path: Path) -> str:
    with path.open(errors="replace") as file:
        return file.read(_LARGEST)


def write(path: Path, text: str, *, sync: bool = True) -> None:
    """Write a file; if `sync`, its text is on the disk before anything is that is done after."""
    with path.open("w") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
