"""The command `log`: what happened, from /v1/log, and with -f what happens."""

import heapq
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from datetime import datetime

from uncloud_host import logs
from uncloud_host.etcd import EtcdError, KeyValue, Position, WatchError
from uncloud_host.events import clean
from uncloud_host.logs import Record
from uncloud_host.snapshot import Snapshot, Wrong, one
from uncloud_host.store import Store

LINES = 100  # are shown, if nothing else is said
INTERVAL = 2.0  # seconds in which a watch proves that it is alive
SILENT = 3  # so many intervals without an answer are doubt
AGAIN = 1.0  # seconds between attempts to reach an etcd that is away


def log(arguments: Namespace, now: Snapshot) -> int:
    """Show records, oldest first, and then those that are written, if asked."""
    found = _Log(now.store, None if arguments.all else now.me.host)
    start = _since(arguments.since) if arguments.since else 0
    lines = arguments.lines if arguments.lines is not None else None if start else LINES
    uuid = found.vm(arguments.vm) or now.find(arguments.vm) if arguments.vm else ""
    position, records = found.read(uuid, start, lines)
    table = logs.Table(hosts=arguments.all)

    def show(records: list[Record], *, head: bool = False) -> None:
        text = [record.json() for record in records] if arguments.json else table.lines(records, head=head)
        for line in text:
            print(line)
        sys.stdout.flush()

    show(records, head=True)
    if arguments.follow:
        _follow(found, uuid, position, show)
    return 0


class _Log:
    """The records of one host, or of all."""

    def __init__(self, store: Store, host: str | None) -> None:
        self._store, self._host = store, host

    def vm(self, word: str) -> str:
        """Tell which VM is meant, also if it is gone; nothing if no record knows it. Raises Wrong."""
        names: dict[str, str] = {}
        known = (word.encode(errors="replace"), word.lower().encode(errors="replace"), b"\\")
        for page in self._store.logged(self._host):
            for kv in page.entries:
                if any(part in kv.value for part in known):
                    record = logs.read(kv.key, kv.value)
                    names |= {uuid: record.word("name") or uuid for uuid in [record.word("vm")] if uuid}
        return one(word, names)

    def read(self, uuid: str, start: int, lines: int | None) -> tuple[Position, list[Record]]:
        """Read the last records, and where history stood then."""
        hosts: dict[str, deque[tuple[int, str, bytes]]] = {}
        position = None
        for page in self._store.logged(self._host):
            position = position or page.position
            for kv in page.entries:
                at, host = logs.when(kv.key), kv.key.rpartition("/")[0]
                if at >= start and (not uuid or _is_about(uuid, kv)):
                    hosts.setdefault(host, deque(maxlen=lines)).append((at, kv.key, kv.value))
        assert position  # noqa: S101 - for mypy: there is always one page
        merged = heapq.merge(*hosts.values())
        return position, [logs.read(key, value) for _, key, value in deque(merged, maxlen=lines)]

    def since(self, revision: int) -> tuple[Position, list[KeyValue]]:
        """Read what was written after a revision, although history has been compacted since."""
        position, found = None, []
        for page in self._store.logged(self._host):
            position = position or page.position
            found += [kv for kv in page.entries if kv.mod_revision > revision]
        assert position  # noqa: S101
        return position, sorted(found, key=lambda kv: kv.mod_revision)

    def watch(self, revision: int, take: Callable[[list[KeyValue], int], None]) -> None:
        """Hand over what is written after a revision. Returns never; raises EtcdError when that cannot go on."""
        watch = self._store.follow(self._host, revision + 1, interval=INTERVAL)
        try:
            while batch := watch.read(SILENT * INTERVAL):
                if batch.compacted:
                    return
                if batch.changes:
                    new = [KeyValue(key, value or b"", made, at) for key, value, made, at in batch.changes]
                    take(new, new[-1].mod_revision)
        finally:
            watch.close()
        msg = f"etcd {watch.endpoint}: no answer"
        raise WatchError(msg, "unreachable")


def _is_about(uuid: str, kv: KeyValue) -> bool:
    return uuid.encode() in kv.value and logs.read(kv.key, kv.value).word("vm") == uuid


def _follow(found: _Log, uuid: str, position: Position, show: Callable[[list[Record]], None]) -> None:
    """Show what is written from now on, each record once, over any outage; until somebody ends it."""
    revision = position.revision

    def take(new: list[KeyValue], upto: int) -> None:
        nonlocal revision
        # Deleted ones have no value. Nobody changes records; if somebody does, they are not new.
        records = [logs.read(kv.key, kv.value) for kv in new if kv.value and kv.create_revision == kv.mod_revision]
        show([record for record in records if uuid in ("", record.word("vm"))])
        revision = upto

    while True:
        try:
            found.watch(revision, take)
        except EtcdError as error:
            _complain(f"{error}; it goes on when etcd is back")
        before, (position, new) = position, _missed(found, revision)
        if position.follows(before):
            take(new, position.revision)
        else:
            _complain("etcd's history went backwards; what was recorded meanwhile is not shown")
            revision = position.revision


def _missed(found: _Log, revision: int) -> tuple[Position, list[KeyValue]]:
    """Wait for etcd, and read what was written meanwhile. Raises EtcdError if waiting does not help."""
    while True:
        try:
            return found.since(revision)
        except EtcdError as error:
            if error.problem in ("denied", "setup"):
                raise
            time.sleep(AGAIN)


def _since(text: str) -> int:
    try:
        return logs.since(text, datetime.now().astimezone())
    except ValueError:
        raise Wrong(
            f"--since: expected a duration like 2h or 7d, today, yesterday or 2026-11-25T16:00, got {text!r}"
        ) from None


def _complain(text: str) -> None:
    print(f"uncloud-host: {clean(text)}", file=sys.stderr, flush=True)
