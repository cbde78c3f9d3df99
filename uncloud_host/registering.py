"""The records of runs in etcd: written when a run begins and when it has ended, deleted when they are old."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from uncloud_host import runtime, spool
from uncloud_host.channels import Channel
from uncloud_host.etcd import EtcdError
from uncloud_host.facts import Me
from uncloud_host.runs import Boots, Runs
from uncloud_host.store import BATCH, Store

DAY = 86400.0


class Register:
    """The runs of this host, and what it writes of them below /runtime/, by the thread of its channel.

    `is_steady`: whether the clock is to be believed; else nothing is deleted because of its age.
    """

    def __init__(
        self, me: Me, boots: Boots, store: Store, is_steady: Callable[[], bool], directory: Path = spool.DIRECTORY
    ) -> None:
        self._store, self._host, self._is_steady = store, me.host, is_steady
        self._forgotten = directory / "runs/forgotten"
        self._asked = self._repeated = 0
        self.channel = Channel("runtime", self.write, EtcdError)
        self.runs = Runs(me, boots, self.channel.look, directory)

    def repeat(self) -> None:
        """Write all of the last week once more: etcd's history is not the one in which that was written."""
        self._asked += 1
        self.channel.look()

    def write(self) -> None:
        """Write what etcd does not know yet; delete there what is old. Raises EtcdError."""
        if self._repeated != (asked := self._asked):
            closed = self.runs.closed_lately()
            for start in range(0, len(closed), BATCH):
                self._store.write_runs(closed[start : start + BATCH])
            self.runs.reopen()
            self._repeated = asked
        while waiting := self.runs.pending()[:BATCH]:
            self._store.write_runs(waiting)
            self.runs.told(waiting)
        self._forget_old()

    def _forget_old(self) -> None:
        """Once a day."""
        now = time.time()
        if not self._is_steady() or abs(now - _age(self._forgotten)) < DAY:
            return
        with suppress(EtcdError):  # nobody waits for it
            self._store.forget_runs(self._host, runtime.too_old(datetime.fromtimestamp(now, UTC)))
            self._forgotten.touch(mode=0o600)


def _age(mark: Path) -> float:
    """Tell when a file was last touched; 0 if it is not there."""
    try:
        return mark.stat().st_mtime
    except FileNotFoundError:
        return 0.0
