"""Faults at random: each thread of weather injects one after the other, holds it for a time, and takes it back."""

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from faults.clients import User, Wish
from faults.history import History
from lab import Ceph
from lab.host import CommandFailed
from lab.machine import LabError
from system.cluster import Cluster
from system.witness import Run
from system.world import World

PAUSES = (0.2, 2.0)  # seconds between two faults of one weather
SAME = 3  # kills of one VM in a row: each time systemd waits longer before it starts it again
LATE = 60.0  # seconds: of a run that ends longer after something was done to it, that was not why


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that was done, beside what was written to entries, and may end runs: one, or all on a host."""

    time: float  # before it was done, on time.monotonic's clock
    what: str
    invocation: str = ""
    host: str = ""
    until: float = 0.0  # for a host: when it had happened

    def explains(self, run: Run) -> bool:
        if run.gone is None or self.time > run.gone:
            return False
        if self.host:
            return run.host == self.host and run.last <= self.until
        return run.invocation == self.invocation and run.gone < self.time + LATE

    def __str__(self) -> str:
        return f"{self.time:.3f} {self.what} {self.host or self.invocation}"


@dataclass(frozen=True, slots=True)
class Sky:
    """All that a fault may touch, and to whom it has to be told."""

    cluster: Cluster
    ceph: Ceph
    users: Sequence[User]
    causes: list[Cause]
    history: History
    power: dict[str, threading.RLock]  # held by whoever needs that a host is on, or takes it down
    excused: set[str] = field(default_factory=set)  # VMs and hosts for which users may have to ask again
    starved: set[str] = field(default_factory=set)  # hosts whose agent gRPC may have aborted
    flooded: set[str] = field(default_factory=set)  # VMs of which journald keeps no more lines for half a minute

    @property
    def wishes(self) -> list[Wish]:
        return [wish for user in self.users for wish in user.wishes]

    @property
    def mortal(self) -> list[World]:
        """The hosts whose agent and power may be lost. The first one's agent lives, so that its growth can be seen."""
        return self.cluster.worlds[1:]


Fault = Callable[[Sky, random.Random], AbstractContextManager[str]]  # what it gives is what it was done to


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault, and for how many seconds it is held."""

    fault: Fault
    least: float = 0.0
    most: float = 0.0

    @property
    def name(self) -> str:
        return self.fault.__name__.replace("_", " ")


class Weather:
    """One fault after the other, of kinds that must not meet each other. All choices come from the seed."""

    def __init__(self, name: str, sky: Sky, kinds: Sequence[Kind], seed: int) -> None:
        self.name, self._sky, self._kinds, self._chance = name, sky, kinds, random.Random(f"{name} {seed}")
        self.done: Counter[str] = Counter()
        self.log: list[str] = []

    def act(self, is_over: threading.Event) -> None:
        """Inject a fault, hold it, take it back."""
        kind = self._chance.choice(self._kinds)
        hold = self._chance.uniform(kind.least, kind.most)
        began = datetime.now(UTC)
        try:
            with kind.fault(self._sky, self._chance) as target:
                if not target:  # nothing was there to do it to
                    self.done[kind.name] += 0  # what never finds anything is seen in the table
                    return
                is_over.wait(hold)
        except Exception as error:
            error.add_note(f"{kind.name}\n" + "\n".join(self.log[-10:]))
            raise
        self.done[kind.name] += 1
        self.log.append(f"{began:%H:%M:%S.%f} to {datetime.now(UTC):%H:%M:%S.%f} {kind.name}: {target}")


def insist(action: Callable[[], object], within: float = 60) -> None:
    """Repeat what must be done, whatever other faults there are at the moment."""
    deadline = time.monotonic() + within
    while True:
        try:
            action()
        except (CommandFailed, LabError, subprocess.TimeoutExpired):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
