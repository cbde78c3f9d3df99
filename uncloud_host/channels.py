"""Pass events on: to the log in etcd and by mail, each at its own pace, in threads of their own.

A channel takes what it has not told yet from the spool, in order, until it is told. Nothing is lost while etcd or the
mail server is away, and one of them waits for the other no time.
"""

import logging
import queue
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from uncloud_host import mail
from uncloud_host.config import Mail
from uncloud_host.etcd import EtcdError
from uncloud_host.events import Name
from uncloud_host.mail import MailError, Rejected
from uncloud_host.retention import Retention
from uncloud_host.spool import Spool, Spooled
from uncloud_host.store import Store

logger = logging.getLogger(__name__)

RETRY = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds, while somebody does not take what we tell


T = TypeVar("T")


class Waiting(Protocol[T]):
    """What keeps things until they are told, as the spool does with events."""

    def pending(self, channel: str, /) -> Sequence[T]:
        """List what a channel has not told yet."""
        ...

    def told(self, channel: str, some: Sequence[T], /) -> None:
        """Remember that a channel has told these."""
        ...


class Channel(Generic[T]):
    """One way out of the spool. `send` takes what `batch` chooses from all that waits, all or none.

    `then` is done when nothing waits any more.
    """

    def __init__(
        self,
        name: str,
        spool: Waiting[T],
        send: Callable[[Sequence[T]], None],
        refusal: type[Exception],
        batch: Callable[[Sequence[T]], Sequence[T]],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.failures = 0  # since the start
        self._spool, self._send, self._refusal, self._batch, self._then = spool, send, refusal, batch, then
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
            try:
                self._tell_all()
                if failures:
                    logger.info("%s: works again", self.name)
                failures = 0
            except (self._refusal, OSError) as error:  # OSError: the disk is full, and nothing can be marked as told
                if not failures:
                    logger.warning("%s; what is to be told waits and is not lost", error)
                failures += 1
                self.failures += 1
            if not self._wait(RETRY[min(failures, len(RETRY)) - 1] if failures else None):
                return

    def _wait(self, timeout: float | None) -> bool:
        """Wait until there is something to do; a hundred calls are one. False: it is over."""
        try:
            go_on = self._queue.get(timeout=timeout)
            while go_on:
                go_on = self._queue.get_nowait()
        except queue.Empty:
            return True
        return False

    def _tell_all(self) -> None:
        while waiting := self._spool.pending(self.name):
            batch = self._batch(waiting)
            self._send(batch)
            self._spool.told(self.name, batch)
        self._then()


def channels(spool: Spool, store: Store, host: str, config: Mail) -> tuple[Channel[Spooled], Channel[Spooled]]:
    """Make the channels to the log and to the mailbox."""
    kept = Retention(store, host)

    def log(events: Sequence[Spooled]) -> None:
        kept.log([(spooled.ns, spooled.event.record()) for spooled in events])

    def post(events: Sequence[Spooled]) -> None:
        if config.to and events[0].event.event in config.on:
            try:
                mail.send(mail.message([spooled.event for spooled in events], config.sender, config.to), config)
            except Rejected as error:  # trying again would only keep the others waiting
                logger.warning("%s; that mail is given up, the event is in the log", error)

    return Channel("log", spool, log, EtcdError, lambda waiting: waiting[:100]), Channel(
        "mail", spool, post, MailError, _one_mail
    )


def _one_mail(waiting: Sequence[Spooled]) -> Sequence[Spooled]:
    """Choose what the next mail tells: one event, but all VMs that are held.

    One mail at a time: each is remembered as told before the next, so that none goes out twice for another's failure.
    """
    first = waiting[0].event.event
    return [spooled for spooled in waiting if spooled.event.event == first] if first == Name.HELD else waiting[:1]
