"""systemd as the adapter shows it: real units of a real PID 1."""

import queue
import re
import resource
import signal
import subprocess
import threading
import uuid as uuids
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from uncloud_host import systemd, unit
from uncloud_host.hints import watch
from uncloud_host.models import VM, parse
from uncloud_host.observe import Units
from uncloud_host.qemu import Choices
from uncloud_host.systemd import Listed, Refusal, Systemd, UnitExists
from uncloud_host.unit import Evidence, State, Value
from waiting import eventually


@pytest.fixture
def uuid() -> Iterator[str]:
    made = str(uuids.uuid4())
    yield made
    run("systemctl", "stop", f"vm-{made}", check=False)
    run("systemctl", "reset-failed", f"vm-{made}", check=False)


def run(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


def properties(uuid: str, *command: str, **changed: Value) -> list[tuple[str, Value]]:
    """A VM's whole unit, with another program in QEMU's place."""
    vm = VM(uuid, parse(b'{"host": "vmhost1", "name": "web-1"}'), 1, 1)
    marker = Evidence("vmhost1", "c1", 1, vm.entry.fingerprint(), "web-1", "")
    listed = unit.properties(vm, Choices("tcg", "max"), unit.Settings(), marker)
    changes = {"ExecStart": [[command[0], list(command), False]], "TimeoutStopUSec": unit.SECOND} | changed
    left_out = ("ExecStopEx", "ExecStopPostEx")  # the package is not needed here
    return [(key, changes.get(key, value)) for key, value in listed if key not in left_out]


def state(bus: Systemd, uuid: str) -> State:
    return {listed.name: listed.state for listed in bus.units()}.get(unit.name(uuid), State.ABSENT)


def line(bus: Systemd, uuid: str) -> Listed:
    return next(listed for listed in bus.units() if listed.name == unit.name(uuid))


def ignores_term(uuid: str) -> bool:
    pid = run("systemctl", "show", f"vm-{uuid}", "-p", "MainPID", "--value").strip()
    (ignored,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(ignored, 16) >> signal.SIGTERM - 1 & 1)


def test_a_unit_is_started_seen_and_stopped(uuid: str) -> None:
    bus = Systemd()
    bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity"))
    eventually(lambda: state(bus, uuid) == State.RUNNING)
    details = bus.details(line(bus, uuid))
    found = unit.evidence(details.environment)
    assert found
    assert (found.host, found.name, found.claim) == ("vmhost1", "web-1", "c1")
    shown = run("systemctl", "show", f"vm-{uuid}", "-p", "InvocationID", "--value").strip()
    assert (details.invocation, details.restarts) == (shown, 0)
    assert bus.invocation(unit.name(uuid)) == shown
    bus.stop(unit.name(uuid))
    eventually(lambda: state(bus, uuid) == State.ABSENT)


def test_a_slice_stops_from_its_job_on(uuid: str) -> None:
    bus = Systemd()
    deaf = ("/usr/bin/python3", "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()")
    bus.start(unit.name(uuid), properties(uuid, *deaf, Slice="deaf.slice"))
    eventually(lambda: state(bus, uuid) == State.RUNNING)
    eventually(lambda: ignores_term(uuid))
    assert not bus.stops("deaf.slice")
    run("systemctl", "stop", "--no-block", "deaf.slice")
    eventually(lambda: bus.stops("deaf.slice"))
    assert state(bus, uuid) == State.STOPPING
    eventually(lambda: state(bus, uuid) == State.FAILED)  # it was killed
    eventually(lambda: run("systemctl", "list-jobs", "--no-legend") == "")
    assert bus.stops("deaf.slice")


def test_a_connection_that_was_lost_is_made_again_without_a_failing_call() -> None:
    bus = Systemd()
    bus.units()
    run("systemctl", "restart", "dbus")
    eventually(lambda: run("busctl", "status", "org.freedesktop.systemd1", check=False))
    assert isinstance(bus.units(), list)


def test_a_name_that_is_taken_is_told_apart(uuid: str) -> None:
    bus = Systemd()
    bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity"))
    with pytest.raises(UnitExists):
        bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity"))


def test_a_refused_property_is_one_line_and_leaves_the_name_free(uuid: str) -> None:
    bus = Systemd()
    with pytest.raises(Refusal) as error:
        bus.start(unit.name(uuid), properties(uuid, "/usr/bin/true", Restart="sometimes"))
    assert "Restart" in str(error.value)
    assert "\n" not in str(error.value)
    bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity"))


def test_stopping_what_is_not_there_is_a_refusal_and_the_bus_goes_on(uuid: str) -> None:
    bus = Systemd()
    with pytest.raises(Refusal):
        bus.stop(unit.name(uuid))
    assert isinstance(bus.units(), list)


def test_a_job_in_the_queue_is_a_start_under_way(uuid: str) -> None:
    bus = Systemd()
    units = Units(bus)
    bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity"))
    units.look([])
    assert units.get(uuid).state in (State.STARTING, State.RUNNING)


def test_failures_of_a_running_unit_are_forgotten(uuid: str) -> None:
    bus = Systemd()
    units = Units(bus)
    bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity", RestartUSec=100_000))
    first = eventually(lambda: run("systemctl", "show", f"vm-{uuid}", "-p", "MainPID", "--value").strip() != "0")
    assert first
    run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", f"vm-{uuid}")
    eventually(lambda: bus.details(line(bus, uuid)).restarts == 1 and state(bus, uuid) == State.RUNNING)
    units.look([])
    assert units.get(uuid).restarts == 1
    bus.reset_failed(unit.name(uuid))
    units.doubt(uuid)
    changed = units.look([])
    assert (units.get(uuid).restarts, units.get(uuid).state) == (0, State.RUNNING)
    assert changed.keys() == {uuid}


def test_what_is_read_is_never_of_a_list_that_is_older_than_it(uuid: str) -> None:
    """What has not changed since the list is as the list says; what has is read with its state."""
    bus = Systemd()
    soon: dict[str, Value] = {"RestartUSec": 10_000, "RestartSteps": 0, "StartLimitIntervalUSec": 0}
    bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity", Restart="always", **soon))
    eventually(lambda: state(bus, uuid) == State.RUNNING)
    listed = line(bus, uuid)
    first = bus.details(listed)
    shown = run("systemctl", "show", f"vm-{uuid}", "-p", "StateChangeTimestamp", "--value", "--timestamp=unix").strip()
    assert (first.state, f"@{int(first.since)}") == (State.RUNNING, shown)
    assert bus.details(replace(listed, state=State.STOPPING)).state == State.STOPPING  # nothing has changed since
    run("systemctl", "kill", "--signal=KILL", f"vm-{uuid}")
    eventually(lambda: bus.details(line(bus, uuid)).restarts == 1 and state(bus, uuid) == State.RUNNING)
    second = bus.details(replace(listed, state=State.STOPPING))
    assert (second.state, second.restarts) == (State.RUNNING, 1)
    assert second.invocation != first.invocation


def test_state_and_invocation_are_of_one_run(uuid: str) -> None:
    bus = Systemd()
    units = Units(bus)
    at_once: dict[str, Value] = {"RestartUSec": 10_000, "RestartSteps": 0, "StartLimitIntervalUSec": 0}
    flapping = properties(uuid, "/usr/bin/true", Restart="always", **at_once)
    bus.start(unit.name(uuid), flapping)
    over: set[str] = set()

    def look() -> bool:
        units.look([None])
        seen = units.get(uuid)
        if seen.state == State.RESTARTING:
            over.add(seen.invocation)
        else:
            assert seen.invocation not in over, f"a run that is over is {seen.state}"
        return len(over) >= 40

    # A busy machine restarts it once a second only, and not each time between two runs is seen.
    eventually(look, within=120, every=0, what=lambda: f"only {len(over)} runs were seen between two runs")


@pytest.mark.parametrize(
    "disturbance", ["", "systemctl daemon-reload", "systemctl daemon-reexec", "systemctl restart dbus"]
)
def test_every_change_is_hinted_at(uuid: str, disturbance: str) -> None:
    hears_of(uuid, disturbance)


def test_on_any_descriptor(uuid: str) -> None:
    """With a thousand VMs there are more than select(2) knows."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, limits[1]))
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1100):
            files.enter_context(Path("/dev/null").open())
        hears_of(uuid)


def hears_of(uuid: str, disturbance: str = "") -> None:
    hints: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    over = threading.Event()
    thread = threading.Thread(target=watch, args=(hints.put, over.is_set))
    thread.start()
    try:
        assert hints.get(timeout=10) is None  # subscribed: look at everything
        if disturbance:
            run(*disturbance.split())
            eventually(lambda: None in _taken(hints), within=20, what="a hint to look at everything")
        bus = Systemd()
        bus.start(unit.name(uuid), properties(uuid, "/usr/bin/sleep", "infinity"))
        eventually(lambda: {unit.name(uuid), None} & set(_taken(hints)), what="a hint about the unit, or to everything")
    finally:
        over.set()
        thread.join(timeout=10)
    assert not thread.is_alive()


def _taken(hints: "queue.SimpleQueue[str | None]") -> list[str | None]:
    found = []
    while not hints.empty():
        found.append(hints.get())
    return found


def test_a_line_in_the_journal_belongs_to_the_vm(uuid: str) -> None:
    systemd.journal("what is done to it", 6, OBJECT_SYSTEMD_UNIT=unit.name(uuid), UNCLOUD_VM=uuid)
    eventually(lambda: "what is done to it" in run("journalctl", "--no-pager", "-u", f"vm-{uuid}"))


def test_a_unit_with_a_process_left_is_not_over(uuid: str) -> None:
    """As when not even SIGKILL ends QEMU: PID 1 says failed, and after a reset-failed that there is nothing."""
    bus = Systemd()
    units = Units(bus)
    leave = properties(uuid, "/bin/sh", "-c", "sleep infinity & exit 1", Restart="no", KillMode="process")
    bus.start(unit.name(uuid), leave)
    eventually(lambda: state(bus, uuid) == State.FAILED)
    units.look([None])
    assert units.get(uuid).state == State.STOPPING
    run("systemctl", "reset-failed", f"vm-{uuid}")
    units.look([])
    assert units.get(uuid).state in (State.STOPPING, State.ABSENT)
    if bus.has_processes(unit.name(uuid)):  # systemd keeps a unit as long as it knows of a process in it
        assert units.get(uuid).state == State.STOPPING
    run("systemctl", "kill", "--signal=KILL", f"vm-{uuid}", check=False)
    eventually(lambda: not bus.has_processes(unit.name(uuid)))
    eventually(lambda: units.look([]) is not None and units.get(uuid).state == State.ABSENT)
