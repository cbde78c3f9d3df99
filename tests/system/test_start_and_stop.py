"""An entry becomes a running guest, and stops when it says so."""

import json
import re

import pytest

from system.world import World
from waiting import eventually


def test_an_entry_becomes_a_running_guest(world: World) -> None:
    uuid = world.new(name="web-1", memory=24, smp=2, owner={"id": 7})
    entry = world.wait_status(uuid, "RUNNING")
    assert entry["owner"] == {"id": 7}
    assert world.wait_journal(uuid, "TINY-GUEST boot 1w")
    status = world.host.run("systemctl", "status", f"vm-{uuid}").stdout
    assert "VM web-1" in status
    argv = world.host.pull(f"/proc/{world.pid(uuid)}/cmdline").decode().split("\0")
    assert {"-name", "-uuid", uuid, "-smp", "2", "-m", "24M", "guest=web-1,debug-threads=on"} <= set(argv)
    started = world.wait_events(uuid, "started")[0]
    assert (started["host"], started["name"], started["invocation"]) == (
        "vmhost1", "web-1", world.show(uuid, "InvocationID")["InvocationID"],
    )  # fmt: skip
    mail = world.wait_mail(uuid, "web-1 started")
    assert (mail["To"], mail["Message-ID"]) == ("sre@example.org", f"<{started['id']}@vmhost1>")


def test_the_users_bytes_stay_as_they_are(world: World) -> None:
    uuid = world.new()
    world.wait_status(uuid, "RUNNING")
    text = ' {"host" :"vmhost1", "memory":16,"x":1.50,\t"y":"\\u00e9", "restart":"no" }'
    world.put(uuid, text)
    world.wait_status(uuid, "RUNNING")
    assert world.raw(f"/v1/vm/{uuid}") == text.replace('{"host"', '{"status": "RUNNING", "host"', 1)


def test_a_claim_is_taken_before_the_start_and_released_after_the_stop(world: World) -> None:
    uuid = world.vm()
    claim = world.claim(uuid)
    assert (claim["host"], claim["machine_id"]) == ("vmhost1", world.shell("cat /etc/machine-id").strip())
    assert f"UNCLOUD_CLAIM={claim['id']}" in world.show(uuid, "Environment")["Environment"]
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    assert world.claim(uuid) == {}


def test_a_vm_that_another_machine_has_claimed_is_not_started(world: World) -> None:
    uuid = "00000000-0000-4000-8000-000000000001"
    other = {"host": "vmhost2", "machine_id": "1" * 32, "boot_id": "b", "id": "i", "entry": 1, "since": "s"}
    world.host.run("etcdctl", "put", f"/v1/claim/{uuid}", input=json.dumps(other))
    world.put(uuid)
    world.wait_journal(uuid, "not starting: it is claimed by vmhost2")
    assert world.qemus(uuid) == []
    world.host.run("etcdctl", "del", f"/v1/claim/{uuid}")
    world.wait_status(uuid, "RUNNING")


def test_entries_of_other_hosts_are_nobodys_business_here(world: World) -> None:
    uuid = world.put("00000000-0000-4000-8000-000000000002", host="vmhost10")
    other = world.vm()  # put later, so the first one has been seen
    assert world.entry(uuid) == {"host": "vmhost10", "memory": 16}
    assert world.events(uuid) == []
    assert world.events(other)


def test_to_stop_presses_the_power_button(world: World) -> None:
    uuid = world.vm()
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    assert "pressed the power button" in world.journal(uuid)
    assert "powerbutton" in world.journal(uuid)  # the guest's word
    world.wait_gone(uuid)
    stopped = world.wait_events(uuid, "started", "stopped")[1]
    assert (stopped["reason"], stopped["trail"]["qemu"]) == ("its status is TO_STOP", "guest-shutdown")
    world.wait_mail(uuid, "stopped")


def test_a_guest_that_ignores_the_button_is_ended(world: World) -> None:
    uuid = world.vm(stop_timeout=1)
    world.type(uuid, "h")
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    assert "did not power off within 1 s" in world.journal(uuid)
    assert "terminating on signal 15" in world.journal(uuid)


def test_a_qemu_that_reacts_to_nothing_is_killed(world: World) -> None:
    uuid = world.vm(stop_timeout=1)
    world.host.run("kill", "-STOP", str(world.pid(uuid)))
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP", within=60)
    world.wait_gone(uuid)
    assert world.events(uuid) == ["started", "stopped"]


def test_a_wedged_vm_delays_no_other(world: World) -> None:
    wedged = world.vm(stop_timeout=3)
    world.host.run("kill", "-STOP", str(world.pid(wedged)))
    world.ask(wedged, status="TO_STOP")
    world.wait_journal(wedged, "stopping")
    world.vm()
    assert world.entry(wedged)["status"] == "TO_STOP"
    world.wait_status(wedged, "STOP", within=60)


def test_a_deleted_vm_is_stopped_and_its_claim_released(world: World) -> None:
    uuid = world.vm()
    world.delete(uuid)
    world.wait_gone(uuid)
    eventually(lambda: world.claim(uuid) == {}, what="the claim is released")
    assert world.wait_events(uuid, "started", "stopped")[1]["reason"] == "its entry was deleted"
    assert world.entry(uuid) == {}


def test_stop_then_start_again_boots_from_the_same_disk(world: World) -> None:
    uuid = world.vm()
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    world.ask(uuid, status="TO_START", memory=32)
    world.wait_status(uuid, "RUNNING")
    world.wait_boots(uuid, 2)
    assert "32M" in world.host.pull(f"/proc/{world.pid(uuid)}/cmdline").decode()


def test_to_restart_boots_once_with_todays_entry(world: World) -> None:
    uuid = world.vm()
    world.ask(uuid, status="TO_RESTART", memory=32)
    world.wait_status(uuid, "RUNNING")
    world.wait_boots(uuid, 2)
    assert world.wait_events(uuid, "started", "stopped", "started")[1]["reason"] == "its status is TO_RESTART"


def test_a_change_while_it_runs_disturbs_nothing(world: World) -> None:
    uuid = world.vm()
    pid = world.pid(uuid)
    world.ask(uuid, memory=64, status="TO_START")
    world.wait_status(uuid, "RUNNING")
    assert world.pid(uuid) == pid


@pytest.mark.parametrize(
    ("vnc", "tcp"),
    [({"unix": True}, ""), ({"unix": False, "tcp": "127.0.0.1:5977"}, "127.0.0.1:5977"), ({"tcp": True}, "127.0.0.1:")],
)
def test_vnc_answers_where_the_entry_says(world: World, vnc: dict[str, object], tcp: str) -> None:
    uuid = world.vm(vnc=vnc)
    chosen = re.search(r"UNCLOUD_VNC=(\S*)", world.show(uuid, "Environment")["Environment"])
    assert chosen
    assert chosen[1].startswith(tcp) if tcp else chosen[1] == ""
    listening = [f"/run/uncloud-vm/{uuid}/vnc.sock"] * bool(vnc.get("unix", True)) + [chosen[1]] * bool(tcp)
    for address in listening:
        assert world.host.run("python3", "-c", RFB, address).stdout == "RFB 003.008\n\n"


def test_two_vms_that_ask_for_any_port_get_two(world: World) -> None:
    both = [world.vm(vnc={"tcp": True}) for _ in range(2)]
    ports = {re.search(r"UNCLOUD_VNC=(\S*)", world.show(uuid, "Environment")["Environment"])[1] for uuid in both}
    assert len(ports) == 2


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()


RFB = """
import socket, sys
if sys.argv[1].startswith("/"):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
else:
    host, _, port = sys.argv[1].rpartition(":")
    connection = socket.create_connection((host, int(port)))
print(connection.recv(12).decode())
"""
