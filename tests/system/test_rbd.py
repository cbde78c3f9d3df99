"""Disks in Ceph: with a key that nobody sees, never open twice, and a Ceph that is away is waited for."""

import base64
import json
import re
import shlex
import time
import uuid as uuids
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import Ceph, Lab, guests, tree
from system.cluster import Cluster
from system.world import World
from uncloud_host import names
from waiting import eventually

KEYRING = "/etc/ceph/ceph.client.libvirt.keyring"
SLOW = 90  # seconds: Ceph does not hand over the lock of a client that died without a word before it has forgotten it


@pytest.fixture(scope="module")
def ceph(lab: Lab) -> Iterator[Ceph]:
    made = Ceph(lab.host("ceph1", [tree.ceph()]))
    made.boot()
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def hosts(new_cluster: Callable[..., Cluster], ceph: Ceph) -> Cluster:
    cluster = new_cluster(UNCLOUD_STOP_TIMEOUT="5")
    for world in cluster.worlds:
        world.host.push(ceph.conf(), "/etc/ceph/ceph.conf")
        world.host.push(ceph.keyring(), KEYRING, 0o600)
    return cluster


@pytest.fixture
def cluster(hosts: Cluster, ceph: Ceph) -> Iterator[Cluster]:
    hosts.mend()
    began = time.monotonic()
    yield hosts
    ceph.heal()
    assert hosts.witness.doubles(began) == []


@pytest.fixture
def here(cluster: Cluster) -> World:
    return cluster.worlds[0]


def new(world: World, ceph: Ceph, place: str = "one", **fields: Any) -> str:
    """Put a VM whose disk is an rbd image with its uuid as name."""
    uuid = str(uuids.uuid4())
    return world.put(uuid, disks=[{"rbd": ceph.load(f"{place}/{uuid}", guests.tiny())}], **fields)


def vm(world: World, ceph: Ceph, **fields: Any) -> str:
    uuid = new(world, ceph, **fields)
    world.wait_status(uuid, "RUNNING")
    world.wait_boots(uuid, 1)
    return uuid


@contextmanager
def stray(world: World, image: str, ceph: Ceph) -> Iterator[str]:
    """Somebody has an image open with a QEMU started by hand; gives how he is called in messages."""
    pool, name = image.split("/")
    disk = {"driver": "rbd", "node-name": "disk0", "pool": pool, "image": name, "user": "libvirt"}
    device = {"driver": "virtio-blk-pci", "drive": "disk0"}
    words = ["-S", "-nodefaults", "-display", "none", "-m", "16", "-blockdev", json.dumps(disk)]
    words += ["-device", json.dumps(device)]
    world.host.run("systemd-run", "--quiet", "--unit=stray", "qemu-system-x86_64", *words)
    eventually(lambda: ceph.watchers(image), what="the stray has the image open")
    yield world.host.address
    world.host.run("systemctl", "stop", "stray")


# A VM on Ceph


@pytest.mark.parametrize("place", ["one", "one/tenant-7"])
def test_a_vm_boots_from_ceph(here: World, ceph: Ceph, place: str) -> None:
    if place != "one":
        ceph.host.run("rbd", "namespace", "create", place)
    uuid = new(here, ceph, place)
    here.wait_status(uuid, "RUNNING")
    here.wait_boots(uuid, 1)
    assert ceph.boots(f"{place}/{uuid}") == 1
    assert [watcher.partition(":")[0] for watcher in ceph.watchers(f"{place}/{uuid}")] == [here.host.address]
    here.ask(uuid, status="TO_STOP")
    here.wait_status(uuid, "STOP")
    assert ceph.watchers(f"{place}/{uuid}") == []
    here.ask(uuid, status="TO_START")
    here.wait_boots(uuid, 2)
    assert here.exposure(f"vm-{uuid}.service") <= 1.2
    assert here.agent_is_well()


def test_the_vm_of_the_readme_boots_from_ceph(here: World, ceph: Ceph) -> None:
    """Disk in Ceph, context disc, nic, VNC on all addresses: the command is the golden one, apart from KVM."""
    case = Path(__file__).parents[1] / "core/cases/production"
    entry = json.loads(case.with_suffix(".json").read_text()) | {"host": here.name}
    ceph.load(entry["disks"][0]["rbd"], guests.tiny())
    here.host.push(bytes(1 << 20), entry["disks"][1]["file"], 0o600)
    here.shell("ip link show br0 || ip link add br0 type bridge; ip link set br0 up")
    uuid = here.put("5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", entry)
    here.wait_status(uuid, "RUNNING")
    here.wait_boots(uuid, 1)
    golden = shlex.split(case.with_suffix(".argv").read_text().replace("\\\n", " "))
    runs = here.host.pull(f"/proc/{here.pid(uuid)}/cmdline").decode().removesuffix("\0").split("\0")
    ours = {"q35,accel=kvm": "q35,accel=tcg", "host": "max"}
    assert runs == [ours.get(word, word.removesuffix(",vhost=on")) for word in golden]
    assert re.search(r"(\*|\[::\]):10062 ", here.shell("ss -ltn"))
    assert names.tap(uuid, 0) in here.shell("ip link show master br0")
    assert here.host.run("uncloud-host", "vnc", uuid).stdout.splitlines()[0] == "[::]:10062"
    here.ask(uuid, status="TO_STOP")
    here.wait_status(uuid, "STOP")


def test_systemd_restarts_it_also_when_the_agent_is_away(here: World, ceph: Ceph) -> None:
    uuid = vm(here, ceph)
    here.host.run("systemctl", "stop", "uncloud-host")
    here.host.run("kill", "-9", str(here.pid(uuid)))
    here.wait_journal(uuid, "TINY-GUEST boot 2w", within=SLOW)
    assert ceph.boots(f"one/{uuid}") == 2


def test_many_vms_read_one_image(here: World, ceph: Ceph) -> None:
    disc = {"rbd": ceph.load("one/shared", guests.tiny()), "readonly": True}
    for _ in range(2):
        uuid = str(uuids.uuid4())
        here.put(uuid, disks=[{"rbd": ceph.load(f"one/{uuid}", guests.tiny())}, disc])
        here.wait_boots(uuid, 1)


# What is wrong is said


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("one/nope", r"disks\[0\]\.rbd: one/nope: error opening image nope: .*No such file or directory"),
        ("two/nope", r"disks\[0\]\.rbd: two/nope: error opening pool 'two': .*No such file or directory"),
        ("one/tenant-9/nope", r"disks\[0\]\.rbd: one/tenant-9/nope: namespace 'tenant-9' does not exist"),
    ],
)
def test_what_does_not_exist_is_named(here: World, image: str, reason: str) -> None:
    uuid = here.put(str(uuids.uuid4()), disks=[{"rbd": image}])
    began = time.monotonic()
    here.wait_reason(uuid, reason)
    assert time.monotonic() - began < 10
    assert here.wait_status(uuid, "FAILED")
    here.wait_events(uuid, "could-not-start")


@pytest.mark.parametrize(
    ("keyring", "reason"),
    [
        (None, f"disks[0].rbd: UNCLOUD_CEPH_KEYRING: {KEYRING}: No such file or directory"),
        ("[client.admin]\nkey = AQAA\n", f"disks[0].rbd: UNCLOUD_CEPH_KEYRING: {KEYRING} has no key of client.libvirt"),
        (
            "[client.libvirt]\nkey = AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==\n",
            f"disks[0].rbd: {{image}}: Permission denied for client.libvirt with the key in {KEYRING}",
        ),
    ],
)
def test_a_wrong_keyring_is_named_and_a_right_one_is_taken_at_once(
    here: World, ceph: Ceph, keyring: str | None, reason: str
) -> None:
    here.shell(f"rm {KEYRING}")
    if keyring is not None:
        here.host.push(keyring, KEYRING, 0o600)
    uuid = new(here, ceph)
    entry = here.wait_status(uuid, "FAILED")
    here.host.push(ceph.keyring(), KEYRING, 0o600)
    assert entry["status_reason"] == reason.format(image=f"one/{uuid}")
    here.vm()  # on a file: it is not concerned
    here.ask(uuid, status="TO_START")
    here.wait_status(uuid, "RUNNING")
    here.wait_boots(uuid, 1)


def test_without_a_conf_it_is_named(here: World, ceph: Ceph) -> None:
    here.shell("mv /etc/ceph/ceph.conf /etc/ceph/away")
    uuid = new(here, ceph)
    entry = here.wait_status(uuid, "FAILED")
    here.shell("mv /etc/ceph/away /etc/ceph/ceph.conf")
    assert entry["status_reason"] == "disks[0].rbd: UNCLOUD_CEPH_CONF: /etc/ceph/ceph.conf: No such file or directory"


# Ceph is away


def cable(ceph: Ceph) -> str:
    ceph.host.cut()
    return "Connection timed out"


def osds(ceph: Ceph) -> str:
    """They neither answer nor refuse."""
    ceph.stop_osd()
    return "no answer within 15 s"


@pytest.mark.parametrize("fail", [cable, osds])
def test_a_vm_waits_for_ceph_and_delays_no_other(here: World, ceph: Ceph, fail: Callable[[Ceph], str]) -> None:
    running = vm(here, ceph)
    pid = here.pid(running)
    uuids = [new(here, ceph, status="STOP") for _ in range(6)]  # more than are looked at together
    said, began = fail(ceph), time.monotonic()
    for uuid in uuids:
        here.ask(uuid, status="TO_START")
    here.wait_boots(here.new(), 1)
    assert [here.entry(uuid).get("status_reason") for uuid in uuids] == [None] * 6, "it came last and ran first"
    entry = here.wait_reason(uuids[0], "waits for Ceph")
    assert entry["status_reason"] == f"waits for Ceph: disks[0].rbd: one/{uuids[0]}: {said}"
    print(f"told after {time.monotonic() - began:.1f} s")
    assert (entry["status"], here.state(uuids[0])) == ("TO_START", "inactive/dead")
    ceph.heal()
    for uuid in uuids:
        here.wait_status(uuid, "RUNNING", within=SLOW)
        here.wait_boots(uuid, 1)
    eventually(lambda: "status_reason" not in here.entry(uuids[0]))
    assert here.pid(running) == pid
    assert here.agent_is_well()


def test_a_restart_fails_and_does_not_hang_while_the_monitors_are_dead(here: World, ceph: Ceph) -> None:
    uuid = vm(here, ceph)
    ceph.kill_monitor()
    here.host.run("kill", "-9", str(here.pid(uuid)))
    here.wait_journal(uuid, "error connecting: Connection timed out")
    ceph.heal()
    here.wait_journal(uuid, "TINY-GUEST boot 2w", within=SLOW)


# Nobody else has it open


def test_an_image_that_is_open_elsewhere_is_waited_for(cluster: Cluster, ceph: Ceph) -> None:
    here, there = cluster.worlds
    uuid = new(here, ceph, status="STOP")
    with stray(there, f"one/{uuid}", ceph) as address:
        here.ask(uuid, status="TO_START")
        entry = here.wait_reason(uuid, rf"waits for {address} \(client\.\d+\) to close disks\[0\]\.rbd: one/{uuid}$")
        assert entry["status"] == "TO_START"
        assert here.claim(uuid)["host"] == here.name  # first the claim, then the look
        assert here.state(uuid) == "inactive/dead"
    here.wait_status(uuid, "RUNNING")
    here.wait_boots(uuid, 1)


def test_an_image_that_stays_open_elsewhere_is_not_opened(cluster: Cluster, ceph: Ceph) -> None:
    here, there = cluster.worlds
    here.hurry("witness.PATIENCE = 3.0", "reconcile.RETRIES = (5,)", "agent.FULL_PASS = 2.0")
    uuid = new(here, ceph, status="STOP")
    with stray(there, f"one/{uuid}", ceph) as address:
        here.ask(uuid, status="TO_START")
        reason = here.wait_status(uuid, "FAILED")["status_reason"]
        assert reason.startswith(f"disks[0].rbd: one/{uuid} is open elsewhere: {address} (client.")
        (told,) = here.wait_events(uuid, "could-not-start")
        assert told["reason"] == reason
        here.wait_journal(uuid, r"(?s)(waits for.*){2}")  # a retry
        assert here.events(uuid) == ["could-not-start"]
        assert ceph.boots(f"one/{uuid}") == 0
    here.wait_status(uuid, "RUNNING")  # at the next retry
    here.shell("rm -r /etc/systemd/system/uncloud-host.service.d; systemctl daemon-reload")
    here.shell("systemctl restart uncloud-host")


def test_it_moves_when_ceph_has_forgotten_a_qemu_that_was_killed(cluster: Cluster, ceph: Ceph) -> None:
    here, there = cluster.worlds
    uuid = vm(here, ceph, restart="no")
    here.host.run("kill", "-9", str(here.pid(uuid)))
    here.wait_status(uuid, "FAILED")
    cluster.move(uuid, there, status="TO_START")
    there.wait_reason(uuid, f"waits for {here.host.address}")
    cluster.wait_runs(uuid, there, within=SLOW)
    there.wait_boots(uuid, 2)
    assert ceph.boots(f"one/{uuid}") == 2
    print(f"nobody ran it for {cluster.witness.gaps(uuid)[0]:.0f} s")


def test_a_takeover_keeps_a_host_that_is_not_dead_from_writing(hosts: Cluster, ceph: Ceph) -> None:
    """It has lost etcd only: its QEMU runs on, and Ceph takes nothing from it any more."""
    hosts.mend()
    here, there = hosts.worlds
    uuid = vm(here, ceph)
    (etcd,) = hosts.etcd.hosts
    here.host.run("ip", "route", "add", "blackhole", etcd.address)
    there.etcd.run("etcdctl", "del", f"/v1/host/{here.name}")  # as its lease does after a minute
    done = there.host.run("uncloud-host", "takeover", uuid)
    assert done.stdout == f"{uuid}: is vmhost2's now, and was vmhost1's\n"
    there.wait_boots(uuid, 2)
    here.type(uuid, "r")  # whoever boots writes
    eventually(lambda: "BLOCK_IO_ERROR" in here.shell(f"cat /run/uncloud-vm/{uuid}/events.json"), within=SLOW)
    assert ceph.boots(f"one/{uuid}") == 2
    here.host.run("ip", "route", "delete", "blackhole", etcd.address)
    hosts.wait_runs(uuid, there)
    eventually(lambda: here.records(uuid, "stopped"), what=lambda: str(here.records(uuid)))
    assert here.records(uuid, "stopped")[0]["reason"].startswith("it was taken over by vmhost2")
    there.type(uuid, "r")
    eventually(lambda: ceph.boots(f"one/{uuid}") == 3, within=SLOW, what="the new one writes")


def test_a_takeover_that_is_refused_keeps_nobody_from_writing(hosts: Cluster, ceph: Ceph) -> None:
    """Its second disk is a file. What could be fenced was, before that was said, and the guest was paused."""
    hosts.mend()
    here, there = hosts.worlds
    uuid = str(uuids.uuid4())
    here.put(uuid, disks=[{"rbd": ceph.load(f"one/{uuid}", guests.tiny())}, here.disk(uuid)])
    here.wait_boots(uuid, 1)
    (etcd,) = hosts.etcd.hosts
    here.host.run("ip", "route", "add", "blackhole", etcd.address)
    there.etcd.run("etcdctl", "del", f"/v1/host/{here.name}")  # as its lease does after a minute
    done = there.host.run("uncloud-host", "takeover", uuid, check=False)
    assert "disks[1] is no rbd image" in done.stderr
    here.type(uuid, "r")  # whoever boots writes
    eventually(lambda: ceph.boots(f"one/{uuid}") == 2, within=SLOW, what="it still writes")
    here.host.run("ip", "route", "delete", "blackhole", etcd.address)


# The key


def test_nobody_sees_the_key(cluster: Cluster, ceph: Ceph, here: World) -> None:
    uuid = vm(here, ceph)
    key, unit, host = ceph.key(), f"vm-{uuid}.service", here.host
    path = host.run("busctl", "--json=short", "call", *BUS, "org.freedesktop.systemd1.Manager", "GetUnit", "s", unit)
    place = json.loads(path.stdout)["data"][0]
    properties = ["call", BUS[0], place, "org.freedesktop.DBus.Properties", "GetAll", "s"]
    user = here.shell(f"ps -o uid= -p {here.pid(uuid)}").strip()
    as_vm = f"setpriv --reuid={user} --regid={user} --clear-groups"
    readable = "find / -xdev -type f -size -64k -readable -exec grep -lsF {key} {{}} +"
    shown = {
        "command lines": here.shell("cat /proc/[0-9]*/cmdline", check=False),
        "environments": here.shell("cat /proc/[0-9]*/environ", check=False),
        "systemctl show": host.run("systemctl", "show", "--all", unit).stdout,
        "systemctl cat": host.run("systemctl", "cat", unit).stdout,
        "bus, unit": host.run("busctl", *properties, "org.freedesktop.systemd1.Unit").stdout,
        "bus, service": host.run("busctl", *properties, "org.freedesktop.systemd1.Service").stdout,
        "bus, introspection": host.run("busctl", "introspect", "--full", BUS[0], place).stdout,
        "journal": host.run("journalctl", "--output=export", "--all").stdout,
        "etcd": cluster.etcd.run("etcdctl", "get", "--prefix", "").stdout,
        "conf": here.shell("cat /run/uncloud-vm/ceph.conf"),
    }
    assert all(shown.values())
    assert [where for where, text in shown.items() if key in text or raw(key) in text] == []
    for directory in ("/run", "/"):
        search = readable.replace("find / ", f"find {directory} ").format(key=key)
        assert here.shell(f"setpriv --reuid=nobody --regid=nogroup --clear-groups {search} 2>&-", check=False) == ""
    # The search finds what there is to find, and the VM's user has its own credential and nothing else.
    found = here.shell(f"{readable.replace('find / ', 'find /run ').format(key=key)}; true")
    assert "/run/uncloud-host/ceph.key\n" in found
    credential = f"/run/credentials/{unit}/ceph"
    assert here.shell(f"{as_vm} cat /run/uncloud-host/ceph.key {KEYRING} 2>&-", check=False) == ""
    assert here.shell(f"nsenter --target={here.pid(uuid)} --mount {as_vm} cat {credential}") == key
    assert here.shell("stat -c '%a %U' /run/uncloud-host/ceph.key /run/uncloud-vm/ceph.conf") == "600 root\n644 root\n"


BUS = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")


def raw(key: str) -> str:
    """The key's bytes as a program shows them that decodes them."""
    return base64.b64decode(key).decode(errors="replace")
