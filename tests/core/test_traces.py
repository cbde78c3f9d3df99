"""Ends without a record: what PID 1's lines in the journal (systemd 257) say about them."""

import pytest

from uncloud_host.endings import conclude
from uncloud_host.events import Name
from uncloud_host.traces import EXITED, FAILED, RESTART, STARTING, STOPPED, SUCCEEDED, ends, left

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"


def line(second: int, invocation: str, kind: str = "", **fields: object) -> dict[str, object]:
    at = {"_SOURCE_REALTIME_TIMESTAMP": str(second * 1_000_000), "INVOCATION_ID": invocation, "MESSAGE_ID": kind}
    return at | fields


def killed(second: int, invocation: str, result: str = "signal") -> list[dict[str, object]]:
    return [
        line(second, invocation, EXITED, EXIT_CODE="killed", EXIT_STATUS="9"),
        line(second, invocation, FAILED, UNIT_RESULT=result),
    ]


STORY = [
    line(10, "i1", STARTING),
    *killed(20, "i1"),
    line(21, "i1", RESTART, N_RESTARTS="1"),
    line(21, "i2", STARTING),
    line(29, "i2", MESSAGE="vm-x.service: Killed unit cgroup with SIGKILL on client request."),
    *killed(30, "i2"),
    line(32, "i2", RESTART, N_RESTARTS="2"),
    line(32, "i3", STARTING),
    *killed(40, "i3", "oom-kill"),
    line(42, "i3", RESTART, N_RESTARTS="3"),
    line(42, "i4", STARTING),
]


def test_each_run_has_its_end() -> None:
    found = ends(UUID, "i1", STORY)
    assert [(e.invocation, e.started, e.ended, e.restarts) for e in found] == [
        ("i1", 10, 20, 0), ("i2", 21, 30, 1), ("i3", 32, 40, 2),
    ]  # fmt: skip
    assert [conclude(end) for end in found] == [
        (Name.KILLED, "QEMU was killed by signal KILL from outside"),
        (Name.KILLED, "QEMU was killed by signal KILL from outside: by systemctl kill"),
        (Name.OOM_KILLED, "this host ran out of memory"),
    ]


def test_only_from_a_run_on() -> None:
    assert [end.invocation for end in ends(UUID, "i3", STORY)] == ["i3"]
    assert ends(UUID, "i4", STORY) == ends(UUID, "unknown", STORY) == ends(UUID, "i1", []) == []


def test_a_unit_that_failed_without_a_process() -> None:
    (end,) = ends(UUID, "i1", [line(10, "i1", STARTING), line(11, "i1", FAILED, UNIT_RESULT="resources")])
    assert conclude(end)[0] == Name.COULD_NOT_START


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([line(20, "i1", SUCCEEDED)], (Name.POWERED_OFF, "QEMU ended by itself")),
        (
            [line(20, "i1", SUCCEEDED), line(20, "i1", STOPPED, JOB_TYPE="stop")],
            (Name.STOPPED_BY_HAND, "systemctl stop on this host"),
        ),
        (
            [line(20, "i1", SUCCEEDED), line(20, "i1", STOPPED, JOB_TYPE="restart"), line(21, "i2", STARTING)],
            (Name.STOPPED, "systemctl restart on this host"),
        ),
        (
            [*killed(20, "i1", "timeout"), line(20, "i1", STOPPED, JOB_TYPE="stop")],
            (Name.STOPPED_BY_HAND, "systemctl stop on this host, it did not react and was killed"),
        ),
        (
            [*killed(20, "i1"), line(22, "i1", STOPPED, JOB_TYPE="stop")],  # between two runs: that ended none
            (Name.KILLED, "QEMU was killed by signal KILL from outside"),
        ),
    ],
)
def test_a_stop_while_there_is_no_recorder(last: list[dict[str, object]], expected: tuple[Name, str]) -> None:
    (end,) = ends(UUID, "i1", [line(10, "i1", STARTING), *last])
    assert (end.started, end.ended) == (10, 20)
    assert conclude(end) == expected


def test_what_a_host_left_behind_that_went_down() -> None:
    found = left(UUID, STORY[3:])
    assert [(end.invocation, end.by, end.started, end.ended) for end in found] == [
        ("i2", "itself", 21, 30), ("i3", "itself", 32, 40), ("i4", "host", 42, 0),
    ]  # fmt: skip
