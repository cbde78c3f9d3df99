"""Speak to etcd: read, list, transact, watch, lease. Plain Python types at the surface, nothing known of VMs.

Of etcd3 only channels, stubs and messages are used. Its watcher spins or hangs when a connection is lost, its
user/password handling fails without TLS on today's grpcio and never renews a token, and its calls have no deadline.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import grpc

from uncloud_host.etcd3compat import messages as pb
from uncloud_host.etcderror import Access, EtcdError, Position, Problem, address, explain
from uncloud_host.etcdmessages import (
    Compare,
    Delete,
    KeyValue,
    Page,
    Put,
    TxnResult,
    conditions,
    entry,
    first,
    names,
    operation_message,
    position_of,
    prefix_end,
    raw,
)
from uncloud_host.etcdsession import Session, authenticate, connect, status
from uncloud_host.etcdwatch import PROGRESS, Batch, Watch, WatchError

__all__ = [
    "PROGRESS",
    "Access",
    "Batch",
    "Compare",
    "Connection",
    "Delete",
    "EtcdError",
    "KeyValue",
    "Page",
    "Position",
    "Problem",
    "Put",
    "TxnResult",
    "Watch",
    "WatchError",
]

PAGE = 1000  # 1.5 MB of typical entries; smaller pages are slower, as etcd 3.4 walks the rest of the index for each
RENEW = ("invalid auth token", "revision of auth store is old", "user name is empty")


class Connection:
    """A connection to one of several endpoints, moving on to the next when one fails. For use by many threads."""

    def __init__(self, access: Access, *, timeout: float = 5.0) -> None:
        if not access.endpoints:
            raise EtcdError("etcd: no endpoint is given", "setup")
        for endpoint in access.endpoints:
            address(endpoint)
        self._access = access
        self._timeout = timeout
        self._lock = threading.RLock()
        self._turn = random.randrange(len(access.endpoints))  # noqa: S311 - no secret
        self._session: Session | None = None
        self._closed = False

    def get(self, *keys: str) -> tuple[int, list[KeyValue | None]]:
        """Read keys at one revision, as the quorum sees them: the revision, and for each key its entry or None."""
        request = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=raw(key))) for key in keys])
        answer = self._call(lambda client, **how: client.kvstub.Txn(request, **how), what=names(keys))
        return answer.header.revision, [first(response.response_range) for response in answer.responses]

    def position(self, key: str) -> Position:
        """Return where history stands, proved by a quorum. `key` is any key that we may read."""
        request = pb.RangeRequest(key=raw(key), keys_only=True)
        answer = self._call(lambda client, **how: client.kvstub.Range(request, **how), what=key)
        return position_of(answer.header)

    def pages(
        self, prefix: str, *, keys_only: bool = False, size: int = PAGE, serializable: bool = False
    ) -> Iterator[Page]:
        """List a prefix in order of keys, all pages at one revision; raises `compacted` if that gets lost meanwhile.

        A serializable list is cheaper for etcd, as it asks no quorum, but may be of an older state.
        """
        start, position = raw(prefix), None
        while True:
            request = pb.RangeRequest(key=start, range_end=prefix_end(prefix), limit=size, keys_only=keys_only)
            request.revision, request.serializable = position.revision if position else 0, serializable
            try:
                answer = self._call(
                    lambda client, request=request, **how: client.kvstub.Range(request, **how),
                    what=prefix,
                    timeout=6 * self._timeout,
                )
            except EtcdError as error:
                if error.problem != "too-big" or size == 1:
                    raise
                size = max(1, size // 4)
                continue
            position = position or position_of(answer.header)
            yield Page(position, [entry(kv) for kv in answer.kvs])
            if not answer.more or not answer.kvs:
                return
            start = answer.kvs[-1].key + b"\0"

    def count(self, prefix: str) -> int:
        """Tell how many keys have a prefix; costs etcd a walk through its index."""
        request = pb.RangeRequest(key=raw(prefix), range_end=prefix_end(prefix), count_only=True)
        answer = self._call(lambda client, **how: client.kvstub.Range(request, **how), what=prefix)
        return int(answer.count)

    def txn(
        self, compare: Sequence[Compare], success: Sequence[Put | Delete], otherwise: Sequence[str] = ()
    ) -> TxnResult:
        """Do `success` if all of `compare` holds, else read the keys `otherwise`.

        With a condition it is tried again after a lost answer; if the lost attempt had worked, `succeeded` is False and
        `otherwise` shows our own value. Without a condition it is tried once, for it might overwrite a later write.
        """
        request = pb.TxnRequest(
            compare=[condition for wanted in compare for condition in conditions(wanted)],
            success=[operation_message(operation) for operation in success],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=raw(key))) for key in otherwise],
        )
        keys = [part.key for part in (*compare, *success)] + list(otherwise)
        answer = self._call(
            lambda client, **how: client.kvstub.Txn(request, **how), what=names(keys), repeat=bool(compare)
        )
        read = () if answer.succeeded else tuple(first(response.response_range) for response in answer.responses)
        return TxnResult(answer.succeeded, answer.header.revision, read)

    def grant(self, seconds: int) -> int:
        """Return a new lease."""
        request = pb.LeaseGrantRequest(TTL=seconds)
        answer = self._call(lambda client, **how: client.leasestub.LeaseGrant(request, **how), what="a lease")
        return int(answer.ID)

    def renew(self, lease: int) -> bool:
        """Keep a lease for another term; False if it has run out."""
        request = pb.LeaseKeepAliveRequest(ID=lease)
        answer = self._call(
            lambda client, **how: next(client.leasestub.LeaseKeepAlive(iter((request,)), **how), None), what="a lease"
        )
        return answer is not None and answer.TTL > 0

    def watch(self, ranges: Sequence[tuple[str, int]], *, interval: float) -> Watch:
        """Watch prefixes, each from a revision on, in one stream that proves every `interval` that it is alive."""
        session = self._open()
        metadata = (("hasleader", "true"), *session.metadata)  # without it a cut off member is silent for ever
        try:
            return Watch(
                lambda requests: pb.WatchStub(session.client.channel).Watch(requests, metadata=metadata),
                [(prefix, raw(prefix), prefix_end(prefix), revision) for prefix, revision in ranges],
                interval=interval,
                endpoint=session.endpoint,
                distrust=lambda: self._drop(session),
            )
        except ValueError:  # another thread has just closed the channel
            msg = f"etcd {session.endpoint}: connection lost"
            raise WatchError(msg, "unreachable") from None

    def close(self) -> None:
        """Close for good: calls under way and later ones raise `closed`."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session:
            session.client.close()

    def _call(self, send: Callable[..., Any], *, what: str, timeout: float | None = None, repeat: bool = True) -> Any:
        """Make one call, on the next endpoint if one fails, and all in all no longer than two deadlines."""
        seconds = timeout or self._timeout
        end = time.monotonic() + 2 * seconds
        failures: dict[str, str] = {}
        renewed = False
        attempts = len(self._access.endpoints) + 1
        while attempts and time.monotonic() < end:
            session = None
            try:
                session = self._open()
                return send(session.client, timeout=min(seconds, end - time.monotonic()), metadata=session.metadata)
            except EtcdError as error:  # not connected, so nothing was sent
                if error.problem != "unreachable":
                    raise
                endpoint, _, why = str(error).partition(": ")
                failures[endpoint] = why
            except (grpc.RpcError, ValueError) as error:  # ValueError: another thread has closed the channel
                assert session is not None  # noqa: S101 - for mypy: _open raises EtcdError only
                code, details = status(error)
                if not renewed and any(words in details for words in RENEW):
                    renewed = self._renew_token(session)
                    continue
                problem, saying = explain(code, details, what=what, seconds=seconds)
                self._judge(session, problem, saying)
                failures[f"etcd {session.endpoint}"] = saying
                if not repeat:
                    _unreachable({endpoint: f"{why}; it may have been written" for endpoint, why in failures.items()})
            attempts -= 1
        return _unreachable(failures)

    def _judge(self, session: Session, problem: Problem, saying: str) -> None:
        """Drop a session that failed us; raise what another endpoint would say as well."""
        if self._closed:
            raise EtcdError("the connection to etcd was closed", "closed")
        if problem != "unreachable":
            msg = f"etcd {session.endpoint}: {saying}"
            raise EtcdError(msg, problem)
        self._drop(session)

    def _open(self) -> Session:
        with self._lock:
            if self._closed:
                raise EtcdError("the connection to etcd was closed", "closed")
            if self._session is None:
                endpoint = self._access.endpoints[self._turn % len(self._access.endpoints)]
                try:
                    self._session = connect(endpoint, self._access, timeout=self._timeout)
                except EtcdError:
                    self._turn += 1
                    raise
            return self._session

    def _drop(self, session: Session) -> None:
        with self._lock:
            if self._session is None or self._session.client is not session.client:
                return
            self._session = None
            self._turn += 1
        session.client.close()

    def _renew_token(self, session: Session) -> bool:
        """Get a new token, unless another thread just did. The channel and a watch on it go on."""
        with self._lock:
            if self._session is session:
                try:
                    metadata = authenticate(session.client, self._access, timeout=self._timeout)
                    self._session = Session(session.endpoint, session.client, metadata)
                except (grpc.RpcError, ValueError):
                    self._drop(session)  # the next attempt connects anew and says what is wrong
        return True


def _unreachable(failures: dict[str, str]) -> NoReturn:
    raise EtcdError("; ".join(f"{endpoint}: {why}" for endpoint, why in failures.items()), "unreachable")
