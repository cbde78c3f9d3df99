"""One stream of watches, as etcd sends them: batches of changes, and proofs of life.

A watch can be silently dead: refused (the answer is "created" and "canceled" at once), on a member without quorum, or
behind a connection that hangs. So this stream is asked for progress at a fixed interval, and its reader decides by the
time that no answer came.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from uncloud_host.etcd3compat import fragment_follows, progress_request, watch_request
from uncloud_host.etcderror import EtcdError, explain
from uncloud_host.etcdsession import status

# key, value or None if it was deleted, create_revision, mod_revision. A plain tuple: most of them are foreign.
Change = tuple[str, bytes | None, int, int]
PROGRESS = -1  # in place of a range's index
DELETED = 1  # mvccpb.Event.DELETE
AHEAD = 16  # answers read ahead of who applies them; gRPC's flow control holds back the rest


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one range (`watch` is its index, or PROGRESS), whole revisions only.

    `revision` is that of the store when the answer was sent, and no point to resume from: etcd < 3.4.25 and < 3.5.8 can
    send a progress answer before changes that it covers (etcd issue 15220), and a watch that catches up is sent old
    changes under the newest revision.
    """

    watch: int
    revision: int
    changes: Sequence[Change] = ()
    created: bool = False
    compacted: bool = False


class WatchError(EtcdError):
    """A stream ended or is not to be trusted; that says nothing about the other endpoints."""


class Watch:
    """A stream of watches; read by one thread."""

    def __init__(
        self,
        start: Callable[[Iterator[Any]], Any],
        ranges: Sequence[tuple[str, bytes, bytes, int]],
        *,
        interval: float,
        endpoint: str,
        distrust: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self._ranges = ranges
        self._interval = interval
        self._distrust = distrust
        self._indexes: dict[int, int] = {}  # etcd's watch id -> index in ranges
        self._fragments: dict[int, list[Change]] = {}
        self._poked = threading.Event()
        self._closed = threading.Event()
        self._answers: queue.Queue[Batch | WatchError] = queue.Queue(AHEAD)
        self._stream = start(self._requests())
        threading.Thread(target=self._pump, name="etcd-watch", daemon=True).start()

    def read(self, timeout: float) -> Batch | None:
        """Return the next batch, or None if there was no answer; raise WatchError when the stream has ended."""
        try:
            answer = self._answers.get(timeout=timeout) if timeout > 0 else self._answers.get_nowait()
        except queue.Empty:
            return None
        if isinstance(answer, WatchError):
            if answer.problem not in ("denied", "closed"):
                self._distrust()
            raise WatchError(str(answer), answer.problem)  # a new one: that in `answer` would keep this frame, and all
        return answer

    def poke(self) -> None:
        """Ask for progress now."""
        self._poked.set()

    def close(self, *, distrust: bool = False) -> None:
        """End the stream; with `distrust` the next connection goes to another endpoint."""
        self._closed.set()
        self._poked.set()
        self._stream.cancel()
        with contextlib.suppress(queue.Full):  # wakes a reader
            self._answers.put_nowait(WatchError(f"etcd {self.endpoint}: the watch was closed", "closed"))
        if distrust:
            self._distrust()

    def _requests(self) -> Iterator[Any]:
        for _, start, end, revision in self._ranges:
            yield watch_request(start, end, revision)
        while not self._closed.is_set():
            self._poked.wait(self._interval)
            self._poked.clear()
            yield progress_request()

    def _pump(self) -> None:
        """Read answers ahead: a thread of its own because gRPC's iterator knows no timeout."""
        try:
            for response in self._stream:
                answer = self._batch(response)
                if not self._hand_over(answer):
                    return
            end = WatchError(f"etcd {self.endpoint}: ended the watch", "unreachable")
        except WatchError as error:
            end = error.with_traceback(None)
        except (grpc.RpcError, ValueError) as error:  # ValueError: another thread has closed the channel
            code, details = status(error)
            error.with_traceback(None)  # gRPC raises the stream itself, which would keep this frame, and all
            problem, saying = explain(code, details, what=self._ranges[0][0], seconds=self._interval)
            end = WatchError(f"etcd {self.endpoint}: {saying}", problem)
        self._hand_over(end)

    def _hand_over(self, answer: Batch | WatchError) -> bool:
        while not self._closed.is_set():
            try:
                self._answers.put(answer, timeout=1.0)
            except queue.Full:
                continue
            return True
        return False

    def _batch(self, response: Any) -> Batch:
        revision = response.header.revision
        index = self._indexes.get(response.watch_id, PROGRESS)
        if response.compact_revision:
            return Batch(max(index, 0), revision, compacted=True)
        if response.canceled:
            refused = self._ranges[len(self._indexes) if index == PROGRESS else index][0]
            problem, saying = explain("CANCELLED", response.cancel_reason, what=refused, seconds=self._interval)
            msg = f"etcd {self.endpoint}: {saying}"
            raise WatchError(msg, problem)
        if response.created:  # etcd answers in the order of the requests
            index = self._indexes[response.watch_id] = len(self._indexes)
            return Batch(index, revision, created=True)
        changes: list[Change] = [
            (
                kv.key.decode(errors="surrogateescape"),
                None if event.type == DELETED else kv.value,
                kv.create_revision,
                kv.mod_revision,
            )
            for event in response.events
            for kv in (event.kv,)
        ]
        before = self._fragments.pop(index, None)
        if before is not None:
            changes = before + changes
        if changes and fragment_follows(response):
            # More of the last revision may come, the ones before it are whole. Etcd puts up to 1000 revisions of any
            # size into one answer, so waiting for all of its fragments could take all memory.
            last = changes[-1][3]
            self._fragments[index] = [change for change in changes if change[3] == last]
            changes = [change for change in changes if change[3] != last]
        return Batch(index, revision, changes)
