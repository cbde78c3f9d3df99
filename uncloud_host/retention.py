"""How long this host's records stay in /v1/log: old ones and too many are deleted, now and then."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from uncloud_host.etcd import EtcdError
from uncloud_host.store import Store

logger = logging.getLogger(__name__)

AGE = 30 * 86400  # seconds
MOST = 10_000  # records
EVERY = 3600.0  # seconds


class Retention:
    """The host's log, of which what is too much is deleted when something is written. For one thread.

    `is_steady`: whether the clock is to be believed; else nothing is deleted because of its age.
    """

    def __init__(self, store: Store, host: str, is_steady: Callable[[], bool]) -> None:
        self._store, self._host, self._is_steady = store, host, is_steady
        self._due = 0.0  # on time.monotonic's clock

    def log(self, records: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        """Write records, as Store.log does. Raises EtcdError if they could not be written."""
        try:
            self._store.log(self._host, records)
        except EtcdError as error:
            if error.problem == "full":  # deleting is allowed even then, and makes room
                self._prune()
            raise
        self._prune()

    def _prune(self) -> None:
        """Delete what is too much, once an hour at most. What cannot be deleted now is deleted later."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY
        try:
            before = oldest(time.time()) if self._is_steady() else 0
            self._store.prune(self._host, before=before, most=MOST)
        except EtcdError as error:
            logger.info("%s; old records of the log are deleted later", error)


def oldest(now: float) -> int:
    """Give the time (nanoseconds since 1970) from which on records are kept."""
    return max(0, int(now) - AGE) * 10**9
