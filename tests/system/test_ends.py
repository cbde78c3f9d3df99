"""Every way in which a VM can end, with the agent there, away, or killed at that moment: what is told of it.

Told is: a record in /v1/log for each event, each event in exactly one mail, and for each run a record in /v1/runtime.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from system.world import IMAGES, World
from waiting import eventually

QMP = """
import json, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b'{"execute": "qmp_capabilities"}' + sys.argv[2].encode())
answers = []
for line in connection.makefile():  # QEMU may have ended after the last one
    answers += [said for said in [json.loads(line)] if "event" not in said]
    if len(answers) == 3:
        break
assert not [said for said in answers if "error" in said], answers
"""
OOMD = """
import os, sys
group = "/sys/fs/cgroup" + sys.argv[1]  # as systemd-oomd does it
os.setxattr(group, "user.oomd_ooms", b"1")
os.setxattr(group, "user.oomd_kill", b"1")
open(group + "/cgroup.kill", "w").write("1")
"""
FULL = f"{IMAGES}/full"


def signal(name: str) -> Callable[[World, str], None]:
    return lambda world, uuid: world.shell(f"kill -{name} {world.pid(uuid)}") and None


def types(letter: str) -> Callable[[World, str], None]:
    return lambda world, uuid: world.type(uuid, letter)


def qmp(world: World, uuid: str, command: str, **arguments: str) -> None:
    socket = f"/run/uncloud-vm/{uuid}/qmp.sock"
    world.host.run("python3", "-c", QMP, socket, json.dumps({"execute": command, "arguments": arguments}))


def systemctl(*words: str) -> Callable[[World, str], None]:
    return lambda world, uuid: world.host.run("systemctl", *words, f"vm-{uuid}") and None


def out_of_memory(world: World, uuid: str) -> None:
    world.host.run("python3", "-c", OOMD, world.show(uuid, "ControlGroup")["ControlGroup"])


def image_away(world: World, uuid: str) -> None:
    """Its image is gone at the first restart, and back later."""
    path = f"{IMAGES}/{uuid}.img"
    world.shell(f"mv {path} {path}.away; kill -9 {world.pid(uuid)}")
    world.wait_journal(uuid, "Failed to get OpenFile= file descriptor")
    world.shell(f"mv {path}.away {path}")


def image_taken(world: World, uuid: str) -> None:
    """Somebody opens its image by hand, in the second before it is restarted."""
    path = f"{IMAGES}/{uuid}.img"
    by_hand = f"-S -display none -m 16 -drive file={path},format=raw,if=virtio -pidfile /run/by-hand.pid -daemonize"
    world.shell(f"kill -9 {world.pid(uuid)}; qemu-system-x86_64 {by_hand}")
    world.wait_journal(uuid, 'Failed to get "write" lock')
    world.shell("kill $(cat /run/by-hand.pid)")


def between_two_runs(world: World, uuid: str) -> None:
    """systemd waits for a second before it starts it again."""
    waits = f"systemctl show -P SubState vm-{uuid} | grep -q auto-restart"
    world.shell(f"kill -9 {world.pid(uuid)}; until {waits}; do :; done; systemctl stop vm-{uuid}")


def disk_is_full(world: World, uuid: str) -> None:
    """It pauses with its first write after a reboot, which a snapshot makes one to a new place, until there is room."""
    qmp(world, uuid, "blockdev-snapshot-internal-sync", device="disk0", name="before")
    world.shell(f"dd if=/dev/zero of={FULL}/rest bs=4k 2>/dev/null || true")
    world.type(uuid, "r")
    eventually(lambda: "BLOCK_IO_ERROR" in world.shell(f"cat /run/uncloud-vm/{uuid}/events.json"), what="it is paused")
    world.shell(f"rm {FULL}/rest")
    qmp(world, uuid, "cont")


def again_and_again(world: World, uuid: str) -> None:
    """Until systemd gives up: all VMs of this host have a limit of 4."""

    def has_ended() -> bool:
        if pid := world.pid(uuid):  # 0 would be all of us
            world.shell(f"kill -9 {pid}", check=False)
        return world.state(uuid) == "failed/failed"

    eventually(has_ended, what=lambda: world.state(uuid))


def watchdog(world: World, uuid: str) -> None:
    world.type(uuid, "W")
    world.wait_boots(uuid, 2)


def reboots_and_powers_off(world: World, uuid: str) -> None:
    world.type(uuid, "r")
    world.wait_boots(uuid, 2)
    world.type(uuid, "p")


@dataclass(frozen=True)
class Row:
    """A way to end: what happens, the events after `started`, and the reason of the first."""

    name: str
    cause: Callable[[World, str], None]
    events: str
    reason: str
    by: str | None = None
    status: str = "RUNNING"
    fields: tuple[tuple[str, object], ...] = ()
    trail: tuple[tuple[str, str], ...] = ()


ROWS = (
    Row("powers off", types("p"), "powered-off restarted", "the guest shut itself down"),
    Row("powers off and stays off", types("p"), "powered-off", "the guest powered itself off", status="STOP",
        fields=(("restart", "on-failure"),)),
    Row("reboots, then powers off", reboots_and_powers_off, "powered-off restarted", "the guest shut itself down",
        trail=(("reboots", "1"),)),
    Row("panics", types("x"), "panicked restarted", "the guest's kernel panicked"),
    Row("watchdog", watchdog, "watchdog", "the guest did not answer its watchdog: reset"),
    Row("crashes", signal("SEGV"), "crashed restarted", "QEMU died of signal SEGV"),
    Row("killed", signal("KILL"), "killed restarted", "QEMU was killed by signal KILL from outside$"),
    Row("terminated", signal("TERM"), "killed restarted", "a signal: terminating on signal 15 from pid [0-9]+"),
    Row("killed with its recorder", systemctl("kill", "--signal=KILL"), "killed restarted",
        "QEMU was killed by signal KILL from outside: by systemctl kill"),
    Row("out of memory", out_of_memory, "oom-killed restarted", "this host ran out of memory"),
    Row("quit", lambda world, uuid: qmp(world, uuid, "quit"), "killed restarted", "somebody told QEMU to quit"),
    Row("image away", image_away, "killed could-not-start restarted resolved", "QEMU was killed by signal KILL"),
    Row("image taken", image_taken, "killed restarted could-not-start restarted resolved", "QEMU was killed by signal"),
    Row("restart no", signal("KILL"), "killed gave-up", "QEMU was killed", status="FAILED",
        fields=(("restart", "no"),)),
    Row("given up", again_and_again, f"{'killed restarted ' * 3}killed gave-up", "QEMU was killed", status="FAILED"),
    Row("stopped through etcd", lambda world, uuid: world.ask(uuid, status="TO_STOP"), "stopped",
        "its status is TO_STOP", status="STOP"),
    Row("stopped by hand", systemctl("stop"), "stopped-by-hand", "systemctl stop on this host", status="STOP"),
    Row("stopped between two runs", between_two_runs, "killed stopped-by-hand", "QEMU was killed", status="STOP"),
    Row("restarted by hand", systemctl("restart"), "stopped started", "systemctl restart on this host"),
    Row("moved", lambda world, uuid: world.ask(uuid, host="elsewhere"), "moved", "the entry's host is elsewhere now"),
    Row("deleted", lambda world, uuid: world.delete(uuid), "stopped", "its entry was deleted", status=""),
    Row("disk full", disk_is_full, "disk-error resolved", "writing to disks\\[0\\]: there is no space left"),
)  # fmt: skip
AGENTS = ("alive", "away", "killed")
ENDS = {
    "crashed", "killed", "oom-killed", "panicked", "powered-off", "could-not-start", "stopped", "stopped-by-hand",
    "moved",
}  # fmt: skip


def full_disk(world: World) -> dict[str, str]:
    """A disk in a small directory, whose clusters are tmpfs's pages."""
    world.shell(f"mkdir -p {FULL}; mountpoint -q {FULL} || mount -t tmpfs -o size=1M,mode=755 tmpfs {FULL}")
    world.shell(f"qemu-img convert -O qcow2 -o cluster_size=4k /root/tiny.img {FULL}/a; chmod 600 {FULL}/a")
    return {"file": f"{FULL}/a", "format": "qcow2"}


@pytest.fixture(scope="module", params=AGENTS)
def ended(request, lab, package) -> Iterator[tuple[World, dict[str, str]]]:
    """A host on which all of that has happened, and what was told about it."""
    world = World(lab.host(request.param))
    world.host.boot()
    world.install(package, UNCLOUD_STOP_TIMEOUT="5", UNCLOUD_RESTART_LIMIT="4")
    vms = {}
    for row in ROWS:
        disks = {"disks": [full_disk(world)]} if row.name == "disk full" else {}
        vms[row.name] = world.new(name=row.name, **dict(row.fields), **disks)
    for uuid in vms.values():
        world.wait_status(uuid, "RUNNING", within=90)
        world.wait_boots(uuid, 1)
    if request.param == "away":
        world.host.run("systemctl", "stop", "uncloud-host")
    for row in ROWS:
        row.cause(world, vms[row.name])
        if request.param == "killed":
            world.host.run("systemctl", "kill", "--signal=KILL", "uncloud-host", check=False)
    if request.param == "away":
        for row in ROWS:
            if row.status == "RUNNING" and "restarted" in row.events:
                eventually(lambda: world.state(vms[row.name]) == "active/running", what=f"{row.name}: it is back")  # noqa: B023 - called at once
        world.host.run("systemctl", "start", "uncloud-host")
    yield world, vms
    world.host.destroy()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_an_end_is_told_once_with_its_reason(ended: tuple[World, dict[str, str]], row: Row) -> None:
    world, uuid = ended[0], ended[1][row.name]
    expected = ["started", *row.events.split()]

    def told() -> list[str]:
        return [record["event"] for record in sorted(world.records(uuid), key=lambda record: record["time"])]

    eventually(lambda: told() == expected, within=60, what=lambda: f"{told()} is {expected}; {world.records(uuid)}")
    first = next(record for record in world.records(uuid) if record["event"] == row.events.split()[0])
    assert re.search(row.reason, first["reason"])
    assert dict(row.trail).items() <= first["trail"].items()
    if row.name in ("image away", "image taken"):
        could_not = next(record for record in world.records(uuid) if record["event"] == "could-not-start")
        assert re.search(f'/{uuid}.img\': No such file|Failed to get "write" lock', could_not["reason"])
    assert world.entry(uuid).get("status", "") == row.status


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_event_is_in_one_mail(ended: tuple[World, dict[str, str]], row: Row) -> None:
    world, uuid = ended[0], ended[1][row.name]
    ids = {record["id"] for record in world.records(uuid)}
    eventually(lambda: ids <= world.mailed().keys(), within=60, what=lambda: str(ids - world.mailed().keys()))
    assert [mails for event, mails in world.mailed().items() if event in ids and len(mails) > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_run_is_registered_with_its_end(ended: tuple[World, dict[str, str]], row: Row) -> None:
    world, uuid = ended[0], ended[1][row.name]
    told = world.records(uuid)
    begun = {record["invocation"] for record in told if record["event"] in ("started", "restarted")}
    over = {record["invocation"]: record["event"] for record in reversed(told) if record["event"] in ENDS}

    def registered() -> dict[str, str | None]:
        return {run["invocation"]: run["event"] for run in world.runs(uuid)}

    expected = {invocation: over.get(invocation) for invocation in begun}
    eventually(lambda: registered() == expected, what=lambda: f"{registered()} is {expected}")
    assert len(world.runs(uuid)) == len(begun)
    assert all(run["seconds"] > 0 for run in world.runs(uuid) if run["stopped"])


def go_down(world: World, how: Callable[[], None], agent: str) -> None:
    """End the host, with its agent alive, stopped or just killed, and start it again."""
    if agent != "alive":
        world.host.run("systemctl", *(["stop"] if agent == "away" else ["kill", "--signal=KILL"]), "uncloud-host")
    how()
    if not world.host.process:
        world.host.boot()
    world.serve()


@pytest.mark.parametrize(
    ("how", "event", "reason"),
    [
        ("reboot", "stopped", "this host is shutting down"),
        ("crash", "killed", "this host went down without shutting down"),
    ],
)
def test_the_end_of_the_host(ended: tuple[World, dict[str, str]], request, how: str, event: str, reason: str) -> None:
    world, uuid = ended[0], ended[1]["crashes"]
    before = len(world.records(uuid))
    world.hurry("letters.WINDOW = 5.0")  # seconds: there were many mails about it
    world.wait_ready()
    go_down(world, getattr(world.host, how), request.node.callspec.params["ended"])
    told = lambda: sorted(world.records(uuid)[before:], key=lambda record: record["time"])  # noqa: E731
    eventually(lambda: [one["event"] for one in told()] == [event, "started"], within=90, what=lambda: str(told()))
    assert told()[0]["reason"].startswith(reason)
    over = eventually(lambda: [run for run in world.runs(uuid) if run["invocation"] == told()[0]["invocation"]])
    assert [(run["event"], run["estimated"]) for run in over] == [(event, how == "crash")]
    world.wait_told(uuid)
