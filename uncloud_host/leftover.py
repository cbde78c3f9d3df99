"""Find claims of this machine that nothing else here leads to: the entry was deleted or moved, and there is no unit.

Only a list of all claims shows them, which takes a second where a hundred thousand VMs have one. So nobody waits for
it: a thread of its own makes it, and what it finds is a hint like any other.
"""

import logging
import threading
import time
from collections.abc import Callable

from uncloud_host.etcd import EtcdError
from uncloud_host.facts import Me
from uncloud_host.store import Store

logger = logging.getLogger(__name__)

PAUSE = 5.0  # seconds, while etcd cannot be read


class Leftovers:
    """The claims of this machine, listed when anything may have changed. `found` is told on which VMs they are."""

    def __init__(self, store: Store, me: Me, found: Callable[[set[str]], None]) -> None:
        self._store, self._me, self._found = store, me, found
        self._asked = threading.Event()

    def look(self) -> None:
        """Ask for a list that begins after this call."""
        self._asked.set()

    def run(self) -> None:
        """List whenever asked to: body of a thread."""
        while True:
            self._asked.wait()
            self._asked.clear()
            try:
                self._found({claim.uuid for claim in self._store.claims_of(self._me)})
            except EtcdError as error:
                logger.debug("%s; claims are listed again", error)
                self._asked.set()
                time.sleep(PAUSE)
