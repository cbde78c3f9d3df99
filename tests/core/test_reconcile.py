"""What a pass does about one VM, as tables: desired (etcd), observed (systemd) and claim give actions with reasons."""

import dataclasses
import json

import pytest

from uncloud_host import reconcile
from uncloud_host.events import End
from uncloud_host.models import VM, Status, parse
from uncloud_host.reconcile import (
    Action,
    Claim,
    Gone,
    Invalid,
    Me,
    Observed,
    Release,
    Reset,
    SetStatus,
    Start,
    Stop,
    Tell,
    plan,
)
from uncloud_host.unit import Evidence, State

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
ME = Me("vmhost1", "m1", "b1")
MINE = Claim(UUID, "vmhost1", "m1", "b1", "c1", 3, "", 4)
OTHERS = Claim(UUID, "vmhost2", "m2", "b2", "c2", 3, "", 4)
ABSENT = Observed(State.ABSENT)


def vm(status: str | None = None, *, revision: int = 9, **fields: object) -> VM:
    entry = {"host": "vmhost1"} | ({"status": status} if status else {}) | fields
    return VM(UUID, parse(json.dumps(entry).encode()), create_revision=3, mod_revision=revision)


def unit(state: str, *, revision: int = 5, since: float = 0.0) -> Observed:
    return Observed(State(state), Evidence("vmhost1", "c1", revision, "f", "web-1", ""), "i1", 0, since)


def short(actions: list[Action]) -> list[str]:
    """Actions as words, for tables."""
    return [_word(action) for action in actions]


def _word(action: Action) -> str:
    match action:
        case Start():
            return "start"
        case Stop(_, _, event):
            return f"stop({event})"
        case Reset():
            return "reset"
        case Release():
            return "release"
        case SetStatus(_, status, text):
            return f"{status}({text})" if text else str(status)
        case Tell(event):
            return f"tell {event}"


GAVE_UP = f"systemd gave up restarting it; see journalctl -u vm-{UUID}"
TABLE = [
    # status       unit           claim   actions
    (None,         "absent",      None,   ["start"]),
    (None,         "starting",    MINE,   []),
    (None,         "running",     MINE,   ["RUNNING"]),
    (None,         "restarting",  MINE,   []),
    (None,         "stopping",    MINE,   []),
    (None,         "exited",      MINE,   ["stop(powered-off)"]),
    (None,         "failed",      MINE,   ["reset"]),
    ("TO_START",   "absent",      None,   ["start"]),
    ("TO_START",   "running",     MINE,   ["RUNNING"]),
    ("TO_START",   "stopping",    MINE,   []),
    ("TO_START",   "failed",      MINE,   ["reset"]),
    ("TO_START",   "exited",      MINE,   ["stop(powered-off)"]),
    ("RUNNING",    "absent",      MINE,   ["start"]),
    ("RUNNING",    "absent",      None,   ["start"]),
    ("RUNNING",    "starting",    MINE,   []),
    ("RUNNING",    "running",     MINE,   []),
    ("RUNNING",    "restarting",  MINE,   []),
    ("RUNNING",    "stopping",    MINE,   []),
    ("RUNNING",    "exited",      MINE,   ["STOP(guest powered off)"]),
    ("RUNNING",    "failed",      MINE,   ["tell gave-up", f"FAILED({GAVE_UP})"]),
    ("TO_STOP",    "absent",      None,   ["STOP"]),
    ("TO_STOP",    "absent",      MINE,   ["release", "STOP"]),
    ("TO_STOP",    "absent",      OTHERS, []),
    ("TO_STOP",    "starting",    MINE,   ["stop(stopped)"]),
    ("TO_STOP",    "running",     MINE,   ["stop(stopped)"]),
    ("TO_STOP",    "restarting",  MINE,   ["stop(stopped)"]),
    ("TO_STOP",    "stopping",    MINE,   []),
    ("TO_STOP",    "exited",      MINE,   ["stop(powered-off)"]),
    ("TO_STOP",    "failed",      MINE,   ["reset"]),
    ("STOP",       "absent",      None,   []),
    ("STOP",       "absent",      MINE,   ["release"]),
    ("STOP",       "absent",      OTHERS, []),
    ("STOP",       "running",     MINE,   ["stop(stopped)"]),
    ("STOP",       "stopping",    MINE,   []),
    ("STOP",       "exited",      MINE,   ["stop(powered-off)"]),
    ("STOP",       "failed",      MINE,   ["reset"]),
    ("TO_RESTART", "absent",      MINE,   ["start"]),
    ("TO_RESTART", "running",     MINE,   ["stop(stopped)"]),
    ("TO_RESTART", "restarting",  MINE,   ["stop(stopped)"]),
    ("TO_RESTART", "stopping",    MINE,   []),
    ("TO_RESTART", "exited",      MINE,   ["stop(powered-off)"]),
    ("TO_RESTART", "failed",      MINE,   ["reset"]),
    ("FAILED",     "absent",      MINE,   []),
    ("FAILED",     "running",     MINE,   ["RUNNING"]),
    ("FAILED",     "failed",      MINE,   []),
]  # fmt: skip


@pytest.mark.parametrize(("status", "state", "claim", "actions"), TABLE)
def test_an_entry_of_this_host(status: str | None, state: str, claim: Claim | None, actions: list[str]) -> None:
    observed = ABSENT if state == "absent" else unit(state)
    assert short(plan(vm(status), observed, claim, ME, now=0, retry=False)) == actions


@pytest.mark.parametrize(
    ("state", "claim", "actions"),
    [
        ("absent", None, []),
        ("absent", MINE, ["release"]),
        ("absent", OTHERS, []),
        ("running", MINE, ["stop(stopped)"]),
        ("stopping", MINE, []),
        ("failed", MINE, ["reset"]),
        # entry and claim gone: nobody deleted a VM, etcd lost its data
        ("running", None, ["tell held"]),
        ("failed", None, ["tell held"]),
    ],
)
def test_no_entry(state: str, claim: Claim | None, actions: list[str]) -> None:
    observed = ABSENT if state == "absent" else unit(state)
    assert short(plan(Gone(UUID), observed, claim, ME, now=0, retry=False)) == actions


@pytest.mark.parametrize(
    ("state", "claim", "actions"),
    [
        ("absent", OTHERS, []),
        ("absent", MINE, ["release"]),
        ("running", MINE, ["stop(stopped)"]),
        ("stopping", MINE, []),
    ],
)
@pytest.mark.parametrize("status", [None, "TO_START", "RUNNING", "TO_STOP", "STOP", "FAILED"])
def test_an_entry_of_another_host(status: str | None, state: str, claim: Claim, actions: list[str]) -> None:
    observed = ABSENT if state == "absent" else unit(state)
    assert short(plan(vm(status, host="vmhost2"), observed, claim, ME, now=0, retry=False)) == actions


@pytest.mark.parametrize("state", list(State))
def test_an_invalid_entry_leaves_everything_alone_and_says_so_once(state: State) -> None:
    observed = ABSENT if state == State.ABSENT else unit(state)
    first = plan(Invalid(UUID, "why", 9, told=False), observed, MINE, ME, now=0, retry=True)
    assert short(first) == ["tell invalid", "None(why)"]
    assert plan(Invalid(UUID, "why", 10, told=True), observed, MINE, ME, now=0, retry=True) == []


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("state", [state for state in State if state != State.ABSENT])
def test_a_foreign_unit_is_never_touched(status: str | None, state: State) -> None:
    actions = short(plan(vm(status), Observed(state, None, "i9"), MINE, ME, now=0, retry=True))
    assert not [action for action in actions if action.startswith(("stop", "reset", "start", "release"))]


def test_failed_is_tried_again_slowly() -> None:
    failed = vm("FAILED", status_reason=GAVE_UP)
    assert short(plan(failed, unit("failed"), MINE, ME, now=0, retry=True)) == ["reset"]
    assert short(plan(failed, ABSENT, MINE, ME, now=0, retry=True)) == ["start"]
    assert [reconcile.retry_delay(failures) for failures in (1, 2, 3, 4, 5, 6, 99)] == [
        300, 600, 1200, 2400, 3600, 3600, 3600,
    ]  # fmt: skip


def test_restart_no_is_not_tried_again() -> None:
    failed = vm("FAILED", restart="no")
    assert plan(failed, unit("failed"), MINE, ME, now=0, retry=True) == []
    assert plan(failed, ABSENT, MINE, ME, now=0, retry=True) == []


def test_what_stands_in_the_entry_is_not_said_again() -> None:
    assert short(reconcile.failed(vm("TO_START"), "no disk")) == ["tell could-not-start", "FAILED(no disk)"]
    assert reconcile.failed(vm("FAILED", status_reason="no disk"), "no disk") == []
    assert short(reconcile.failed(vm("FAILED", status_reason="no disk"), "no bridge")) == [
        "tell could-not-start", "FAILED(no bridge)",
    ]  # fmt: skip


def test_a_restart_is_done_when_the_unit_was_started_from_that_entry_or_a_later_one() -> None:
    for revision in (9, 10):
        actions = plan(vm("TO_RESTART", revision=9), unit("running", revision=revision), MINE, ME, now=0, retry=False)
        assert short(actions) == ["RUNNING"]


def test_a_reason_is_removed_when_the_vm_has_run_for_a_while() -> None:
    running = vm("RUNNING", status_reason="QEMU exited with 1")
    assert plan(running, unit("running", since=100), MINE, ME, now=105, retry=False) == []
    assert short(plan(running, unit("running", since=100), MINE, ME, now=110, retry=False)) == ["RUNNING"]


def test_restarts_are_forgotten_after_ten_minutes() -> None:
    observed = dataclasses.replace(unit("running", since=1000), restarts=3)
    for now, actions in ((1599, []), (1600, ["reset"])):
        assert short(plan(vm("RUNNING"), observed, MINE, ME, now=now, retry=False)) == actions
        assert reconcile.settled(vm("RUNNING"), observed, ME, now=now) == (not actions)


@pytest.mark.parametrize(
    ("end", "status", "actions"),
    [
        (End(UUID, "i1", "operator"), "RUNNING", ["STOP(stopped by hand: systemctl stop on this host)"]),
        (End(UUID, "i1", "operator"), "TO_STOP", []),
        (End(UUID, "i1", "operator"), "TO_START", []),
        (End(UUID, "i1", "shutdown"), "RUNNING", []),
        (End(UUID, "i1", "agent", event="stopped"), "RUNNING", []),
        (End(UUID, "i1", "itself", exit_code="killed", exit_status="SEGV"), "RUNNING", []),
        (End(UUID, "i1", "itself", exit_code="exited", exit_status="1", ended=1, said="no such disk"), "RUNNING",
         ["None(QEMU exited with 1: no such disk)"]),
    ],
)  # fmt: skip
def test_what_an_end_means_for_the_entry(end: End, status: str, actions: list[str]) -> None:
    assert short(reconcile.after(end, vm(status), ME)) == actions
    assert reconcile.after(end, Gone(UUID), ME) == []
    assert reconcile.after(end, vm(status, host="vmhost2"), ME) == []


def test_every_action_has_a_reason() -> None:
    for status, state, claim, _ in TABLE:
        observed = ABSENT if state == "absent" else unit(state)
        for action in plan(vm(status), observed, claim, ME, now=0, retry=False):
            assert action.reason
            assert action.reason != "None"
