"""What is believed and what is not: nothing stops because something is absent, old, or somebody else's."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from system.world import World
from waiting import eventually

ETCD = "/var/lib/etcd"


def change_claim(world: World, uuid: str, **fields: Any) -> None:
    world.host.run("etcdctl", "put", f"/v1/claim/{uuid}", input=json.dumps(world.claim(uuid) | fields))


def wait_held(world: World, *uuids: str) -> None:
    for uuid in uuids:
        eventually(lambda uuid=uuid: world.claim(uuid).get("held") is True, what=f"{uuid} is held")
        eventually(lambda uuid=uuid: "held" in world.events(uuid), what="it is told")


def transaction(world: World, *operations: str) -> None:
    world.host.run("etcdctl", "txn", input="\n" + "\n".join(operations) + "\n\n\n")


def wipe(world: World) -> None:
    """Lose all that etcd knew, as on a new machine."""
    world.shell(f"systemctl stop etcd && rm -rf {ETCD}/* && systemctl start etcd")


def backup(world: World) -> None:
    world.shell("rm -f /root/backup && etcdctl snapshot save /root/backup")


def restore(world: World) -> None:
    world.shell(
        f"systemctl stop etcd && rm -rf {ETCD}/* && d=$(. /etc/default/etcd 2>/dev/null; echo ${{ETCD_DATA_DIR:-"
        f"{ETCD}/default}}) && etcdutl snapshot restore /root/backup --data-dir $d && chown -R etcd: {ETCD}"
        " && systemctl start etcd"
    )


def run_on(world: World, pids: dict[str, int]) -> bool:
    """Tell whether these are the same processes as before, and no others of these VMs."""
    return {uuid: world.qemus(uuid) for uuid in pids} == {uuid: [pid] for uuid, pid in pids.items()}


def test_a_lost_claim_is_written_again(world: World) -> None:
    uuid = world.vm()
    before, pid = world.claim(uuid), world.pid(uuid)
    world.host.run("etcdctl", "del", f"/v1/claim/{uuid}")
    eventually(lambda: world.claim(uuid), what="a claim")
    same = {"host", "machine_id", "boot_id", "id", "entry"}
    assert {key: world.claim(uuid)[key] for key in same} == {key: before[key] for key in same}
    assert run_on(world, {uuid: pid})
    assert world.events(uuid) == ["started"]


def test_a_claim_that_was_lost_while_the_agent_was_away_is_written_again(world: World) -> None:
    uuid = world.vm()
    pid = world.pid(uuid)
    world.host.run("systemctl", "stop", "uncloud-host")
    world.host.run("etcdctl", "del", f"/v1/claim/{uuid}")
    world.host.run("systemctl", "start", "uncloud-host")
    eventually(lambda: world.claim(uuid), what="a claim")
    assert run_on(world, {uuid: pid})


def test_another_hosts_claim_on_what_runs_here_is_told_and_nothing_is_touched(world: World) -> None:
    uuid = world.vm()
    pid, mine = world.pid(uuid), world.claim(uuid)
    change_claim(world, uuid, host="elsewhere", machine_id="f" * 32, id="theirs")
    told = world.wait_events(uuid, "started", "wrong-host")[1]
    assert told["reason"] == "it runs here, but its claim is elsewhere's; nothing is touched"
    assert run_on(world, {uuid: pid})
    assert world.claim(uuid)["id"] == "theirs"
    change_claim(world, uuid, **mine)
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")


def test_a_claim_that_replaces_ours_stops_the_vm(world: World) -> None:
    uuid = world.vm()
    mine = world.claim(uuid)
    change_claim(world, uuid, host="elsewhere", machine_id="f" * 32, id="theirs", replaces=mine["id"])
    world.wait_gone(uuid)
    assert "taken over by elsewhere" in world.wait_events(uuid, "started", "stopped")[1]["reason"]
    assert world.claim(uuid)["id"] == "theirs"
    assert world.wait_reason(uuid, "waits for elsewhere, which has its claim")["status"] == "RUNNING"


def test_the_same_uuid_created_again_boots_anew(world: World) -> None:
    uuid = world.vm()
    entry, pid, before = world.raw(f"/v1/vm/{uuid}"), world.pid(uuid), world.claim(uuid)
    fresh = json.dumps({key: value for key, value in json.loads(entry).items() if key != "status"})
    world.shell(f"etcdctl del /v1/vm/{uuid} && echo '{fresh}' | etcdctl put /v1/vm/{uuid}")
    world.wait_boots(uuid, 2)
    world.wait_status(uuid, "RUNNING")
    assert world.pid(uuid) != pid
    assert world.claim(uuid)["entry"] > before["entry"]
    assert len(world.qemus(uuid)) == 1
    world.wait_events(uuid, "started", "stopped", "started")


@pytest.mark.parametrize("what", ["disk", "mac"])
def test_a_disk_or_a_mac_of_another_vm_is_refused(world: World, what: str) -> None:
    world.shell("ip link show br0 >/dev/null 2>&1 || (ip link add br0 type bridge && ip link set br0 up)")
    nic = {"bridge": "br0", "mac": "02:00:00:00:00:01" if what == "mac" else "02:00:00:00:00:02"}
    first = world.vm(nics=[nic])
    fields = {"disks": world.entry(first)["disks"]} if what == "disk" else {"nics": [nic]}
    second = world.new(**fields)
    reason = world.wait_status(second, "FAILED")["status_reason"]
    assert reason.startswith("disks[0].file: " if what == "disk" else "nics[0].mac: 02:00:00:00:00:01 is a mac of VM")
    assert first in reason
    world.wait_events(second, "could-not-start")
    world.delete(first)
    world.wait_gone(first)
    world.ask(second, status="TO_START")
    world.wait_status(second, "RUNNING")
    world.delete(second)


def test_deleting_several_vms_at_once_is_not_believed(new_world: Callable[..., World]) -> None:
    world = new_world()
    vms = [world.vm(name=f"web-{number}") for number in range(3)]
    entry = world.raw(f"/v1/vm/{vms[0]}")
    pids = {uuid: world.pid(uuid) for uuid in vms}
    world.host.run("etcdctl", "del", "--prefix", "/v1/vm/")
    wait_held(world, *vms)
    mail = world.wait_mail("", "3 VMs are held")
    assert "3 VMs that run here were deleted from etcd in one revision" in mail.get_content()
    assert all(uuid in mail.get_content() for uuid in vms)
    for how in ("systemctl restart uncloud-host", "systemctl kill --signal=KILL uncloud-host"):
        world.shell(how)
        world.wait_ready()
        assert run_on(world, pids)
    back, confirmed, held = vms
    world.put(back, entry)
    eventually(lambda: "held" not in world.claim(back), what="the hold is over")
    world.wait_events(back, "started", "held", "resolved")
    world.host.run("uncloud-host", "confirm", confirmed)
    world.wait_gone(confirmed)
    eventually(lambda: not world.claim(confirmed), what="its claim is released")
    del pids[confirmed]
    assert run_on(world, pids)
    assert [world.events(uuid) for uuid in (confirmed, held)] == [
        ["started", "held", "resolved", "stopped"],
        ["started", "held"],
    ]
    assert len(world.mails("is held")) + len(world.mails("are held")) == 1


def test_many_entries_gone_while_the_agent_was_away_are_not_believed(new_world: Callable[..., World]) -> None:
    world = new_world()
    vms = [world.vm() for _ in range(5)]
    pids = {uuid: world.pid(uuid) for uuid in vms}
    world.host.run("systemctl", "stop", "uncloud-host")
    for uuid in vms[:4]:
        world.delete(uuid)
    world.host.run("systemctl", "start", "uncloud-host")
    wait_held(world, *vms[:4])
    assert run_on(world, pids)
    world.delete(vms[4])  # a single one, and it was seen to go
    world.wait_gone(vms[4])


def test_a_wiped_etcd_stops_nothing_and_what_is_put_back_runs_on(new_world: Callable[..., World]) -> None:
    world = new_world()
    vms = [world.vm() for _ in range(2)]
    entries = {uuid: world.raw(f"/v1/vm/{uuid}") for uuid in vms}
    pids = {uuid: world.pid(uuid) for uuid in vms}
    wipe(world)
    for uuid in vms:
        eventually(lambda uuid=uuid: world.claim(uuid).get("held") is True, what=f"{uuid} is held")
    new = world.new()
    world.wait_journal(new, "not starting: etcd's history went backwards; for 60 s nothing is started")
    world.put(vms[0], entries[vms[0]])
    eventually(lambda: "held" not in world.claim(vms[0]), what="the hold is over")
    assert run_on(world, pids)
    world.wait_status(new, "RUNNING", within=120)
    world.ask(vms[0], status="TO_RESTART")  # at a revision lower than that of the run
    world.wait_boots(vms[0], 2)
    world.wait_status(vms[0], "RUNNING")
    assert run_on(world, {vms[1]: pids[vms[1]]})
    assert world.agent_is_well()


@pytest.mark.parametrize("agent", ["there", "away"])
def test_what_a_restored_backup_says_is_not_believed(new_world: Callable[..., World], agent: str) -> None:
    world = new_world()
    stopped, moved, runs = world.vm(), world.vm(), world.vm()
    for uuid, fields in ((stopped, {"status": "TO_STOP"}), (moved, {"host": "elsewhere"})):
        world.ask(uuid, **fields)
        world.wait_gone(uuid)
        eventually(lambda uuid=uuid: not world.claim(uuid), what="released")
    world.wait_status(stopped, "STOP")
    backup(world)
    world.ask(stopped, status="TO_START")
    world.ask(moved, host=world.name)
    for uuid in (stopped, moved):
        world.wait_boots(uuid, 2)
        world.wait_status(uuid, "RUNNING")
    pids = {uuid: world.pid(uuid) for uuid in (stopped, moved, runs)}
    if agent == "away":
        world.host.run("systemctl", "stop", "uncloud-host")
    restore(world)
    if agent == "away":
        world.host.run("systemctl", "start", "uncloud-host")
    for uuid in (stopped, moved):
        eventually(lambda uuid=uuid: world.claim(uuid).get("held") is True, what=f"{uuid} is held")
    assert "held" not in world.claim(runs)
    assert world.entry(stopped)["status"] == "STOP"
    assert run_on(world, pids)
    world.ask(stopped, status="TO_STOP")  # this is new
    world.wait_status(stopped, "STOP")
    world.host.run("uncloud-host", "confirm", moved)
    world.wait_gone(moved)
    assert run_on(world, {runs: pids[runs]})


def test_a_stop_of_many_vms_at_once_is_held_to_the_last(new_world: Callable[..., World]) -> None:
    world = new_world()
    vms = [world.vm(stop_timeout=1 + number) for number in range(5)]
    for uuid in vms:
        world.type(uuid, "h")  # they do not hear the power button, and end one after the other
    world.host.run("systemctl", "stop", "vm-*")
    wait_held(world, *vms)
    assert {world.entry(uuid)["status"] for uuid in vms} == {"RUNNING"}
    assert [world.qemus(uuid) for uuid in vms] == [[]] * 5


def test_one_that_waits_to_be_restarted_is_held_with_all_others(new_world: Callable[..., World]) -> None:
    """No recorder runs for it: it had become STOP, as if it had been stopped alone."""
    world = new_world()
    crashes, runs = (world.vm() for _ in range(2))
    for boots in (2, 3, 4):  # systemd waits longer each time
        world.host.run("kill", "-9", str(world.pid(crashes)))
        world.wait_boots(crashes, boots)
    world.host.run("kill", "-9", str(world.pid(crashes)))
    eventually(lambda: world.state(crashes) == "activating/auto-restart", what=lambda: world.state(crashes))
    world.host.run("systemctl", "stop", "uncloud-vm.slice")
    wait_held(world, crashes, runs)
    assert {world.entry(uuid)["status"] for uuid in (crashes, runs)} == {"RUNNING"}


@pytest.mark.parametrize("then", ["reboot", "confirm", "start"])
def test_a_stop_of_all_vms_at_once_is_held(new_world: Callable[..., World], then: str) -> None:
    world = new_world()
    vms = [world.vm() for _ in range(2)]
    world.host.run("systemctl", "stop", "uncloud-vm.slice")
    wait_held(world, *vms)
    for uuid in vms:
        assert world.qemus(uuid) == []
        assert world.entry(uuid)["status"] == "RUNNING"
        assert world.events(uuid) == ["started", "stopped-by-hand", "held"]
    world.host.run("systemctl", "restart", "uncloud-host")
    assert [world.qemus(uuid) for uuid in vms] == [[], []]
    match then:
        case "reboot":
            world.host.reboot()
            world.serve()
        case "confirm":
            world.host.run("uncloud-host", "confirm", *vms)
            for uuid in vms:
                assert world.wait_status(uuid, "STOP")["status_reason"].startswith("stopped by hand")
                eventually(lambda uuid=uuid: not world.claim(uuid), what="released")
            return
        case "start":
            for uuid in vms:
                world.ask(uuid, status="TO_START")
    for uuid in vms:
        world.wait_boots(uuid, 2)
        world.wait_status(uuid, "RUNNING")
        eventually(lambda uuid=uuid: "held" not in world.claim(uuid), what="the hold is over")


def test_failed_is_tried_again_and_told_once_when_it_is_well(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.hurry("reconcile.RETRIES = (3,)")
    disk = world.disk("late")
    world.host.run("mv", disk["file"], "/root/late.img")
    uuid = world.new(disks=[disk])
    world.wait_status(uuid, "FAILED")
    world.host.run("mv", "/root/late.img", disk["file"])
    world.wait_status(uuid, "RUNNING", within=90)
    assert world.entry(uuid).get("status_reason") is None
    world.wait_events(uuid, "could-not-start", "started", "resolved")


def test_people_are_told_when_etcd_is_away_for_long(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.hurry("trust.LONG = 2.0", "agent.ALIVE = 1.0")
    world.host.run("systemctl", "stop", "etcd")
    world.wait_mail("", "has lost etcd")
    world.host.run("systemctl", "start", "etcd")
    world.wait_mail("", "has etcd back")
    eventually(lambda: world.events("") == ["etcd-lost", "etcd-back"], what="both are in the log")


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()
