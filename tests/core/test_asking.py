"""What start, stop and restart make of an entry: written to only where it helps, also when somebody else is faster."""

import dataclasses
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from uncloud_host import asking
from uncloud_host.asking import WISHES, judged
from uncloud_host.desired import read
from uncloud_host.etcd import KeyValue
from uncloud_host.facts import Gone, Me, Observed
from uncloud_host.patch import patched
from uncloud_host.unit import Evidence, State
from uncloud_host.view import Seen

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
RUNS = Observed(State.RUNNING, Evidence("vmhost1", "c1", 5, "f", "web-1", ""), "i1")
ABSENT = Observed(State.ABSENT)


class Etcd:
    """One entry; the first `overtaken` writes come too late, for somebody else has just added a field."""

    def __init__(self, value: str, overtaken: int = 0) -> None:
        self.entry = KeyValue(f"/v1/vm/{UUID}", value.encode(), 3, 9)
        self.overtaken = overtaken

    def read(self, _uuid: str) -> tuple[KeyValue, None]:
        return self.entry, None

    def set_status(self, entry: KeyValue, changes: Mapping[str, str | None]) -> bool:
        if self.overtaken:
            self.overtaken -= 1
            self._put(patched(self.entry.value, {f"x{self.overtaken}": "theirs"}))
        if entry.mod_revision != self.entry.mod_revision:
            return False
        self._put(patched(entry.value, changes))
        return True

    def _put(self, value: bytes) -> None:
        self.entry = self.entry._replace(value=value, mod_revision=self.entry.mod_revision + 1)


def ask(command: str, etcd: Etcd, observed: Observed = ABSENT) -> str:
    now: Any = SimpleNamespace(
        store=etcd,
        me=Me("vmhost1", "m1", "b1"),
        seen=lambda uuid, entry, _claim: Seen(read(uuid, entry), json.loads(entry.value), observed, None),
    )
    return asking._ask(now, UUID, WISHES[command]).result


@pytest.mark.parametrize(
    ("command", "status", "host", "observed", "result"),
    [
        ("start", "STOP",    "vmhost1", ABSENT, "asked"),
        ("start", "FAILED",  "vmhost1", ABSENT, "asked"),
        ("start", "RUNNING", "vmhost1", RUNS, "done"),
        ("start", "RUNNING", "vmhost1", ABSENT, "asked"),
        ("start", "RUNNING", "vmhost1", dataclasses.replace(RUNS, evidence=None), "asked"),
        ("start", "RUNNING", "vmhost2", ABSENT, "done"),
        ("start", "GO",      "vmhost1", ABSENT, "asked"),
        ("stop",  "RUNNING", "vmhost1", RUNS, "asked"),
        ("stop",  "STOP",    "vmhost1", ABSENT, "done"),
        ("stop",  "STOP",    "vmhost1", RUNS, "asked"),
        ("stop",  "STOP",    "vmhost2", ABSENT, "done"),
        ("stop",  "STOP",    "", ABSENT, "refused"),
        ("restart", "RUNNING", "vmhost1", RUNS, "asked"),
        ("restart", "STOP",    "vmhost1", ABSENT, "asked"),
    ],
)  # fmt: skip
def test_what_is_asked(command: str, status: str, host: str, observed: Observed, result: str) -> None:
    etcd = Etcd(json.dumps({"host": host, "status": status}))
    assert ask(command, etcd, observed) == result
    wanted = WISHES[command].ask if result == "asked" else status
    assert json.loads(etcd.entry.value) == {"host": host, "status": wanted}


def test_what_somebody_else_wrote_meanwhile_is_kept() -> None:
    etcd = Etcd('{"host": "vmhost1",  "status": "RUNNING"}', overtaken=2)
    assert ask("stop", etcd, RUNS) == "asked"
    assert etcd.entry.value == b'{"x0": "theirs", "x1": "theirs", "host": "vmhost1",  "status": "TO_STOP"}'


def test_who_is_always_too_late_says_so() -> None:
    assert ask("stop", Etcd('{"host": "vmhost1"}', overtaken=99), RUNS) == "refused"


@pytest.mark.parametrize(
    ("command", "status", "result"),
    [
        ("start", "TO_START", None), ("start", "RUNNING", "done"), ("start", "FAILED", "failed"),
        ("start", "TO_STOP", "failed"), ("start", "GO", "failed"), ("start", None, "failed"),
        ("stop", "TO_STOP", None), ("stop", "STOP", "done"), ("stop", "RUNNING", "failed"),
        ("restart", "TO_RESTART", None), ("restart", "RUNNING", "done"), ("restart", "STOP", "failed"),
    ],
)  # fmt: skip
def test_how_waiting_ends(command: str, status: str | None, result: str | None) -> None:
    written = {"host": "vmhost1"} | ({"status": status} if status else {})
    desired = read(UUID, KeyValue("", json.dumps(written).encode(), 3, 9))
    outcome = judged(Seen(desired, written, RUNS, None), WISHES[command])
    assert (outcome.result if outcome else None) == result


def test_waiting_ends_when_the_entry_is_deleted() -> None:
    outcome = judged(Seen(Gone(UUID), {}, RUNS, None), WISHES["stop"])
    assert outcome
    assert outcome.result == "failed"
