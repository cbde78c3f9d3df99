"""The second witness of a start: nobody has the VM's rbd disks open.

The claim says who may run a VM; Ceph knows who does. Two QEMUs write to an rbd image in turns, and nothing stops them.

Ceph may take its time or be silent, and the one thread that decides must not wait for it: workers ask Ceph, and an
answer comes as a hint to look at the VM again. An answer is for the claim under which it was asked for, is used once,
and not after a few seconds: the order is claim, look, start.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path

from uncloud_host import ceph
from uncloud_host.config import Ceph
from uncloud_host.models import VM
from uncloud_host.needs import Missing

logger = logging.getLogger(__name__)

WORKERS = 4  # each has one rbd at a time, of 30 MiB
FRESH = 10.0  # seconds that an answer is good for: a pass over hundreds of VMs may take some
PATIENCE = 60.0  # seconds for those who have a disk open to close it: Ceph forgets a client that died after 30
PAUSE = 2.0  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Disk:
    """An image that a VM writes to, and which field of the entry says so."""

    field: str
    pool: str
    namespace: str
    image: str

    def __str__(self) -> str:
        """As the entry has it."""
        return f"{self.field}: {'/'.join(filter(None, (self.pool, self.namespace, self.image)))}"


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody has them open: start now."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not known yet, or may change soon; a hint will come. `reason` is for people, or nothing."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class No:
    """Not to be started, and this is why."""

    reason: str


def prepare(vm: VM, access: Ceph) -> None:
    """Make sure that QEMU can open the rbd disks of a VM, if it has any. Raises Missing."""
    for index, disk in enumerate(vm.entry.disks):
        if disk.rbd:
            try:
                ceph.prepare(access)
            except ceph.Problem as problem:
                raise Missing(f"disks[{index}].rbd: {problem}") from None
            return


def disks(vm: VM) -> tuple[Disk, ...]:
    """List the images that a VM writes to."""
    found = []
    for index, disk in enumerate(vm.entry.disks):
        if disk.rbd and not disk.is_readonly:
            pool, *namespace, image = disk.rbd.split("/")
            found.append(Disk(f"disks[{index}].rbd", pool, "".join(namespace), image))
    return tuple(found)


Answer = Free | Later | No


@dataclass(slots=True)
class _Look:
    uuid: str
    claim: str
    disks: tuple[Disk, ...]
    since: float = field(default_factory=time.monotonic)  # when it was first asked for, or Ceph last was silent
    answer: Answer | None = None
    at: float = 0.0  # when it was answered


class Witness:
    """Looks at disks. `told` is called with the uuid of a VM, by another thread, when there is an answer."""

    def __init__(self, access: Ceph, told: Callable[[str], None]) -> None:
        self._access, self._told = access, told
        self._looks: dict[str, _Look] = {}  # of the deciding thread alone
        self._queue: queue.SimpleQueue[_Look] = queue.SimpleQueue()

    def begin(self) -> None:
        """Renew what QEMU reads, on a host that uses Ceph: systemd restarts VMs without asking."""
        if Path(self._access.keyring).exists():
            try:
                ceph.prepare(self._access)
            except ceph.Problem as problem:
                logger.warning("%s; VMs with rbd disks cannot be started", problem)

    def ask(self, vm: VM, claim: str) -> Answer:
        """Tell whether a VM may be started that has just been claimed; blocks never."""
        wanted = disks(vm)
        if not wanted:
            return Free()
        look = self._looks.get(vm.uuid)
        if look is None or (look.claim, look.disks) != (claim, wanted):
            look = self._looks[vm.uuid] = _Look(vm.uuid, claim, wanted)
            self._queue.put(look)
            return Later()
        answer, look.answer = look.answer, None
        if answer is None:
            return Later()
        if time.monotonic() - look.at > FRESH:
            self._queue.put(look)
            return Later()
        if isinstance(answer, Later):
            self._look_again(look)
        else:
            del self._looks[vm.uuid]
        return answer

    def is_asked(self, uuid: str) -> bool:
        """Tell whether a start waits for an answer."""
        return uuid in self._looks

    def drop(self, uuid: str) -> None:
        """Forget what was asked: the start has failed."""
        self._looks.pop(uuid, None)

    def forget(self, others_than: Container[str]) -> None:
        """Forget VMs that are gone."""
        self._looks = {uuid: look for uuid, look in self._looks.items() if uuid in others_than}

    def work(self) -> None:
        """Look at disks for ever, one VM at a time."""
        while True:
            look = self._queue.get()
            answer = self._look(look)
            look.at, look.answer = time.monotonic(), answer
            self._told(look.uuid)

    def _look(self, look: _Look) -> Answer:
        for disk in look.disks:
            try:
                watchers = ceph.watchers(self._access, disk.pool, disk.namespace, disk.image)
            except ceph.Silent as silence:
                look.since = time.monotonic()
                return Later(f"waits for Ceph: {disk}: {silence}")
            except ceph.Problem as problem:
                return No(f"{disk}: {problem}")
            if watchers and time.monotonic() < look.since + PATIENCE:
                return Later(f"waits for {', '.join(watchers)} to close {disk}")
            if watchers:
                return No(f"{disk} is open elsewhere: {', '.join(watchers)}")
        return Free()

    def _look_again(self, look: _Look) -> None:
        timer = threading.Timer(PAUSE, self._queue.put, [look])
        timer.daemon = True
        timer.start()
