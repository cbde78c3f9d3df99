"""When a VM that does not come up is tried again. Forgotten with the agent: the next one begins with the first wait."""

import time
from collections.abc import Container

from uncloud_host import reconcile
from uncloud_host.facts import Desired
from uncloud_host.models import VM, Status


class Retries:
    """The slow retries of FAILED VMs."""

    def __init__(self) -> None:
        self._tries: dict[str, tuple[int, float]] = {}  # how often it failed, when it is tried again

    def is_due(self, uuid: str, desired: Desired) -> bool:
        """Tell whether to try now; any other status than FAILED means success, and the count begins anew."""
        if not isinstance(desired, VM) or desired.entry.status != Status.FAILED:
            self._tries.pop(uuid, None)
            return False
        if uuid not in self._tries:
            self._count(uuid, 1)
        return time.monotonic() >= self._tries[uuid][1]

    def tried(self, uuid: str) -> None:
        """Count a try."""
        self._count(uuid, self._tries[uuid][0] + 1)

    def not_yet(self, uuid: str) -> None:
        """Take a try back: the start waits for something and is to be tried again at the next look."""
        self._tries[uuid] = (self._tries[uuid][0] - 1, time.monotonic())

    def forget(self, others_than: Container[str]) -> None:
        """Forget VMs that are gone."""
        self._tries = {uuid: tries for uuid, tries in self._tries.items() if uuid in others_than}

    def _count(self, uuid: str, failures: int) -> None:
        self._tries[uuid] = (failures, time.monotonic() + reconcile.retry_delay(failures))
