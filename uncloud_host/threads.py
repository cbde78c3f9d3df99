"""The threads beside the one that decides: each waits for one neighbour and puts what it hears into the queue."""

import logging
import threading
from collections.abc import Callable, Sequence

from uncloud_host import hints
from uncloud_host.channels import Channel
from uncloud_host.etcd import Position
from uncloud_host.inbox import Inbox, Over, UnitChanged
from uncloud_host.leftover import Leftovers
from uncloud_host.mirror import Mirror
from uncloud_host.recordings import Recordings
from uncloud_host.witness import WORKERS, Witness

logger = logging.getLogger(__name__)


class Threads:
    """All of them; if one fails, the agent ends, and systemd starts a new one."""

    def __init__(
        self,
        inbox: Inbox,
        mirror: Mirror,
        leftovers: Leftovers,
        channels: Sequence[Channel],
        witness: Witness,
        recordings: Recordings,
    ) -> None:
        self._inbox, self._mirror, self._leftovers, self._channels = inbox, mirror, leftovers, channels
        self._witness, self._recordings = witness, recordings
        self._is_over = threading.Event()
        self.bus_connections = 0

    def start(self, known: Position | None) -> None:
        """Begin to listen to etcd, where its history stood at `known`, and to the bus; begin to tell."""
        self._thread("etcd", lambda: self._mirror.run(known))
        self._thread("claims", self._leftovers.run)
        self._thread("bus", self._watch_bus)
        for channel in self._channels:
            self._thread(channel.name, channel.run)
        self._thread("qemu", self._recordings.run)
        self._witness.begin()
        for number in range(WORKERS):
            self._thread(f"rbd-{number}", self._witness.work)

    def stop(self) -> None:
        """Ask them to end; nobody waits for one that hangs."""
        self._is_over.set()
        for channel in self._channels:
            channel.end()
        self._mirror.stop()

    def _watch_bus(self) -> None:
        def connected() -> None:
            self.bus_connections += 1

        hints.watch(lambda name: self._inbox.put(UnitChanged(name)), self._is_over.is_set, connected)

    def _thread(self, name: str, body: Callable[[], None]) -> None:
        def supervised() -> None:
            try:
                body()
            except Exception:  # the one broad one: whatever it is, a new agent is better than half of one
                logger.exception("the thread %s failed", name)
                self._inbox.put(Over(f"the thread {name} failed"))

        threading.Thread(target=supervised, name=name, daemon=True).start()
