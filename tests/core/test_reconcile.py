"""What a pass does about one VM, as tables: desired (etcd), observed (systemd) and claim give actions with reasons."""

import dataclasses

import pytest

from core.vms import ABSENT, CONFIRMED, HELD, ME, MINE, OTHERS, UUID, short, unit, vm
from uncloud_host import limits, reconcile
from uncloud_host.actions import Release, Secure
from uncloud_host.endings import End
from uncloud_host.facts import Claim, Doubt, Gone, Invalid, Observed
from uncloud_host.models import VM, Status
from uncloud_host.reconcile import plan, settled
from uncloud_host.unit import State

GAVE_UP = f"systemd gave up restarting it; see journalctl -u vm-{UUID}"
TABLE = [
    # status       unit           claim   actions
    (None,         "absent",      None,   ["start"]),
    (None,         "absent",      OTHERS, ["None(waits for vmhost2, which has its claim)"]),
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
    assert short(plan(vm(status), unit(state), claim, ME, now=50, retry=False)) == actions


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
        ("running", None, ["hold", "tell held"]),
        ("failed", None, ["hold", "tell held"]),
        ("running", HELD, ["tell held"]),
        ("restarting", HELD, ["tell held"]),
        ("failed", HELD, ["tell held"]),
        ("absent", HELD, ["release"]),
        # ... and now somebody says that it is meant
        ("running", CONFIRMED, ["stop(stopped)"]),
        ("failed", CONFIRMED, ["reset"]),
        ("absent", CONFIRMED, ["release"]),
        ("running", OTHERS, ["tell wrong-host"]),
    ],
)
def test_no_entry(state: str, claim: Claim | None, actions: list[str]) -> None:
    assert short(plan(Gone(UUID), unit(state), claim, ME, now=50, retry=False)) == actions


@pytest.mark.parametrize(
    ("state", "claim", "actions"),
    [
        ("absent", OTHERS, []),
        ("absent", MINE, ["release"]),
        ("running", MINE, ["stop(moved)"]),
        ("restarting", MINE, ["stop(moved)"]),
        ("exited", MINE, ["stop(powered-off)"]),
        ("failed", MINE, ["reset"]),
        ("stopping", MINE, []),
        ("running", None, ["claim"]),  # first its claim, so that nobody starts it before it has stopped here
        ("running", OTHERS, ["stop(moved)"]),
        ("running", HELD, ["tell held"]),
        ("running", dataclasses.replace(HELD, mod_revision=8), ["stop(moved)"]),  # moved after it was held: believed
        ("running", CONFIRMED, ["stop(moved)"]),
    ],
)
@pytest.mark.parametrize("status", [None, "TO_START", "RUNNING", "TO_STOP", "STOP", "FAILED"])
def test_an_entry_of_another_host(status: str | None, state: str, claim: Claim, actions: list[str]) -> None:
    assert short(plan(vm(status, host="vmhost2"), unit(state), claim, ME, now=50, retry=False)) == actions


@pytest.mark.parametrize("state", list(State))
def test_an_invalid_entry_leaves_everything_alone_and_says_so_once(state: State) -> None:
    observed = unit(state)
    first = plan(Invalid(UUID, "why", 3, 9, told=False), observed, MINE, ME, now=50, retry=True)
    assert short(first) == ["tell invalid", "None(why)"]
    assert plan(Invalid(UUID, "why", 3, 10, told=True), observed, MINE, ME, now=50, retry=True) == []


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("state", [state for state in State if state != State.ABSENT])
def test_a_foreign_unit_is_never_touched(status: str | None, state: State) -> None:
    actions = short(plan(vm(status), Observed(state, None, "i9"), MINE, ME, now=50, retry=True))
    assert not [action for action in actions if action.startswith(("stop", "reset", "start", "release"))]


@pytest.mark.parametrize("status", [None, "TO_START"])
def test_a_start_that_systemd_gave_up_is_failed_and_not_begun_again_at_once(status: str | None) -> None:
    """It never was RUNNING: systemd could not set it up."""
    asked = vm(status)
    seen = unit("failed", revision=asked.mod_revision)
    assert short(plan(asked, seen, MINE, ME, now=50)) == ["tell gave-up", f"FAILED({GAVE_UP})"]


def test_failed_is_tried_again_slowly() -> None:
    failed = vm("FAILED", status_reason=GAVE_UP)
    assert short(plan(failed, unit("failed"), MINE, ME, now=50, retry=True)) == ["reset"]
    assert short(plan(failed, ABSENT, MINE, ME, now=50, retry=True)) == ["start"]
    assert [reconcile.retry_delay(failures) for failures in (1, 2, 3, 4, 5, 6, 99)] == [
        300, 600, 1200, 2400, 3600, 3600, 3600,
    ]  # fmt: skip


def test_restart_no_is_not_tried_again() -> None:
    failed = vm("FAILED", restart="no")
    assert plan(failed, unit("failed"), MINE, ME, now=50, retry=True) == []
    assert plan(failed, ABSENT, MINE, ME, now=50, retry=True) == []


def test_what_stands_in_the_entry_is_not_said_again() -> None:
    assert short(reconcile.failed(vm("TO_START"), "no disk")) == ["tell could-not-start", "FAILED(no disk)"]
    assert reconcile.failed(vm("FAILED", status_reason="no disk"), "no disk") == []
    assert short(reconcile.failed(vm("FAILED", status_reason="no disk"), "no bridge")) == [
        "tell could-not-start", "FAILED(no bridge)",
    ]  # fmt: skip


def test_a_restart_is_done_when_the_unit_was_started_from_that_entry() -> None:
    entry = vm("TO_RESTART", revision=9)
    for revision, actions in ((8, ["stop(stopped)"]), (9, ["RUNNING"])):
        assert short(plan(entry, unit("running", revision=revision), MINE, ME, now=0)) == actions


def test_a_unit_of_a_later_revision_is_of_a_lost_history_or_the_entry_is_stale_so_etcd_is_read() -> None:
    entry, observed = vm("TO_RESTART", revision=9), unit("running", revision=1000)
    assert reconcile.must_read(entry, observed, MINE, ME)
    assert short(plan(entry, observed, MINE, ME, now=0)) == ["stop(stopped)"]


def test_a_reason_is_removed_when_the_vm_has_run_for_a_while() -> None:
    running = vm("RUNNING", status_reason="QEMU exited with 1")
    assert plan(running, unit("running", since=100), MINE, ME, now=105, retry=False) == []
    assert short(plan(running, unit("running", since=100), MINE, ME, now=110, retry=False)) == ["RUNNING"]


def test_restarts_are_forgotten_after_ten_minutes() -> None:
    observed = dataclasses.replace(unit("running", since=1000), restarts=3)
    for now, actions in ((1599, []), (1600, ["reset"])):
        assert short(plan(vm("RUNNING"), observed, MINE, ME, now=now, retry=False)) == actions
        assert reconcile.settled(vm("RUNNING"), observed, MINE, ME, now=now) == (not actions)


NEVER_RAN = End(UUID, "i1", "itself", exit_code="exited", exit_status="1", ended=1, said="why")


@pytest.mark.parametrize(
    ("end", "status", "actions"),
    [
        (End(UUID, "i1", "operator"), "RUNNING", ["STOP(stopped by hand: systemctl stop on this host)"]),
        (End(UUID, "i1", "many"), "RUNNING", ["hold", "tell held"]),
        (End(UUID, "i1", "many"), "TO_STOP", []),
        (End(UUID, "i1", "operator"), "TO_STOP", []),
        (End(UUID, "i1", "operator"), "TO_START", []),
        (End(UUID, "i1", "shutdown"), "RUNNING", []),
        (End(UUID, "i1", "agent", event="stopped"), "RUNNING", []),
        (End(UUID, "i1", "itself", exit_code="killed", exit_status="SEGV"), "RUNNING", []),
        (End(UUID, "i1", "itself", exit_code="exited", exit_status="1", ended=1, said="no such disk"), "RUNNING",
         ["None(QEMU exited with 1: no such disk)"]),
        # of one that never ran since somebody asked; but not beside TO_RESTART, which any write would renew
        (NEVER_RAN, None, ["None(QEMU exited with 1: why)"]),
        (NEVER_RAN, "TO_START", ["None(QEMU exited with 1: why)"]),
        (NEVER_RAN, "TO_RESTART", []),
        (NEVER_RAN, "TO_STOP", []),
    ],
)  # fmt: skip
def test_what_an_end_means_for_the_entry(end: End, status: str, actions: list[str]) -> None:
    assert short(reconcile.after(end, vm(status), MINE, ME, now=0)) == actions
    assert reconcile.after(end, Gone(UUID), MINE, ME, now=0) == []
    assert reconcile.after(end, vm(status, host="vmhost2"), MINE, ME, now=0) == []


def test_every_action_has_a_reason() -> None:
    for status, state, claim, _ in TABLE:
        for action in plan(vm(status), unit(state), claim, ME, now=50, retry=False):
            assert action.reason
            assert action.reason != "None"


RESTORED = Doubt("etcd went backwards", everything=True)
DELETED = Doubt("2 VMs were deleted at once")
OLD_ID = dataclasses.replace(MINE, id="c0")
OLD_BOOT = dataclasses.replace(MINE, boot_id="b0")
TAKEN = dataclasses.replace(OTHERS, replaces="c1")
NAMESAKE = dataclasses.replace(OTHERS, host="vmhost1")
CLONES = dataclasses.replace(OTHERS, machine_id="m1")  # its installation is a copy of ours


@pytest.mark.parametrize(
    ("entry", "claim", "actions"),
    [
        # who runs a VM has its claim
        (vm("RUNNING"), MINE, []),
        (vm("RUNNING"), None, ["claim"]),
        (vm("RUNNING"), OLD_ID, ["claim"]),
        (vm("RUNNING"), OLD_BOOT, ["claim"]),
        (vm("TO_STOP"), None, ["claim"]),
        (Invalid(UUID, "why", 3, 9, told=True), None, ["claim"]),
        (Invalid(UUID, "why", 3, 9, told=True), MINE, []),
        # an absent claim is no reason to stop, one of somebody else's neither, unless it replaces ours
        (vm("RUNNING"), OTHERS, ["tell wrong-host"]),
        (vm("TO_RESTART"), OTHERS, ["tell wrong-host"]),
        (vm("RUNNING"), NAMESAKE, ["tell duplicate-host"]),
        (vm("RUNNING"), CLONES, ["tell wrong-host"]),
        (vm("TO_STOP"), OTHERS, ["stop(stopped)"]),
        (vm("STOP"), OTHERS, ["stop(stopped)"]),
        (vm("RUNNING"), TAKEN, ["stop(stopped)"]),
        (vm("RUNNING", host="vmhost2"), TAKEN, ["stop(stopped)"]),
        (Gone(UUID), TAKEN, ["stop(stopped)"]),
        # the same uuid again: the old one stops first
        (vm("TO_START", created=7), MINE, ["stop(stopped)"]),
        (vm("RUNNING", created=7), MINE, ["stop(stopped)"]),
        # ... unless the claim is younger, as if somebody had copied all keys into a new etcd
        (vm("RUNNING", created=7), dataclasses.replace(MINE, mod_revision=8), ["claim"]),
        # a hold ends when the entry is back
        (vm("RUNNING", created=25, revision=25), HELD, ["claim"]),
        (vm(None, created=25, revision=25), CONFIRMED, ["claim"]),
        (vm("RUNNING"), HELD, ["claim"]),
        # ... or says something newer than the hold
        (vm("TO_STOP"), HELD, ["tell held"]),
        (vm("TO_RESTART"), HELD, ["tell held"]),
        (vm("TO_RESTART", revision=21), HELD, ["stop(stopped)"]),
        # ... but not if somebody else's write only brings back what it said then
        (vm("STOP", revision=21), dataclasses.replace(HELD, said="vmhost1 STOP"), ["tell held"]),
        (vm("STOP", revision=21), HELD, ["stop(stopped)"]),
        (vm("RUNNING", revision=21, host="vmhost2"), dataclasses.replace(HELD, said="vmhost2 RUNNING"), ["tell held"]),
        # ... nor if that host says why it waits
        (
            vm("TO_START", revision=21, host="vmhost2"),
            dataclasses.replace(HELD, said="vmhost2 TO_START"),
            ["tell held"],
        ),
        (vm("TO_STOP", revision=21), HELD, ["stop(stopped)"]),
        (vm("STOP"), CONFIRMED, ["stop(stopped)"]),
    ],
)
def test_the_claim_on_what_runs_here(entry: VM | Gone | Invalid, claim: Claim | None, actions: list[str]) -> None:
    observed = unit("running")
    assert short(plan(entry, observed, claim, ME, now=50)) == actions
    in_order = isinstance(entry, VM) and reconcile.settled(entry, observed, claim, ME, now=50)
    assert in_order == (entry == vm("RUNNING") and claim == MINE)


@pytest.mark.parametrize(
    ("entry", "claim", "doubt", "actions"),
    [
        (Gone(UUID), MINE, DELETED, ["hold", "tell held"]),
        (Gone(UUID), MINE, RESTORED, ["hold", "tell held"]),
        (Gone(UUID), CONFIRMED, DELETED, ["stop(stopped)"]),
        (vm("TO_STOP"), MINE, DELETED, ["stop(stopped)"]),  # it is there and says so
        (vm("RUNNING", created=7), MINE, DELETED, ["claim"]),  # deleted with others, and back at once
        (vm("TO_STOP"), MINE, RESTORED, ["hold", "tell held"]),
        (vm("TO_RESTART"), MINE, RESTORED, ["hold", "tell held"]),
        (vm("TO_STOP", revision=21), HELD, RESTORED, ["hold", "tell held"]),
        (vm("TO_STOP"), CONFIRMED, RESTORED, ["hold", "tell held"]),
        (Gone(UUID), CONFIRMED, RESTORED, ["hold", "tell held"]),
        (vm("STOP"), None, RESTORED, ["hold", "tell held"]),
        (vm("RUNNING", host="vmhost2"), MINE, RESTORED, ["hold", "tell held"]),
        (vm("RUNNING", host="vmhost2"), OTHERS, RESTORED, ["hold", "tell held"]),  # a backup from before a move
        (vm("RUNNING"), None, RESTORED, ["claim"]),
        (vm("RUNNING"), OTHERS, RESTORED, ["claim"]),
        (vm("RUNNING"), MINE, RESTORED, []),
        (vm("RUNNING", created=7), MINE, RESTORED, ["claim"]),
        (vm("RUNNING", host="vmhost2"), TAKEN, RESTORED, ["stop(stopped)"]),
    ],
)
def test_what_is_not_believed(entry: VM | Gone, claim: Claim | None, doubt: Doubt, actions: list[str]) -> None:
    assert short(plan(entry, unit("running"), claim, ME, now=50, doubt=doubt)) == actions


def test_a_claim_is_written_only_over_what_was_read() -> None:
    (secure,) = plan(vm("RUNNING"), unit("running"), OLD_ID, ME, now=0)
    assert isinstance(secure, Secure)
    assert (secure.claim.mod_revision, secure.entry) == (OLD_ID.mod_revision, 9)
    secure = plan(Gone(UUID), unit("running"), None, ME, now=0)[0]
    assert isinstance(secure, Secure)
    assert (secure.claim.mod_revision, secure.entry) == (0, 0)


@pytest.mark.parametrize(
    ("entry", "state", "claim", "actions"),
    [
        (vm("RUNNING"), "stopping", HELD, ["tell held"]),
        (vm("RUNNING"), "absent", HELD, ["tell held"]),
        (vm("RUNNING"), "failed", HELD, ["tell held"]),
        (vm("RUNNING"), "absent", CONFIRMED, ["STOP(stopped by hand: why)"]),
        (vm("RUNNING"), "failed", CONFIRMED, ["reset"]),
        (vm("RUNNING", revision=21), "absent", HELD, ["tell held"]),  # somebody wrote something else
        (vm("TO_START", revision=21), "absent", HELD, ["start"]),  # somebody wants it to run
        (vm("TO_STOP", revision=21), "absent", HELD, ["release", "STOP"]),
        (vm("RUNNING"), "absent", dataclasses.replace(HELD, boot_id="b0"), ["start"]),  # the host was rebooted
        (vm("RUNNING", host="vmhost2", revision=21), "absent", HELD, ["release"]),
    ],
)
def test_a_vm_that_was_stopped_with_all_others(entry: VM, state: str, claim: Claim, actions: list[str]) -> None:
    assert short(plan(entry, unit(state), claim, ME, now=0)) == actions


def test_while_the_host_must_wait_nothing_starts_and_everything_else_goes_on() -> None:
    assert short(plan(vm("TO_START"), ABSENT, None, ME, now=0, wait="why")) == ["wait"]
    for status, state, claim, actions in TABLE:
        # A restart that could not start again is no restart.
        stops = status == "TO_RESTART" and state in ("running", "restarting")
        waiting = ["wait" if action == "start" or stops else action for action in actions]
        assert short(plan(vm(status), unit(state), claim, ME, now=50, wait="why")) == waiting


def test_while_the_host_must_wait_a_claim_of_another_boot_is_not_given_up() -> None:
    """A clone of this machine may have it, and run the VM."""
    old = dataclasses.replace(MINE, boot_id="b0")
    for entry, actions in ((vm("TO_STOP"), ["release", "STOP"]), (vm("STOP"), ["release"]), (Gone(UUID), ["release"])):
        assert short(plan(entry, ABSENT, old, ME, now=0)) == actions
        assert short(plan(entry, ABSENT, old, ME, now=0, wait="why")) == []


def test_a_guest_that_powered_off_before_running_was_written_stays_off() -> None:
    """An installer, and etcd was away: it was started once more."""
    for status in (None, "TO_START", "FAILED"):
        asked = vm(status, revision=5)
        assert short(plan(asked, unit("exited", revision=5), MINE, ME, now=0)) == ["STOP(guest powered off)"]


def test_a_claim_of_a_namesake_is_somebody_elses() -> None:
    assert short(plan(vm("RUNNING"), ABSENT, NAMESAKE, ME, now=0)) == ["tell duplicate-host"]  # and no fight in etcd


def test_a_claim_of_a_clone_with_our_machine_id_is_somebody_elses() -> None:
    waits = ["None(waits for vmhost2, which has its claim)"]
    assert short(plan(vm("RUNNING"), ABSENT, CLONES, ME, now=0)) == waits
    assert plan(vm("RUNNING", host="vmhost2"), ABSENT, CLONES, ME, now=0) == []  # not released either


def test_a_failed_vm_that_runs_is_well_when_it_has_run_for_a_while() -> None:
    for now, actions in ((9, []), (10, ["RUNNING"])):
        assert short(plan(vm("FAILED"), unit("running"), MINE, ME, now=now)) == actions


def test_a_release_is_of_the_claim_that_was_read() -> None:
    assert plan(Gone(UUID), ABSENT, MINE, ME, now=0) == [Release(MINE, "its entry was deleted")]


def test_a_claim_that_was_elsewhere_is_read_again_before_anybody_waits_for_it() -> None:
    assert reconcile.must_read(vm("RUNNING"), ABSENT, OTHERS, ME)
    assert not reconcile.must_read(vm("RUNNING"), ABSENT, MINE, ME)
    assert not reconcile.must_read(vm("TO_START"), ABSENT, None, ME)


@pytest.mark.parametrize("claim", [None, OTHERS, OLD_ID])
def test_an_entry_older_than_the_run_without_the_claim_of_the_run_is_a_backups(claim: Claim | None) -> None:
    later = unit("running", revision=50)
    for entry in (vm("STOP"), vm("TO_STOP"), vm("RUNNING", host="vmhost2")):
        assert short(plan(entry, later, claim, ME, now=50)) == ["hold", "tell held"]
    assert short(plan(vm("RUNNING"), later, claim, ME, now=50)) == ["claim"]
    assert short(plan(vm("STOP"), later, MINE, ME, now=50)) == ["stop(stopped)"]


def test_a_stop_of_all_vms_before_the_last_boot_is_over() -> None:
    end = End(UUID, "i1", "many")
    assert reconcile.after(end, vm("RUNNING"), OLD_BOOT, ME, now=0) == []


@pytest.mark.parametrize(
    ("said", "fingerprint", "actions"),
    [
        (None, "", []),
        ({"cpu_weight": 50}, "", ["limit"]),
        ({"cpu_weight": 50}, "other", ["limit"]),
        ({"cpu_weight": 50}, limits.fingerprint(vm(limits={"cpu_weight": 50})), []),
        (None, "other", ["limit"]),  # they were taken out of the entry
        # what depends on memory and disks waits until the VM runs with this entry
        ({"memory_max": 2048}, "", []),
    ],
)
def test_limits_are_changed_while_it_runs(said: dict[str, int] | None, fingerprint: str, actions: list[str]) -> None:
    entry = vm("RUNNING", limits=said or {})
    observed = unit("running")
    assert observed.evidence
    observed = dataclasses.replace(observed, evidence=dataclasses.replace(observed.evidence, limits=fingerprint))
    assert short(plan(entry, observed, MINE, ME, now=50)) == actions
    assert settled(entry, observed, MINE, ME, now=50) == (not actions)


@pytest.mark.parametrize(
    ("state", "invocation", "expected"),
    [("restarting", "i1", True), ("restarting", "i2", False), ("running", "i1", False)],
)
def test_a_stop_between_two_runs_is_no_runs_end_unless_the_next_has_begun_meanwhile(
    state: str, invocation: str, *, expected: bool
) -> None:
    """See faults/test_storm: etcd was slow between the look and the stop, and the run that had begun had no end."""
    assert reconcile.is_between_runs(unit(state), invocation) is expected
