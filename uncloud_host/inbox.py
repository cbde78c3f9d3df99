"""The one queue of the deciding thread: hints from etcd, the bus and Ceph, and the word that it is over."""

import queue
from contextlib import suppress
from dataclasses import dataclass

from uncloud_host import news
from uncloud_host.signs import Sign


@dataclass(frozen=True, slots=True)
class UnitChanged:
    """A unit of ours changed; None: any may have."""

    name: str | None


@dataclass(frozen=True, slots=True)
class LookedAt:
    """There is an answer of Ceph about the disks of a VM that is to be started."""

    uuid: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """All VMs on which there is a claim of this machine."""

    uuids: set[str]


@dataclass(frozen=True, slots=True)
class Said:
    """What QEMU said while a run goes on."""

    uuid: str
    invocation: str
    signs: list[Sign]


@dataclass(frozen=True, slots=True)
class Over:
    """Stop the agent; VMs run on. `error` is why, if it is not by request."""

    error: str = ""


Message = news.Told | UnitChanged | LookedAt | Claimed | Said | Over


class Inbox:
    """Messages from all threads to the one that decides."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def put(self, message: Message) -> None:
        """Leave a message."""
        self._queue.put(message)

    def take(self, timeout: float) -> list[Message]:
        """Wait for a message, at most `timeout` seconds, and take all there are: a hundred changes are one pass."""
        messages: list[Message] = []
        with suppress(queue.Empty):
            messages.append(self._queue.get(timeout=max(0.0, timeout)))
            while True:
                messages.append(self._queue.get_nowait())
        return messages


def is_about_everything(message: Message) -> bool:
    """Tell whether a message says that anything may have changed."""
    match message:
        case UnitChanged(name):
            return name is None
        case news.Synced():
            return True
    return False
