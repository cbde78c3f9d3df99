"""Mails on their way: what one mail tells is decided, written down, and then sent, so that a repeated mail is the same.

    mails/ID   the ids of its events, what they are about, when it was made, when it was sent

Whoever sends holds mail.lock, so a host has one sender at a time: the agent, or a program that works without it. The
mails of the last minutes are also what the limits in `letters` count.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from uncloud_host import journal, letters, mail, status, writing
from uncloud_host.config import Mail
from uncloud_host.events import Event, Name, Spooled
from uncloud_host.letters import Sent
from uncloud_host.mail import MailError, Rejected
from uncloud_host.models import is_uuid
from uncloud_host.spool import DIRECTORY, HOUR, Spool
from uncloud_host.writing import Scene

logger = logging.getLogger(__name__)

KEPT = HOUR  # so long a sent mail is remembered: longer than anything that counts mails looks back
PATIENCE = 3.0  # seconds that `flush` waits for what belongs to a mail
LINES = 10  # of the console
_WITH_CONSOLE = letters.ENDS | {Name.GAVE_UP, Name.DISK_ERROR}


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one mail tells. Times in seconds since 1970; `sent` is 0 until somebody has taken it."""

    ids: list[str]
    told: list[list[str]]  # pairs of VM and event
    made: float
    sent: float = 0.0


class Outbox:
    """The mails of this host. For several programs and threads at once."""

    def __init__(self, spool: Spool, config: Mail, directory: Path = DIRECTORY) -> None:
        self._spool, self._config = spool, config
        self._mails, self._lock = directory / "mails", directory / "mail.lock"
        self._mails.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forgot = 0.0
        self._taken: set[str] = set()  # sent, which is not written down yet: the disk is full

    def send(self) -> float | None:
        """Send what is due; give the seconds until something else is, None if nothing waits.

        Raises MailError, or OSError if nothing can be written.
        """
        while True:
            with self._alone():
                if (wait := self._send_one(time.time())) != 0:
                    return wait

    def _send_one(self, now: float) -> float | None:
        """Send one mail if one is due: 0. Else tell how long nothing is."""
        batches = self._batches(now)
        waiting = self._waiting([each for each in batches if each.sent])
        batch = next((each for each in batches if not each.sent), None)
        if batch is None:
            sent = [Sent(each.sent, tuple((vm, event) for vm, event in each.told)) for each in batches]
            match letters.choose(waiting, sent, now):
                case None:
                    return None
                case float() | int() as due:
                    return max(0.01, due - now)
                case events:
                    batch = _batch(events, now)
                    self._write(batch)
        self._deliver(batch)
        return 0

    def _waiting(self, sent: Sequence[_Batch]) -> Sequence[Spooled]:
        """List what is to be mailed. Nobody is told what nobody wants, or again what a sender told who died then."""
        done = {name for batch in sent for name in batch.ids}
        wanted = self._config.on if self._config.to else frozenset()
        waiting = self._spool.pending("mail")
        over = [each for each in waiting if each.event.id in done or each.event.event not in wanted]
        self._spool.told("mail", over)
        gone = {each.event.id for each in over}
        return [each for each in waiting if each.event.id not in gone]

    def _deliver(self, batch: _Batch) -> None:
        events, identity = self._spool.find(batch.ids), writing.identity(batch.ids)
        if events and self._config.to and identity not in self._taken:
            scene = self._scene(events)
            told = [_named(each.event, scene) for each in sorted(events, key=lambda each: each.ns)]
            message = writing.message(told, scene, self._config.sender, self._config.to)
            try:
                mail.send(message, self._config)
            except Rejected as error:  # trying again would only keep the others waiting
                logger.warning("%s; that mail is given up, its events are in the log", error)
        self._taken.add(identity)
        self._write(_Batch(batch.ids, batch.told, batch.made, time.time()))
        self._taken.discard(identity)
        self._spool.told("mail", events)

    def _scene(self, events: Sequence[Spooled]) -> Scene:
        vms = sorted({each.event.vm for each in events} - {""})
        ends = [each.event for each in events if each.event.event in _WITH_CONSOLE]
        console = journal.console(ends[-1].vm, ends[-1].time.timestamp(), LINES) if len(vms) == 1 and ends else []
        return Scene(time.time(), status.look(filter(is_uuid, vms)), console)

    def _batches(self, now: float) -> list[_Batch]:
        """Read what was sent lately, or is being sent; forget what is old, once an hour."""
        found = []
        for path in self._mails.iterdir():
            old = path.stat().st_mtime < now - KEPT
            batch = _read(path)
            if path.suffix != ".new" and batch and (not old or not batch.sent):
                found.append(batch)
            elif now > self._forgot + HOUR:
                path.unlink()
        self._forgot = now if now > self._forgot + HOUR else self._forgot
        return sorted(found, key=lambda each: each.made)

    def _write(self, batch: _Batch) -> None:
        path = self._mails / writing.identity(batch.ids)
        new = path.with_suffix(".new")
        with new.open("w") as file:
            json.dump(asdict(batch), file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def flush(spool: Spool, config: Mail, patience: float = PATIENCE) -> bool:
    """Send what waits, for programs other than the agent; wait a moment for what belongs to a mail.

    False if the mail server or the disk does not take it, which is said in one line: it waits for the next sender.
    """
    outbox, until = Outbox(spool, config), time.monotonic() + patience
    try:
        while (wait := outbox.send()) is not None and time.monotonic() + wait < until:
            time.sleep(wait)
    except (MailError, OSError) as error:
        logger.warning("%s; what is to be told waits and is not lost", error)
        return False
    return True


def _batch(events: Sequence[Spooled], now: float) -> _Batch:
    loud = [each.event for each in events if not each.quiet]
    return _Batch([each.event.id for each in events], [[event.vm, event.event] for event in loud], now)


def _named(event: Event, scene: Scene) -> Event:
    """Give the VM its name, if it was not known to who told this; the id is the same."""
    found = scene.units.get(event.vm)
    return replace(event, name=found.name) if found and event.name == event.vm else event


def _read(path: Path) -> _Batch | None:
    try:
        return _Batch(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
