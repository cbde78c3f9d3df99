"""What Prometheus is told."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.vms import unit
from uncloud_host import config, figures
from uncloud_host.counts import ENDS, Counts, Histogram, Step
from uncloud_host.events import Event, Name
from uncloud_host.facts import Observed
from uncloud_host.figures import Seen, Usage
from uncloud_host.models import Status
from uncloud_host.unit import State, name
from uncloud_host.usage import usage

ONE, TWO = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e12"
NONE = {"mail": 0, "log": 0}
NOTHING = Seen(Counts(), {}, {}, etcd_connected=True, etcd_reconnects=0, bus_reconnects=0, waiting=NONE, failures=NONE)


def values(seen: Seen) -> dict[str, dict[tuple[str, ...], object]]:
    return {
        family.name: {tuple(labels.values()): value for labels, value in family.samples}
        for family in figures.families(seen)
    }


def event(what: Name) -> Event:
    return Event(ONE, what, "i1", datetime.fromtimestamp(0, UTC), "vmhost1", "web-1", "why")


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    assert (histogram.counts, histogram.total) == ([2, 1, 1], pytest.approx(7.65))


def test_a_put_is_heard_of_and_its_unit_becomes_active() -> None:
    counts = Counts()
    counts.heard(ONE, 7, 100.0)
    counts.decided(ONE, 7, Status.TO_START, 100.01)
    counts.step(ONE, Step.CLAIMED, 100.03)
    counts.step(ONE, Step.ASKED, 100.07)
    counts.began(ONE, 100.2)
    counts.step(ONE, Step.WRITTEN, 100.21)
    assert counts.put_to_start.total == pytest.approx(0.2)
    assert [histogram.total for histogram in counts.steps.values()] == pytest.approx([0.01, 0.02, 0.04, 0.13, 0.01])
    counts.began(ONE, 200.0)  # systemd restarted it
    counts.step(ONE, Step.WRITTEN, 200.1)
    assert sum(counts.put_to_start.counts) == 1
    assert all(sum(histogram.counts) == 1 for histogram in counts.steps.values())


@pytest.mark.parametrize(("revision", "status"), [(8, None), (7, Status.FAILED), (7, Status.RUNNING)])
def test_a_start_that_no_put_asked_for_has_no_latency(revision: int, status: Status | None) -> None:
    counts = Counts()
    counts.heard(ONE, 7, 100.0)
    counts.decided(ONE, revision, status, 400.0)
    counts.step(ONE, Step.ASKED, 450.0)
    counts.began(ONE, 500.0)
    assert sum(counts.put_to_start.counts) == 0
    assert not any(sum(histogram.counts) for histogram in counts.steps.values())


def test_nothing_is_kept_of_vms_that_are_gone() -> None:
    counts = Counts()
    for uuid in (ONE, TWO):
        counts.heard(uuid, 7, 100.0)
        counts.decided(uuid, 7, None, 100.1)
        counts.step(uuid, Step.ASKED, 100.2)
    counts.forget(others_than={ONE})
    counts.began(TWO, 101.0)
    assert sum(counts.put_to_start.counts) == 0
    assert counts._starts.keys() == {ONE}


def test_every_state_and_every_end_is_there_from_the_beginning() -> None:
    found = values(NOTHING)
    assert {key: value for (key,), value in found["uncloud_vms"].items()} == {
        "starting": 0, "running": 0, "exited": 0, "stopping": 0, "restarting": 0, "failed": 0, "foreign": 0,
    }  # fmt: skip
    assert set(found["uncloud_ends"]) == {(str(end),) for end in ENDS}
    assert set(found["uncloud_troubles"]) >= {("down",), ("held",), ("disk",)}
    assert set(found["uncloud_vm_info"]) == set()


def test_events_are_counted() -> None:
    counts = Counts()
    for what in (Name.STARTED, Name.KILLED, Name.RESTARTED, Name.KILLED, Name.RESOLVED):
        counts.told(event(what))
    found = values(dataclasses.replace(NOTHING, counts=counts))
    assert (found["uncloud_starts"], found["uncloud_restarts"]) == ({(): 1}, {(): 1})
    assert found["uncloud_ends"]["killed",] == 2
    assert sum(found["uncloud_ends"].values()) == 2  # type: ignore[arg-type]


def test_what_is_known_of_each_vm() -> None:
    units = {ONE: unit("running", since=1000.0), TWO: unit("failed"), "other": Observed(State.RUNNING)}
    used = {ONE: Usage(1.5, None, 7, 8), "other": Usage(1.0)}
    found = values(dataclasses.replace(NOTHING, units=units, usage=used))
    assert found["uncloud_vms"] | {("foreign",): 1, ("running",): 1, ("failed",): 1} == found["uncloud_vms"]
    assert set(found["uncloud_vm_info"]) == {(ONE, "web-1"), (TWO, "web-1")}
    assert found["uncloud_vm_start_time_seconds"] == {(ONE, "web-1"): 1000.0}
    assert found["uncloud_vm_cpu_seconds"] == {(ONE, "web-1"): 1.5}
    assert "uncloud_vm_memory_bytes" not in found  # left out, never 0
    assert found["uncloud_vm_io_written_bytes"] == {(ONE, "web-1"): 8}


def test_troubles_and_findings() -> None:
    found = values(dataclasses.replace(NOTHING, troubles=[("down", "gave-up"), ("down", "missing"), ("new", "x")]))
    assert (found["uncloud_troubles"]["down",], found["uncloud_troubles"]["new",]) == (2, 1)
    assert (found["uncloud_audit_findings"]["missing",], found["uncloud_audit_findings"]["foreign",]) == (1, 0)


def test_usage_is_read_from_the_cgroup(tmp_path: Path) -> None:
    assert usage(ONE, tmp_path) == Usage()
    cgroup = tmp_path / name(ONE)
    cgroup.mkdir()
    (cgroup / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert usage(ONE, tmp_path) == Usage(1.5)
    (cgroup / "memory.current").write_text("4096\n")
    (cgroup / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n")
    assert usage(ONE, tmp_path) == Usage(1.5, 4096, 11, 22)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("127.0.0.1:9477", ("127.0.0.1", 9477)),
        ("[::1]:9477", ("::1", 9477)),
        ("h.example:1", ("h.example", 1)),
    ],
)
def test_where_metrics_are_served(text: str, expected: tuple[str, int] | None) -> None:
    assert config.read({"UNCLOUD_METRICS_LISTEN": text}).metrics_listen == expected
