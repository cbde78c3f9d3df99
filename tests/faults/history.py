"""What was written to the entries of VMs, each revision: read beside the agents, so that it can be told who wrote."""

import base64
import json
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Any, Self

from faults.clients import Wish
from lab.machine import LabError
from system.cluster import Cluster
from system.witness import Run
from waiting import eventually

AGENTS = {"status", "status_reason"}  # all that an agent may write in an entry
AGAIN = 0.5  # seconds between two tries to watch


@dataclass(frozen=True, slots=True)
class Change:
    """One revision of an entry; `value` is empty where it was deleted."""

    uuid: str
    revision: int
    value: str


class History:
    """Watches /v1/vm from its first revision, through all that happens to etcd's members. As a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.changes: list[Change] = []
        self.seen = 0  # changes, in all histories that etcd had
        self.revision = 0
        self.since = 0.0  # on time.monotonic's clock: when its revisions began to be those of today
        self._first: dict[str, str] = {}  # entries that were there then
        self.lost: list[str] = []  # what etcd said instead of giving us everything
        self._is_over = threading.Event()
        self._watch: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="history")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._watch:
            self._watch.kill()
        self._thread.join()

    def wait(self, revision: int) -> None:
        """Return when it has seen this one, which was a write to something that begins like the entries."""
        eventually(lambda: self.revision >= revision, within=60, what=lambda: f"revision {revision}: {self.revision}")

    def begin_again(self) -> None:
        """Etcd was wiped, or an old backup restored, and answers again: its revisions are no longer those of before."""
        told = json.loads(self._cluster.etcd.run("etcdctl", "get", "--prefix", "/v1/vm", "--write-out=json").stdout)
        self._first = dict(_pair(kv) for kv in told.get("kvs", []))
        self.changes = []
        self.revision, self.since = told["header"]["revision"], time.monotonic()
        if self._watch:
            self._watch.kill()

    def wrongs(self, wishes: list[Wish]) -> list[str]:
        """Find changes that no user made and that are more than an agent's; each is a user's write lost or undone."""
        found = list(self.lost)
        for wish in wishes:
            before = self._first.get(wish.uuid, "")
            for change in [change for change in list(self.changes) if change.uuid == wish.uuid]:
                is_users = change.value in wish.texts
                if change.value and not is_users and not _is_agents(before, change.value):
                    found.append(f"revision {change.revision} of {wish.uuid}: {before!r} became {change.value!r}")
                before = change.value
        return found

    def revision_of(self, text: str) -> int:
        """The first revision that a user's text had in this history; 0 if it is of an earlier one."""
        return next((change.revision for change in list(self.changes) if change.value == text), 0)

    def value(self, uuid: str, revision: int) -> str:
        """What an entry was at the revision of one of its changes; nothing if that is not known."""
        return next((one.value for one in list(self.changes) if (one.uuid, one.revision) == (uuid, revision)), "")

    def asked(self, run: Run, began: float) -> list[Change]:
        """What was asked for, after a run was started, that ends it: by whom does not matter, `wrongs` sees to that.

        began: when its unit was started, which systemd may have done again and again since, by the same revision.
        When a user believes to have written does not tell: what a member got and never acknowledged, because its cable
        was out, it may take when the cable is in again.
        """
        return [
            change for change in list(self.changes)
            if change.uuid == run.uuid
            and (change.revision > run.revision or began < self.since)
            and _ends(change.value, run.host)
        ]  # fmt: skip

    def _follow(self) -> None:
        while not self._is_over.wait(AGAIN):
            since = self.since
            words = ["watch", "--prefix", "/v1/vm", f"--rev={self.revision + 1}", "--write-out=json"]
            try:
                self._watch = self._cluster.etcd.popen(
                    "etcdctl", *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            except (LabError, StopIteration):  # no host is there at the moment
                continue
            if self.since != since:  # it waits for a revision of an earlier history
                self._watch.kill()
            with self._watch as process:
                assert process.stdout
                for line in process.stdout:
                    self._note(line)

    def _note(self, line: str) -> None:
        if not line.startswith("{"):
            return
        told: dict[str, Any] = json.loads(line)
        self.lost += [line] if told.get("CompactRevision") else []
        for event in told.get("Events") or []:
            kv = event["kv"]
            uuid, value = _pair(kv)
            self.seen += 1
            self.changes.append(Change(uuid, kv["mod_revision"], "" if event.get("type") == 1 else value))
            self.revision = max(self.revision, kv["mod_revision"])


def _pair(kv: dict[str, Any]) -> tuple[str, str]:
    key, value = (base64.b64decode(kv.get(name, "")).decode() for name in ("key", "value"))
    return key.removeprefix("/v1/vm/"), value


def _ends(value: str, host: str) -> bool:
    entry = json.loads(value) if value else {}
    return entry.get("host") != host or entry.get("status") in ("TO_STOP", "TO_RESTART")


def _is_agents(before: str, after: str) -> bool:
    """Whether an agent may have made this of that: an entry that was there, with another status."""
    if not before:
        return False
    old, new = json.loads(before), json.loads(after)
    return {k: v for k, v in old.items() if k not in AGENTS} == {k: v for k, v in new.items() if k not in AGENTS}
