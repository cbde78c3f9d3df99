"""Pass events on: to the log in etcd and by mail, each at its own pace, in threads of their own.

A channel takes what it has not told yet from the spool, in order, until it is told. Nothing is lost while etcd or the
mail server is away, and one of them waits for the other no time.
"""

import logging
import queue
from collections.abc import Callable

from uncloud_host.config import Mail
from uncloud_host.etcd import EtcdError
from uncloud_host.mail import MailError
from uncloud_host.outbox import Outbox
from uncloud_host.retention import Retention
from uncloud_host.spool import Spool
from uncloud_host.store import Store

logger = logging.getLogger(__name__)

BATCH = 100  # records
LOOK = 60.0  # seconds between looks: other programs put events into the spool, too
RETRY = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds, while somebody does not take what we tell


class Channel:
    """One way out of the spool. `tell` tells what is due, and gives the seconds until something else is, if it is."""

    def __init__(self, name: str, tell: Callable[[], float | None], refusal: type[Exception]) -> None:
        self.name = name
        self.failures = 0  # since the start
        self._tell, self._refusal = tell, refusal
        self._queue: queue.SimpleQueue[bool] = queue.SimpleQueue()  # whether to go on

    def look(self) -> None:
        """There is something to tell, or it may be possible again."""
        self._queue.put(item=True)

    def end(self) -> None:
        """Let `run` return."""
        self._queue.put(item=False)

    def run(self) -> None:
        """Tell what there is, until the end: body of a thread. Says once that it fails, once that it works."""
        failures = 0
        while True:
            due: float | None = None
            try:
                due = self._tell()
                if failures:
                    logger.info("%s: works again", self.name)
                failures = 0
            except (self._refusal, OSError) as error:  # OSError: the disk is full, and nothing can be marked as told
                if not failures:
                    logger.warning("%s; what is to be told waits and is not lost", error)
                failures += 1
                self.failures += 1
            if not self._wait(RETRY[min(failures, len(RETRY)) - 1] if failures else min(due or LOOK, LOOK)):
                return

    def _wait(self, timeout: float) -> bool:
        """Wait until there is something to do; a hundred calls are one. False: it is over."""
        try:
            go_on = self._queue.get(timeout=timeout)
            while go_on:
                go_on = self._queue.get_nowait()
        except queue.Empty:
            return True
        return False


def channels(
    spool: Spool, store: Store, host: str, config: Mail, is_steady: Callable[[], bool]
) -> tuple[Channel, Channel]:
    """Make the channels to the log and to the mailbox. `is_steady`: whether the clock is to be believed."""
    kept = Retention(store, host, is_steady)

    def log() -> None:
        while waiting := spool.pending("log")[:BATCH]:
            kept.log([(spooled.ns, spooled.event.record()) for spooled in waiting])
            spool.told("log", waiting)

    return Channel("log", log, EtcdError), Channel("mail", Outbox(spool, config).send, MailError)
