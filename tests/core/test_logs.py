"""Which records are meant, and what people see of them."""

import json
import time
from datetime import datetime
from typing import Any

import pytest
from freezegun import freeze_time

from uncloud_host import logs
from uncloud_host.etcd import EtcdError
from uncloud_host.retention import AGE, EVERY, MOST, Retention, oldest

KEY = "/v1/log/vmhost1/01764086400000000000-abc"
TOLD: dict[str, Any] = {
    "time": "2026-11-25T16:00:00.000Z", "vm": "5d3b", "name": "web-1", "event": "killed", "reason": "a signal",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def table(*values: object, hosts: bool = False) -> list[str]:
    records = [logs.read(KEY, json.dumps(value).encode()) for value in values]
    return list(logs.Table(hosts=hosts).lines(records))


def test_a_record_is_a_line() -> None:
    assert table(TOLD) == ["2026-11-25 16:00:00  web-1  killed     a signal"]
    assert table(TOLD, hosts=True) == ["2026-11-25 16:00:00  vmhost1  web-1  killed     a signal"]
    assert table(TOLD | {"vm": "", "name": "", "event": "etcd-lost"}) == ["2026-11-25 16:00:00  -  etcd-lost  a signal"]


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"time": 7, "vm": [], "reason": {}}']
)
def test_a_record_may_be_anything(value: bytes) -> None:
    record = logs.read(KEY, value)
    assert next(iter(logs.Table(hosts=True).lines([record]))).startswith("2025-11-25 16:00:00  vmhost1  -  ?")
    assert json.loads(record.json())["host"] == "vmhost1"


def test_no_text_does_anything_to_a_terminal() -> None:
    (line,) = table(TOLD | {"name": "\x1b[2J", "reason": "a\nb\r\x9b31m\u202e"})
    assert line.isprintable()
    assert logs.read(KEY, json.dumps(TOLD | {"name": "\x9b\u202e"}).encode()).json().isascii()


def test_columns_grow_and_never_shrink() -> None:
    found = logs.Table(hosts=False)
    short, long = (logs.read(KEY, json.dumps(TOLD | {"name": name}).encode()) for name in ("db", "database-1"))
    at = [next(iter(found.lines([record]))).index("killed") for record in (short, long, short)]
    assert at == [25, 33, 33]


@pytest.mark.parametrize("key", ["", "/", "/v1/log/h/x", "/v1/log/h/1-x", "/v1/log/h/²0000000000000000001-x"])
def test_a_key_that_is_none_of_ours_has_no_time(key: str) -> None:
    assert logs.when(key) == 0
    assert logs.read(key, b"{}").ns == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", "2026-11-25T15:58:30+00:00"),
        ("2h", "2026-11-25T14:00:00+00:00"),
        ("7d", "2026-11-18T16:00:00+00:00"),
        ("today", "2026-11-25T00:00:00+00:00"),
        ("yesterday", "2026-11-24T00:00:00+00:00"),
        ("2026-11-25", "2026-11-25T00:00:00+00:00"),
        ("2026-11-25 12:30", "2026-11-25T12:30:00+00:00"),
        ("2026-11-25T12:30:00+02:00", "2026-11-25T10:30:00+00:00"),
    ],
)
def test_since_when(text: str, expected: str) -> None:
    now = datetime.fromisoformat("2026-11-25T16:00:00+00:00")
    assert logs.since(text, now) == int(datetime.fromisoformat(expected).timestamp()) * 10**9


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 h", "tomorrow", "²h", "2026-13-01", "999999999w"])
def test_since_something_else(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whoever asks says what was expected
        logs.since(text, datetime.fromisoformat("2026-11-25T16:00:00+00:00"))


class Kept:
    """A store that only counts."""

    def __init__(self) -> None:
        self.pruned: list[tuple[str, int, int]] = []
        self.problem: EtcdError | None = None

    def log(self, _host: str, _records: object) -> None:
        if self.problem:
            raise self.problem

    def prune(self, host: str, *, before: int, most: int) -> None:
        self.pruned.append((host, before, most))
        if self.problem:
            raise self.problem


def test_thirty_days_are_kept() -> None:
    with freeze_time("2026-11-25 16:00"):
        at = datetime.fromisoformat("2026-10-26T16:00:00+00:00").timestamp()
        assert oldest(time.time()) == int(at) * 10**9
    assert oldest(0.0) == 0
    assert AGE == 30 * 86400


def test_what_is_too_much_is_deleted_once_an_hour_after_something_was_written() -> None:
    store = Kept()
    with freeze_time("2026-11-25 16:00") as clock:
        kept = Retention(store, "vmhost1", lambda: len(store.pruned) > 0)  # type: ignore[arg-type]
        for _ in range(5):
            kept.log([])
        assert store.pruned == [("vmhost1", 0, MOST)]  # the clock is not to be believed yet
        clock.tick(EVERY - 1)
        kept.log([])
        assert len(store.pruned) == 1
        clock.tick(1)
        kept.log([])
        assert store.pruned[1:] == [("vmhost1", oldest(time.time()), MOST)]


@pytest.mark.parametrize(("problem", "pruned"), [("full", 1), ("unreachable", 0), ("denied", 0)])
def test_nothing_is_deleted_when_nothing_was_written_but_from_a_full_etcd(problem: Any, pruned: int) -> None:
    store = Kept()
    store.problem = EtcdError("etcd: no", problem)
    kept = Retention(store, "vmhost1", lambda: True)  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(EtcdError):
            kept.log([])
    assert len(store.pruned) == pruned
