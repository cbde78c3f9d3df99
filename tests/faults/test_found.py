"""Faults that were found by trying, each as the shortest way to it. None may come back."""

import json
import re
import time
import uuid as uuids
from datetime import UTC, datetime

import pytest

from system.world import World
from waiting import eventually

MANY = 12
STOP = {"status": "TO_STOP"}


def put_all(world: World, entries: dict[str, dict[str, object]]) -> None:
    """Write many entries in one transaction, as a scheduler does."""
    # etcdctl's own language: no condition, puts, nothing else
    puts = "".join(f"put /v1/vm/{uuid} {json.dumps(json.dumps(entry))}\n" for uuid, entry in entries.items())
    world.host.run("etcdctl", "txn", input=f"\n{puts}\n\n")


def some(world: World, count: int, **fields: object) -> list[str]:
    uuids = [f"00000000-0000-4000-8000-{n:012d}" for n in range(count)]
    put_all(world, {uuid: {"host": world.name, "memory": 16} | fields for uuid in uuids})
    return uuids


def test_an_auto_restart_that_cannot_be_set_up_is_no_stop_by_hand(world: World) -> None:
    """PID 1 has a start job for it; taking every job for an operator's stop switched the VM off for good."""
    uuid = world.vm()
    path = world.entry(uuid)["disks"][0]["file"]
    world.shell(f"mv {path} {path}.away; kill -9 {world.pid(uuid)}")
    eventually(lambda: "could-not-start" in world.events(uuid), what=lambda: str(world.events(uuid)))
    assert world.entry(uuid)["status"] == "RUNNING"
    world.shell(f"mv {path}.away {path}")
    world.wait_boots(uuid, 2)
    assert "stopped-by-hand" not in world.events(uuid)


def test_vms_that_stop_and_start_at_once_are_never_foreign(new_world) -> None:
    """A unit that vanishes between being listed and being read has no environment, and so no evidence."""
    world = new_world(UNCLOUD_STOP_TIMEOUT="2")  # they have no guest to hear the power button
    uuids = some(world, MANY)
    for uuid in uuids:
        world.wait_status(uuid, "RUNNING")
    for _ in range(3):
        put_all(world, {uuid: world.entry(uuid) | {"status": "TO_STOP"} for uuid in uuids})
        world.wait_journal(uuids[0], "stopping")
        put_all(world, {uuid: world.entry(uuid) | {"status": "TO_START"} for uuid in uuids})
        for uuid in uuids:
            world.wait_status(uuid, "RUNNING", within=60)
    assert {event for uuid in uuids for event in world.events(uuid)} <= {"started", "stopped"}
    put_all(world, {uuid: world.entry(uuid) | {"status": "TO_STOP"} for uuid in uuids})
    for uuid in uuids:
        world.wait_status(uuid, "STOP", within=90)
        assert world.claim(uuid) == {}
    assert world.agent_is_well()


def test_vms_that_ask_for_any_port_in_one_transaction_get_different_ones(new_world) -> None:
    world = new_world()
    uuids = some(world, 6, vnc={"tcp": True})
    for uuid in uuids:
        world.wait_status(uuid, "RUNNING")
    shown = [world.show(uuid, "Environment")["Environment"] for uuid in uuids]
    ports = {found[1] for text in shown if (found := re.search(r"UNCLOUD_VNC=(\S+)", text))}
    assert len(ports) == len(uuids)
    assert [world.events(uuid) for uuid in uuids] == [["started"]] * len(uuids)


def test_the_port_of_a_stopped_vm_is_free(world: World) -> None:
    first, second = (world.new(vnc={"tcp": "127.0.0.1:5966"}, status="STOP") for _ in range(2))
    for uuid in (first, second, first):
        world.ask(uuid, status="TO_START")
        world.wait_status(uuid, "RUNNING")
        world.ask(uuid, status="TO_STOP")
        world.wait_status(uuid, "STOP")


def test_a_bus_that_restarts_under_load_fails_nobody(new_world) -> None:
    world = new_world()
    uuids = some(world, MANY)
    for _ in range(3):
        world.host.run("systemctl", "restart", "dbus")
    for uuid in uuids:
        world.wait_status(uuid, "RUNNING", within=60)
    assert {event for uuid in uuids for event in world.events(uuid)} == {"started"}
    assert world.agent_is_well()


def test_a_restart_while_the_bus_was_away_is_noticed(new_world) -> None:
    world = new_world()
    uuid = world.vm()
    world.shell(f"systemctl stop dbus.socket dbus; kill -9 {world.pid(uuid)}")
    world.wait_boots(uuid, 2)
    world.shell("systemctl start dbus.socket dbus")
    world.wait_events(uuid, "started", "killed", "restarted")
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    world.wait_events(uuid, "started", "killed", "restarted", "stopped")


def test_several_ends_between_two_passes_are_told_once_each(world: World) -> None:
    uuid = world.vm()
    world.host.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "uncloud-host")
    for boots in (2, 3):
        world.type(uuid, "p")
        world.wait_boots(uuid, boots)
    world.host.run("systemctl", "kill", "--kill-whom=main", "--signal=CONT", "uncloud-host")
    world.wait_events(uuid, "started", "powered-off", "restarted", "powered-off", "restarted")


def test_the_end_of_a_run_that_nobody_saw_is_told_though_its_recorder_was_killed(world: World) -> None:
    """The unit waited for its next restart then, and the stop that came next was taken for that end."""
    uuid = world.vm()
    agent = "systemctl kill --kill-whom=main uncloud-host --signal"
    world.shell(f"{agent}=STOP; kill -s SEGV {world.pid(uuid)}")
    world.wait_boots(uuid, 2)
    world.ask(uuid, status="TO_STOP")
    world.shell(f"systemctl kill --signal=KILL vm-{uuid}; {agent}=CONT")
    world.wait_status(uuid, "STOP")
    world.wait_events(uuid, "started", "crashed", "restarted", "killed", "stopped")


def test_the_end_of_a_run_that_no_agent_saw_begin_and_no_recorder_saw_end(world: World) -> None:
    """A storm: the package was removed the moment after a start."""
    uuid = world.vm()
    record = "/usr/libexec/uncloud-host/record"
    world.shell(f"systemctl stop uncloud-host; rm /var/lib/uncloud-host/runs/*; mv {record} {record}.away")
    world.shell(f"kill -9 {world.pid(uuid)}")
    world.wait_boots(uuid, 2)
    world.shell(f"mv {record}.away {record}; systemctl start uncloud-host")
    world.wait_events(uuid, "started", "killed", "restarted")


def test_many_ends_without_a_record_on_a_slow_disk_do_not_cost_the_agent_its_life(new_world) -> None:
    """journalctl was asked about one VM after the other, the watchdog did not wait, and the next agent began anew."""
    world = new_world()
    vms = some(world, MANY, status="RUNNING")
    for uuid in vms:
        world.wait_status(uuid, "RUNNING")
    world.host.push(b'#!/bin/sh\nsleep 1\nexec /usr/bin/journalctl "$@"\n', "/usr/local/bin/journalctl", mode=0o755)
    world.host.push(b"[Service]\nWatchdogSec=5\n", "/etc/systemd/system/uncloud-host.service.d/watchdog.conf")
    world.hurry("agent.ALIVE = 1.0")
    world.wait_ready()
    record = "/usr/libexec/uncloud-host/record"
    world.shell(f"mv {record} {record}.away; systemctl kill --signal=KILL 'vm-*'")
    told = "etcdctl get --prefix /v1/log/ | grep -c '\"killed\"'"
    eventually(
        lambda: world.shell(told, check=False) == f"{MANY}\n", within=90, what=lambda: world.shell(told, check=False)
    )
    assert world.agent_is_well()


def test_the_reason_is_found_also_at_the_second_failure(world: World) -> None:
    """journald knows the first run's invocation only, as long as systemd restarts a unit with RestartMode=direct."""
    second = world.put("00000000-0000-4000-8000-0000000000aa", disks=[world.occupied("found")])
    eventually(lambda: len(world.records(second, "could-not-start")) >= 3, what=lambda: str(world.records(second)))
    for record in world.records(second, "could-not-start"):
        assert 'Failed to get "write" lock' in record["reason"]
    assert 'Failed to get "write" lock' in world.entry(second)["status_reason"]
    world.delete(second)
    world.wait_gone(second)


@pytest.mark.parametrize(
    "key",
    ["00000000-0000-4000-8000-0000000000bb/more", "\\xff\\xfebad", "..", " "],
)
def test_odd_keys_hold_up_nobody(world: World, key: str) -> None:
    world.shell(f"""printf '/v1/vm/{key}' | python3 -c '{PUT}' '{{"host": "vmhost1", "memory": 16}}'""")
    world.vm()
    assert world.agent_is_well()


def test_what_a_guest_writes_over_its_own_events_harms_nobody(world: World) -> None:
    uuid = world.vm()
    record = f"/run/uncloud-vm/{uuid}/events.json"
    world.shell(f"""echo '{{"event": "SHUTDOWN", "data": {{"reason": "\\ud800"}}}}' >> {record}""")
    world.shell(f"kill -9 {world.pid(uuid)}")
    world.wait_events(uuid, "started", "killed", "restarted")
    world.shell(f"rm {record}; mkfifo {record}; kill -9 {world.pid(uuid)}")
    world.wait_events(uuid, "started", "killed", "restarted", "killed", "restarted")
    assert world.agent_is_well()


def test_a_guest_whose_watchdog_barks_all_the_time_pushes_no_other_record_out(world: World) -> None:
    uuid = world.vm()
    began = time.time() // 600 * 600  # one is told of all in these ten minutes
    barks = [said("WATCHDOG", began + n, action="reset") for n in range(30)]
    disk = {"node-name": "disk0", "operation": "write", "action": "stop", "nospace": True}
    lines = [*barks, said("BLOCK_IO_ERROR", time.time(), **disk)]
    world.host.run("sh", "-c", f"cat >> /run/uncloud-vm/{uuid}/events.json", input="".join(lines))
    wanted = ["started", "watchdog", "disk-error"]  # it is resolved soon: nothing is paused in truth
    eventually(lambda: world.events(uuid)[:3] == wanted, what=lambda: str(world.events(uuid)))


def test_a_guest_that_has_qemu_say_things_without_end_does_not_fill_run(world: World) -> None:
    """As one can that ejects its memory again and again; the agent reads what comes, and gives the memory back."""
    uuid = world.vm()
    record = f"/run/uncloud-vm/{uuid}/events.json"
    line = said("ACPI_DEVICE_OST", time.time(), info={"slot": "0", "source": 1, "status": 0})
    flood = f"for _ in $(seq 60); do yes '{line.strip()}' | head -c 1048576; echo; done >> {record}"
    world.shell(flood)
    blocks = f"echo >> {record}; stat -c '%b * %B / 1048576' {record}"
    eventually(lambda: int(world.shell(f"echo $(($({blocks})))")) < 20, what=lambda: world.shell(f"{blocks}"))
    world.host.run("sh", "-c", f"cat >> {record}", input=said("WATCHDOG", time.time(), action="reset"))
    world.wait_events(uuid, "started", "watchdog")
    world.host.run("systemctl", "restart", "uncloud-host")
    world.wait_ready()
    disk = {"node-name": "disk0", "operation": "write", "action": "stop", "nospace": True}
    world.host.run("sh", "-c", f"cat >> {record}", input=said("BLOCK_IO_ERROR", time.time(), **disk))
    wanted = ["started", "watchdog", "disk-error"]  # it is resolved soon: nothing is paused in truth
    eventually(lambda: world.events(uuid)[:3] == wanted, what=lambda: str(world.events(uuid)))


def test_a_recorder_that_has_become_a_link_costs_nobody_a_file(world: World) -> None:
    """A guest that has broken out may replace the file in the moment before its memory is given back."""
    uuid = world.vm()
    record = f"/run/uncloud-vm/{uuid}/events.json"
    trim = f'python3 -c \'from uncloud_host.trimming import trim; trim("{uuid}", "events.json", 4096)\''
    over = f"systemctl show -P ActiveState uncloud-host-trim-{uuid}"
    for target, kept in ((record, 0), ("/root/precious", 1), ("/dev/shm/precious", 1)):  # noqa: S108 - QEMU sees it
        world.shell(f"yes precious | head -c 8192 > {target}; chmod a+r {target}; cp {target} /root/copy")
        if target != record:
            world.shell(f"ln -sf {target} {record}")
        world.shell(trim)
        eventually(lambda: world.shell(over) == "inactive\n", what=lambda: world.shell(over))
        assert world.host.run("cmp", target, "/root/copy", check=False).returncode == 1 - kept


def said(name: str, when: float, **about: object) -> str:
    """What QEMU says of an event."""
    at = {"seconds": int(when), "microseconds": 0}
    return json.dumps({"timestamp": at, "event": name, "data": about}) + "\n"


@pytest.mark.parametrize(
    ("hindrance", "reason"),
    [
        ("systemctl mask --quiet {}", "{} is masked on this host"),
        (
            "systemctl edit --quiet --force --full --stdin {} && systemctl daemon-reload",
            "there is a unit file of its name",
        ),
    ],
)
def test_a_vm_whose_unit_is_masked_is_failed(world: World, hindrance: str, reason: str) -> None:
    """It was started each 30 s, as far as the agent's own words went, and nobody told."""
    uuid = str(uuids.uuid4())
    unit = f"vm-{uuid}.service"
    world.host.run("sh", "-c", hindrance.format(unit), input="[Service]\nExecStart=/bin/true\n")
    world.put(uuid, disks=[world.disk(uuid)])
    assert reason.format(unit) in world.wait_status(uuid, "FAILED")["status_reason"]
    world.shell(f"rm /etc/systemd/system/{unit}; systemctl daemon-reload")
    world.ask(uuid, status="TO_START")
    world.wait_boots(uuid, 1)


def test_when_etcd_has_lost_its_data_vms_run_on(new_world) -> None:
    world = new_world()
    uuid = world.vm()
    pid = world.pid(uuid)
    world.host.run("etcdctl", "del", "--prefix", "/v1/")  # the entry and our claim on it, in one revision
    world.wait_events(uuid, "held")
    world.vm()  # later work is done
    assert world.pid(uuid) == pid
    world.wait_mail(uuid, "is held")


def test_a_full_disk_loses_no_event_while_the_agent_lives(new_world) -> None:
    world = new_world()
    uuid = world.put("00000000-0000-4000-8000-0000000000cd")
    world.wait_events(uuid, "started")
    # The spool on a disk of its own, which is then filled.
    world.shell(
        "systemctl stop uncloud-host && cp -a /var/lib/uncloud-host /root/spool"
        " && mount -t tmpfs -o size=300k,mode=700 tmpfs /var/lib/uncloud-host"
        " && cp -a /root/spool/events /root/spool/told /root/spool/ends /var/lib/uncloud-host/"
        " && systemctl start uncloud-host"
    )
    world.shell("cat /dev/zero > /var/lib/uncloud-host/filler || true")
    world.shell(f"kill -9 {world.pid(uuid)}")
    eventually(lambda: any("cannot be kept on disk" in line for line in world.agent_lines()), what="it says so")
    other = world.put("00000000-0000-4000-8000-0000000000cc")
    world.wait_status(other, "RUNNING")  # the work goes on
    world.shell("rm /var/lib/uncloud-host/filler")
    world.wait_events(uuid, "started", "killed", "restarted")
    world.wait_events(other, "started")
    assert world.agent_is_well()


def test_a_mail_that_is_refused_for_good_holds_up_no_other(new_world) -> None:
    world = new_world(UNCLOUD_MAIL_TO="sre@example.org")
    world.host.run("systemctl", "stop", "lab-smtp")
    world.host.push(REFUSING.encode(), "/root/refusing.py")
    world.host.run("systemd-run", "--quiet", "--unit=lab-smtp", "python3", "/root/refusing.py")
    eventually(lambda: ":25 " in world.shell("ss -ltn"), what="the SMTP server listens")
    uuid = world.vm(name="refused")
    eventually(lambda: any("given up" in line for line in world.agent_lines()), what="it says so")
    world.host.run("systemctl", "stop", "lab-smtp")
    world.serve()
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_mail(uuid, "was killed")


def test_a_full_etcd_crashes_nobody_and_every_record_arrives_once(new_world) -> None:
    world = new_world()
    world.shell(
        "mkdir -p /etc/systemd/system/etcd.service.d;"
        " printf '[Service]\\nEnvironment=ETCD_QUOTA_BACKEND_BYTES=2097152\\n'"
        " > /etc/systemd/system/etcd.service.d/small.conf; systemctl daemon-reload; systemctl restart etcd"
    )
    uuid = world.vm(name="web-1")
    world.wait_events(uuid, "started")
    world.shell(
        "head -c 200000 /dev/zero | tr '\\0' x > /root/filler; while etcdctl put /filler < /root/filler; do :; done",
        check=False,
    )
    assert "NOSPACE" in world.host.run("etcdctl", "alarm", "list").stdout
    for boots in (2, 3):
        world.shell(f"kill -9 {world.pid(uuid)}")
        world.wait_boots(uuid, boots)
    eventually(lambda: any("out of space" in line for line in world.agent_lines()), what="it says so")
    world.wait_mail(uuid, "was killed")
    assert world.events(uuid) == ["started"]
    assert world.agent_is_well()
    world.shell("etcdctl del /filler")
    revision = json.loads(world.host.run("etcdctl", "get", "/", "-w", "json").stdout)["header"]["revision"]
    world.shell(f"etcdctl compact {revision} && etcdctl defrag && etcdctl alarm disarm")
    told = ["started", "killed", "restarted", "killed", "restarted"]
    eventually(lambda: len(world.events(uuid)) >= 5, within=60, what=lambda: str(world.events(uuid)))
    assert world.events(uuid) == told
    assert len({record["id"] for record in world.records(uuid)}) == 5
    assert world.agent_is_well()


PUT = (
    "import subprocess, sys; key = sys.stdin.buffer.read(); "
    'subprocess.run([b"etcdctl", b"put", b"--", key, sys.argv[1].encode()], check=True)'
)
REFUSING = """
import asyncio
from aiosmtpd.controller import Controller

class Handler:
    async def handle_DATA(self, server, session, envelope):
        return "550 not this one"

async def main():
    Controller(Handler(), hostname="127.0.0.1", port=25).start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_stop_between_two_runs_is_the_end_of_neither(world: World) -> None:
    """The storm: a run had two ends in the log, its crash, and the stop while systemd waited to start it again."""
    uuid = world.vm()
    world.shell(f"kill -9 {world.pid(uuid)}; etcdctl put /v1/vm/{uuid} '{json.dumps(world.entry(uuid) | STOP)}'")
    world.wait_status(uuid, "STOP")
    records = world.wait_events(uuid, "started", "killed", "stopped")
    assert [record["invocation"] == records[0]["invocation"] for record in records] == [True, True, False]


def test_runs_that_are_over_leave_no_descriptor_in_the_agent(world: World) -> None:
    """The storm: each run's recorder stayed open, and so its directory was there and no watch told its end."""
    uuid = world.vm()
    for boots in (2, 3):
        world.ask(uuid, status="TO_RESTART")
        world.wait_boots(uuid, boots)
    world.delete(uuid)
    world.wait_gone(uuid)
    held = f"ls -l /proc/$(systemctl show -P MainPID uncloud-host)/fd | grep -c {uuid}/events.json"
    eventually(lambda: world.shell(held, check=False) == "0\n", what=lambda: world.shell(held, check=False))


@pytest.mark.parametrize(("verb", "event"), [("stop", "stopped-by-hand"), ("restart", "stopped")])
def test_an_end_while_the_package_is_away_is_told_as_it_was(world: World, verb: str, event: str) -> None:
    """The storm: what nobody recorded was a kill, at the time when an agent looked again."""
    uuid = world.vm()
    world.wait_events(uuid, "started")
    world.shell(f"systemctl stop uncloud-host; mv {PROGRAMS} {PROGRAMS}.away; systemctl {verb} vm-{uuid}")
    over = datetime.now(UTC)
    if verb == "restart":
        world.wait_boots(uuid, 2)
    world.shell(f"mv {PROGRAMS}.away {PROGRAMS}; systemctl start uncloud-host")
    record = next(record for record in world.wait_events(uuid, *TOLD[verb]) if record["event"] == event)
    assert record["reason"] == f"systemctl {verb} on this host"
    assert datetime.fromisoformat(record["time"]) < over
    run = next(run for run in world.runs(uuid) if run["event"] == event)
    assert datetime.fromisoformat(run["stopped"]) < over
    if verb == "stop":
        world.wait_status(uuid, "STOP")
    assert world.events(uuid) == TOLD[verb]


PROGRAMS = "/usr/libexec/uncloud-host"
TOLD = {"stop": ["started", "stopped-by-hand"], "restart": ["started", "stopped", "started"]}


def test_lost_connections_leave_no_descriptor_in_the_agent(new_world) -> None:
    world = new_world()
    world.vm()
    held = "ls -l /proc/$(systemctl show -P MainPID uncloud-host)/fd | grep -c -e socket: -e pidfd"
    before = world.shell(held)
    for _ in range(4):
        world.host.run("systemctl", "restart", "dbus")
        world.vm()
    eventually(lambda: world.shell(held) == before, what=lambda: f"{before} and now {world.shell(held)}")


def test_an_agent_that_may_open_nothing_loses_nothing(new_world) -> None:
    world = new_world()
    uuid = world.vm()
    pid, agent = world.pid(uuid), world.shell("systemctl show -P MainPID uncloud-host").strip()
    said = len(world.agent_lines())
    world.shell(f"prlimit --pid {agent} --nofile=8:; kill -9 {pid}")
    eventually(lambda: world.pid(uuid) not in (0, pid), what="systemd has started it again")
    eventually(lambda: len(world.agent_lines()) > said, what="the agent says what it cannot do")
    waiting = world.new()
    world.shell(f"prlimit --pid {agent} --nofile=1024:", check=False)  # gRPC may have aborted it
    world.wait_events(uuid, "started", "killed", "restarted")
    world.wait_status(waiting, "RUNNING")
    assert [line for line in world.agent_lines() if "Traceback" in line] == []
