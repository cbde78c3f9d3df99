"""The agent may be away or die at any moment: VMs run on, and when it is back it makes right what is not."""

import json
from uuid import uuid4

import pytest

from system.world import World
from waiting import eventually


def stop_agent(world: World) -> None:
    world.host.run("systemctl", "stop", "uncloud-host")


def start_agent(world: World) -> None:
    world.host.run("systemctl", "start", "uncloud-host")


@pytest.mark.parametrize("how", ["systemctl restart uncloud-host", "systemctl kill --signal=KILL uncloud-host"])
def test_running_vms_do_not_notice(new_world, how: str) -> None:
    world = new_world()
    vms = [world.vm() for _ in range(3)]
    pids = [world.pid(uuid) for uuid in vms]
    world.shell(how)
    world.wait_ready()
    another = world.vm()
    assert [world.pid(uuid) for uuid in vms] == pids
    assert [world.events(uuid) for uuid in [*vms, another]] == [["started"]] * 4


def test_what_happened_meanwhile_is_made_right_and_told(world: World) -> None:
    stays, stops, dies, goes = (world.vm() for _ in range(4))
    pid = world.pid(stays)
    stop_agent(world)
    new = world.new()
    world.ask(stops, status="TO_STOP")
    world.delete(goes)
    for boots in (2, 3):
        world.host.run("kill", "-9", str(world.pid(dies)))
        world.wait_boots(dies, boots)
    assert world.events(dies) == ["started"]
    start_agent(world)
    world.wait_status(new, "RUNNING")
    world.wait_status(stops, "STOP")
    world.wait_gone(goes)
    killed = world.wait_events(dies, "started", "killed", "restarted", "killed", "restarted")[1]
    assert killed["reason"] == "QEMU was killed by signal KILL from outside"
    assert world.pid(stays) == pid
    world.wait_events(goes, "started", "stopped")


def test_a_stop_by_hand_while_it_was_away_is_honoured(world: World) -> None:
    uuid = world.vm()
    stop_agent(world)
    world.host.run("systemctl", "stop", f"vm-{uuid}")
    start_agent(world)
    assert world.wait_status(uuid, "STOP")["status_reason"].startswith("stopped by hand")
    world.wait_events(uuid, "started", "stopped-by-hand")


def test_a_claim_that_neither_entry_nor_unit_leads_to_is_given_up(world: World) -> None:
    claim = world.raw(f"/v1/claim/{world.vm()}")
    deleted, moved = str(uuid4()), str(uuid4())
    stop_agent(world)
    world.put(moved, json.dumps({"host": "vmhost-elsewhere"}))
    for uuid in (deleted, moved):
        world.etcd.run("etcdctl", "put", f"/v1/claim/{uuid}", claim)
    start_agent(world)
    eventually(lambda: not world.claim(deleted) and not world.claim(moved), what="no claim on what is gone")


def test_a_stop_that_a_dead_agent_did_not_get_to_ask_for(world: World) -> None:
    """It had said that the stop would be its own; then TO_START was written, and somebody stops it by hand."""
    uuid = world.vm()
    stop_agent(world)
    invocation = world.show(uuid, "InvocationID")["InvocationID"]
    intent = {"invocation": invocation, "event": "stopped", "why": "its status is TO_STOP", "revision": 1}
    world.host.push(json.dumps(intent).encode(), f"/run/uncloud-host/intents/{uuid}")
    world.ask(uuid, status="TO_START")
    start_agent(world)
    world.wait_status(uuid, "RUNNING")
    world.host.run("systemctl", "stop", f"vm-{uuid}")
    assert world.wait_status(uuid, "STOP")["status_reason"].startswith("stopped by hand")
    world.wait_events(uuid, "started", "stopped-by-hand")


def test_a_guest_that_powered_off_while_it_was_away_stays_off(world: World) -> None:
    uuid = world.vm(restart="on-failure")
    stop_agent(world)
    world.type(uuid, "p")
    eventually(lambda: world.state(uuid) == "active/exited", what="the guest is off")
    start_agent(world)
    assert world.wait_status(uuid, "STOP")["status_reason"] == "guest powered off"
    world.wait_events(uuid, "started", "powered-off")


@pytest.mark.parametrize("how", ["reboot", "power failure"])
def test_after_a_reboot_the_vms_run_again(new_world, how: str) -> None:
    world = new_world()
    runs, stopped = world.vm(), world.vm()
    world.ask(stopped, status="TO_STOP")
    world.wait_status(stopped, "STOP")
    before = world.claim(runs)
    if how == "reboot":
        world.host.reboot()
    else:
        world.host.crash()
        world.host.boot()
    world.serve()
    world.wait_boots(runs, 2)
    eventually(lambda: world.claim(runs)["boot_id"] != before["boot_id"], what="the claim is of this boot")
    assert world.entry(runs)["status"] == "RUNNING"
    assert world.qemus(stopped) == []
    if how == "reboot":  # it was told before the host went down, or from its record after
        stop = world.wait_events(runs, "started", "stopped", "started")[1]
        assert stop["reason"] == "this host is shutting down"
        assert "powerbutton" in world.journal(runs)


def test_ready_only_after_etcd_has_been_read(new_world) -> None:
    world = new_world()
    stop_agent(world)
    world.host.run("systemctl", "stop", "etcd")
    world.host.run("systemctl", "start", "--no-block", "uncloud-host")
    eventually(lambda: any("connection refused" in line for line in world.agent_lines()), what="it says why it waits")
    assert world.host.run("systemctl", "is-active", "uncloud-host", check=False).stdout == "activating\n"
    world.host.run("systemctl", "start", "etcd")
    world.wait_ready()
    assert world.agent_is_well()


def test_two_agents_on_one_machine(world: World) -> None:
    second = world.host.run("uncloud-host", "run", check=False)
    assert (second.returncode, second.stderr) == (78, "another uncloud-host runs on this machine\n")


def test_another_name_for_a_host_with_running_vms(new_world) -> None:
    world = new_world()
    uuid = world.vm()
    pid = world.pid(uuid)
    world.configure(UNCLOUD_HOST_NAME="renamed")
    world.host.run("systemctl", "restart", "uncloud-host", check=False)
    eventually(lambda: world.host.run("systemctl", "is-failed", "uncloud-host", check=False).stdout == "failed\n")
    assert [line for line in world.agent_lines() if line.startswith("UNCLOUD_HOST_NAME: this host is renamed now")]
    assert world.pid(uuid) == pid


def test_one_that_hangs_is_restarted_by_its_watchdog(world: World) -> None:
    """Frozen, as when it waits for a disk that does not answer; systemd waits WatchdogSec=, 75 seconds."""
    uuid = world.vm()
    pid, agent = world.pid(uuid), world.shell("systemctl show -P MainPID uncloud-host").strip()
    world.shell(f"kill -STOP {agent}")
    another = world.new()
    world.wait_status(another, "RUNNING", within=150)
    assert world.shell("systemctl show -P MainPID uncloud-host").strip() != agent
    assert world.pid(uuid) == pid
    world.wait_events(uuid, "started")
