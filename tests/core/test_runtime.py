"""How long VMs ran: records, months, sums."""

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from freezegun import freeze_time

from uncloud_host import accounts, runtime
from uncloud_host.accounts import Period, moment, month
from uncloud_host.endings import End, ended, has_run
from uncloud_host.facts import Me
from uncloud_host.runtime import Run

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
ME = Me("vmhost1", "m1", "b1")


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def run(started: str, stopped: str = "", **fields: object) -> Run:
    began = runtime.opened(UUID, "i1", "web-1", at(started) / 1000, ME)
    return dataclasses.replace(began, **{"stopped": at(stopped) if stopped else None} | fields)  # type: ignore[arg-type]


def end(**seen: object) -> End:
    times = {"started": 1795624000.1234, "ended": 1795624060.6239}
    return End(vm=UUID, invocation="i1", **{"by": "itself", "boot_id": "b1"} | times | seen)  # type: ignore[arg-type]


def closed(seen: End, since: float = 1795624000.2) -> Run:
    return runtime.closed(runtime.opened(UUID, "i1", "web-1", since, ME), seen, ended(seen, "vmhost1", "web-1"))


def test_an_open_record_says_null_for_all_that_is_not_known() -> None:
    began = runtime.opened(UUID, "i1", "web-1", at("2026-11-25T16:25:45.007Z") / 1000, ME, vnc="127.0.0.1:5900")
    assert began.path == f"{UUID}/20261125T162545Z-i1"
    nothing = dict.fromkeys(
        ("stopped", "seconds", "event", "reason", "exit", "cpu_seconds", "memory_peak", "io_read_bytes",
         "io_write_bytes", "reboots")
    )  # fmt: skip
    assert began.record() == nothing | {
        "vm": UUID, "host": "vmhost1", "name": "web-1", "invocation": "i1", "boot_id": "b1",
        "started": "2026-11-25T16:25:45.007Z", "vnc": "127.0.0.1:5900", "estimated": False,
    }  # fmt: skip


def test_a_closed_record_has_the_times_of_the_end_and_keeps_its_key() -> None:
    usage = {"CPUUsageNSec": 12_345_678_901, "MemoryPeak": 4096, "IOReadBytes": 0}
    seen = closed(end(exit_code="killed", exit_status="SEGV", usage=usage, reboots=2), since=1795623999.99)
    assert seen.key == "20261125T162639Z-i1"
    told = seen.record()
    assert (told["started"], told["stopped"]) == ("2026-11-25T16:26:40.123Z", "2026-11-25T16:27:40.624Z")
    assert told["seconds"] == 60.501
    assert (told["event"], told["exit"], told["reboots"]) == ("crashed", "SEGV", 2)
    assert (told["cpu_seconds"], told["memory_peak"], told["io_read_bytes"]) == (12.346, 4096, 0)
    assert told["io_write_bytes"] is None


ENDS = [
    (end(exit_code="exited", exit_status="1"), {"exit": 1, "event": "crashed", "estimated": False}),
    (end(exit_code="dumped", exit_status="ABRT"), {"exit": "ABRT", "event": "crashed"}),
    (end(by="host"), {"exit": None, "event": "killed", "estimated": True,
                      "reason": "this host went down without shutting down"}),
    (end(boot_id="", exit_code="killed", exit_status="KILL"), {"reboots": None, "boot_id": "b1"}),
    (end(boot_id="b0", usage={"CPUUsageNSec": 1}), {"boot_id": "b0", "reboots": 0}),
    (end(started=0.0), {"started": "2026-11-25T16:26:40.200Z", "seconds": 60.424}),
    (end(ended=1795620000.0), {"seconds": 0.0, "stopped": "2026-11-25T16:26:40.123Z"}),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "told"), ENDS, ids=[str(told) for _, told in ENDS])
def test_what_an_end_becomes(seen: End, told: dict[str, object]) -> None:
    assert told.items() <= closed(seen).record().items()


def test_what_is_written_is_read() -> None:
    for seen in (
        closed(end(usage={"CPUUsageNSec": 5})),
        runtime.opened(UUID, "i1", "web-1", 1795624000.2, ME, "[::1]:5900"),
    ):
        assert runtime.read(seen.path, json.dumps(seen.record())) == seen


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"started": "x"}', '{"started": "2026-11-25T16:00:00"}', "null",
                                  '{"started": "2026-11-25T16:00:00Z", "cpu_seconds": NaN}',
                                  '{"started": "2026-11-25T16:00:00Z", "host": 1}'])  # fmt: skip
def test_what_is_no_record_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kind
        runtime.read(f"{UUID}/20261125T160000Z-i1", text)


def test_a_record_is_closed_once_and_never_opened_again() -> None:
    open_, over = run("2026-11-25T16:00:00Z"), run("2026-11-25T16:00:00Z", "2026-11-25T17:00:00Z")
    there = {one: json.dumps(one.record()).encode() for one in (open_, over)}
    others = json.dumps(dataclasses.replace(open_, host="vmhost2").record()).encode()
    assert [runtime.may_write(open_, found) for found in (None, there[open_], there[over])] == [True, False, False]
    assert [runtime.may_write(over, found) for found in (None, there[open_], there[over])] == [True, True, False]
    assert not runtime.may_write(over, others)
    assert runtime.may_write(over, b"{")
    assert not runtime.may_write(open_, b"{")


def test_what_systemd_could_not_set_up_is_no_run() -> None:
    assert not has_run(end(exit_code="exited", exit_status="202"))
    assert not has_run(end(result="exit-code"))
    assert has_run(end(exit_code="exited", exit_status="1", ended=1795624000.5))  # QEMU was there, if shortly
    assert has_run(end(by="host"))


@pytest.mark.parametrize(
    ("today", "first"),
    [("2026-11-25", "2025-10-01"), ("2026-12-31T23:59:59", "2025-11-01"), ("2027-01-01", "2025-12-01"),
     ("2027-02-28", "2026-01-01"), ("2028-02-29", "2027-01-01")],
)  # fmt: skip
def test_thirteen_whole_months_are_kept(today: str, first: str) -> None:
    with freeze_time(today):
        limit = runtime.too_old(datetime.now(UTC))
    assert limit == at(f"{first}T00:00:00Z")
    old = dataclasses.replace(run(f"{first}T00:00:00Z"), stopped=limit - 1, started=limit - 5000)
    value = json.dumps(old.record()).encode()
    assert runtime.is_old(old.path, value, "vmhost1", limit)
    assert not runtime.is_old(old.path, value, "vmhost2", limit)
    for other in (dataclasses.replace(old, stopped=limit), dataclasses.replace(old, stopped=None)):
        assert not runtime.is_old(other.path, json.dumps(other.record()).encode(), "vmhost1", limit)
    assert not runtime.is_old(old.path, b"{}", "vmhost1", limit)
    assert runtime.may_be_old(runtime.opened(UUID, "i", "n", limit / 1000 - 1, ME).key, limit)
    assert not runtime.may_be_old(runtime.opened(UUID, "i", "n", limit / 1000, ME).key, limit)


HOURS = 3_600_000
MONTHS = [
    # month, a run, its seconds in that month
    ("2026-11", ("2026-11-05T00:00:00Z", "2026-11-05T01:00:00.001Z"), 3600.001),
    ("2026-11", ("2026-10-31T23:00:00Z", "2026-11-01T00:30:00Z"), 1800),
    ("2026-10", ("2026-10-31T23:00:00Z", "2026-11-01T00:30:00Z"), 3600),
    ("2026-11", ("2026-10-31T23:00:00Z", "2026-11-01T00:00:00Z"), None),
    ("2026-11", ("2026-12-01T00:00:00Z", "2026-12-01T00:00:01Z"), None),
    ("2026-11", ("2026-10-01T00:00:00Z", "2027-10-01T00:00:00Z"), 30 * 86400),
    ("2026-12", ("2026-12-31T23:59:59Z", "2027-01-01T00:00:01Z"), 1),
    ("2027-01", ("2026-12-31T23:59:59Z", "2027-01-01T00:00:01Z"), 1),
    ("2028-02", ("2028-01-01T00:00:00Z", "2028-06-01T00:00:00Z"), 29 * 86400),
    ("2027-02", ("2027-01-01T00:00:00Z", "2027-06-01T00:00:00Z"), 28 * 86400),
    # Clocks of people are changed at the end of March and October; UTC's are not.
    ("2026-03", ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"), 31 * 86400),
    ("2026-11", ("2026-11-05T00:00:00Z", "2026-11-05T00:00:00Z"), 0),
    # It goes on; now is 2026-11-25T16:00:00Z.
    ("2026-11", ("2026-11-25T15:00:00Z", ""), 3600),
    ("2026-11", ("2026-10-25T15:00:00Z", ""), 24 * 86400 + 16 * 3600),
    ("2026-10", ("2026-10-25T15:00:00Z", ""), 6 * 86400 + 9 * 3600),
    ("2026-12", ("2026-10-25T15:00:00Z", ""), None),
    ("2026-11", ("2026-11-25T16:00:05Z", ""), 0),  # another host's clock is ahead of ours
]


@pytest.mark.parametrize(("of", "times", "seconds"), MONTHS, ids=[f"{of} {' '.join(times)}" for of, times, _ in MONTHS])
def test_a_run_counts_within_a_month(of: str, times: tuple[str, str], seconds: float | None) -> None:
    lines = accounts.vms([run(*times)], month(of), at("2026-11-25T16:00:00Z"))
    assert [line["seconds"] for line in lines] == ([] if seconds is None else [seconds])


def test_months_add_up() -> None:
    """To the millisecond, whatever the runs are; and cpu seconds are those of the month in which a run ended."""
    starts = [at("2026-10-20T00:00:00Z") + n * 7_919_337 for n in range(600)]
    found = [
        dataclasses.replace(run("2026-10-20T00:00:00Z"), started=start, stopped=start + 7_000_003, cpu_seconds=0.1)
        for start in starts
    ]
    parts = [accounts.vms(found, month(of), 0)[0] for of in ("2026-10", "2026-11", "2026-12")]
    assert sum(round(float(str(part["seconds"])) * 1000) for part in parts) == 600 * 7_000_003
    assert sum(float(str(part["cpu_seconds"])) for part in parts) == pytest.approx(60.0)


def test_an_end_at_midnight_is_of_the_month_that_ends() -> None:
    over = run("2026-10-31T23:00:00Z", "2026-11-01T00:00:00Z", cpu_seconds=5.0)
    assert accounts.vms([over], month("2026-10"), 0)[0]["cpu_seconds"] == 5.0
    assert accounts.vms([over], month("2026-11"), 0) == []


def test_sums_of_a_vm() -> None:
    found = [
        run("2026-11-05T00:00:00Z", "2026-11-05T01:00:00Z", cpu_seconds=1.5, event="stopped", reason="its status"),
        run("2026-11-06T00:00:00Z", "2026-11-06T00:00:30.5Z", event="killed", reason="gone", estimated=True),
        run("2026-11-07T00:00:00Z", name="web-2"),
    ]
    (line,) = accounts.vms(found, month("2026-11"), at("2026-11-07T00:00:01Z"))
    assert line == {
        "vm": UUID, "name": "web-2", "hosts": ["vmhost1"], "runs": 3, "seconds": 3631.5, "cpu_seconds": 1.5,
        "estimated": 1, "last_end": "2026-11-06T00:00:30.500Z", "event": "killed", "reason": "gone",
    }  # fmt: skip
    assert tuple(line) == accounts.VM_FIELDS


def test_a_run_that_nobody_closes_ends_where_the_next_one_begins() -> None:
    found = [
        run("2026-11-06T00:00:00Z", "2026-11-06T01:00:00Z", host="vmhost2"),
        run("2026-11-05T00:00:00Z"),
        run("2026-11-07T00:00:00Z"),
    ]
    seconds = [line["seconds"] for line in accounts.runs(accounts.settled(found), Period(), at("2026-11-07T00:00:10Z"))]
    assert seconds == [86400.0, 3600.0, 10.0]
    assert next(iter(accounts.settled(found))).estimated


def test_tables_are_for_people() -> None:
    found = [run("2026-11-05T00:00:00Z", "2026-11-05T01:00:05Z", reason="gone\nmad", estimated=True, event="killed")]
    of_vms = accounts.table(accounts.vms(found, Period(), 0), of_runs=False, hosts=False)
    assert of_vms.splitlines() == [
        f"UUID{' ' * 34}NAME   RUNS  SECONDS   TIME     CPU-SECONDS  LAST-END                  REASON",
        f"{UUID}  web-1  1     3605.000  1:00:05  -            2026-11-05T01:00:05.000Z  gone?mad (estimated)",
    ]
    of_runs = accounts.table(accounts.runs([run("2026-11-05T00:00:00Z")], Period(), at("2026-11-05T00:00:01.5Z")),
                             of_runs=True, hosts=True)  # fmt: skip
    assert of_runs.splitlines() == [
        "STARTED                   STOPPED  HOST     SECONDS  TIME     CPU-SECONDS  EVENT  REASON",
        "2026-11-05T00:00:00.000Z  runs on  vmhost1  1.500    0:00:01  -            -      -",
    ]


def test_csv_is_for_accounting() -> None:
    found = [run("2026-11-05T00:00:00Z", "2026-11-05T01:00:05Z", name='a "b", c', event="killed")]
    assert accounts.as_csv(accounts.vms(found, Period(), 0), of_runs=False) == (
        "vm,name,hosts,runs,seconds,cpu_seconds,estimated,last_end,event,reason\r\n"
        f'{UUID},"a ""b"", c",vmhost1,1,3605.0,,0,2026-11-05T01:00:05.000Z,killed,\r\n'
    )
    assert accounts.as_csv([], of_runs=True) == ",".join(accounts.RUN_FIELDS) + "\r\n"
    (line,) = accounts.runs(found, Period(), 0)
    assert set(line) == set(accounts.RUN_FIELDS)


@freeze_time("2026-12-31T23:59:59.999Z")
def test_this_month_is_that_of_utc() -> None:
    assert accounts.this_month(datetime.now(UTC)) == month("2026-12")
    assert accounts.this_month(datetime.fromisoformat("2027-01-01T00:30:00+01:00")) == month("2026-12")


@pytest.mark.parametrize("text", ["2026-13", "2026", "26-11", "2026-1", "2026-11-01", "", "x"])
def test_what_is_no_month(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the command says what was expected
        month(text)


def test_times_of_people() -> None:
    assert moment("2026-11-25") == at("2026-11-25T00:00:00Z")
    assert moment("2026-11-25T01:00:00+01:00") == at("2026-11-25T00:00:00Z")
    for wrong in ("2026-11-25T01:00:00", "yesterday", "2026-02-30", ""):
        with pytest.raises(ValueError):  # noqa: PT011 - the command says what was expected
            moment(wrong)


@pytest.mark.parametrize(
    ("awake", "entry", "seen"),
    [(4000.0, 4500.0, 4500.0), (4000.0, 3000.0, 4000.0), (0.0, 4500.0, 4500.0), (6000.0, 0.0, 5000.0), (0.0, 0.0, 0.0)],
)
def test_a_host_that_lost_power_went_down_after_its_last_sign_and_before_it_was_back(
    awake: float, entry: float, seen: float
) -> None:
    assert runtime.last_seen(awake, entry, booted=5000.0) == seen


def test_what_began_or_ended_unseen_before_a_power_failure_is_in_the_journal() -> None:
    open_ = [runtime.opened(UUID, invocation, "web-1", 1000.0, ME) for invocation in ("i1", "i2")]
    left = [end(started=1100.0, ended=1150.0), End(UUID, "i3", "host", started=1200.0)]
    assert [
        (one.invocation, one.by, one.started, one.ended, one.boot_id)
        for one in runtime.cut_short("b0", open_, left, last=4500.0)
    ] == [
        ("i1", "itself", 1000.0, 1150.0, "b0"),
        ("i3", "host", 1200.0, 4500.0, "b0"),
        ("i2", "host", 1000.0, 4500.0, "b0"),
    ]
