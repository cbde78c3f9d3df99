"""What guests get is what their entries say, as they see it themselves: three Linux guests, booted at the same time."""

import json
import re
import uuid as uuids
from pathlib import Path
from typing import Any

import pytest

from lab import guests
from system import rfb
from system.world import IMAGES, World
from waiting import eventually

SECRETS = "/etc/uncloud-host/secrets"
SEEDS = "/run/uncloud-host/seeds"
VARIABLES = "/var/lib/uncloud-host/uefi"
FULL, KERNEL, UEFI = (str(uuids.uuid4()) for _ in range(3))
LINUX = {"file": f"{IMAGES}/linux.iso"}
NETWORK = "version: 2\nethernets:\n  {nic}:\n    addresses: [10.9.0.{number}/24]\n"
APPEND = "console=ttyS0 panic=0 note=\"a  b\" x='c,d=e' %n 100% ; --"
USER_DATA = {"hostname": "böser \U0001f600", "runcmd": [["echo", "a: b"]]}
SECRET = "#!/bin/sh\necho 'pass  word'\n"

ENTRIES: dict[str, dict[str, Any]] = {
    FULL: {
        "name": "Full 1",
        "memory": 224,
        "smp": 2,
        "cpu": {"model": "Nehalem", "cores": 1, "threads": 2},
        "machine": "pc-q35-10.0",
        "disks": [
            {"file": f"{IMAGES}/0.img", "serial": "VIRTIO-1", "cache": "none", "discard": True},
            {"file": f"{IMAGES}/1.img", "bus": "scsi", "serial": "SCSI-1", "cache": "writethrough"},
            {"file": f"{IMAGES}/2.img", "bus": "scsi", "readonly": True},
            {"file": f"{IMAGES}/3.img", "bus": "ide", "serial": "IDE-1"},
            {"file": f"{IMAGES}/4.qcow2", "format": "qcow2", "discard": True, "cache": "unsafe"},
            {**LINUX, "bus": "cdrom"},
        ],
        "nics": [
            {"bridge": "br0", "mac": "02:00:b3:39:79:75", "mtu": 1400},
            {"bridge": "br0", "model": "e1000"},
            {"bridge": "br0", "model": "e1000e"},
            {"bridge": "br0", "model": "rtl8139"},
        ],
        "boot": {"order": ["disk5"]},
        "cloud_init": {"user_data": USER_DATA, "network_config": NETWORK.format(nic="eth0", number=1)},
        "limits": {"memory_max": 1500, "cpu_weight": 50},
    },
    KERNEL: {
        "memory": 192,
        "nics": [{"bridge": "br0", "model": "e1000"}],
        "boot": {"kernel": f"{IMAGES}/vmlinuz", "initrd": f"{IMAGES}/initrd", "append": APPEND},
        "cloud_init": {"network_config": NETWORK.format(nic="eth0", number=2), "meta_data": {"instance-id": "mine"}},
        "rng": False, "balloon": False, "pvpanic": False, "guest_agent": False, "vnc": {"unix": False},
    },
    UEFI: {
        "memory": 256,
        "firmware": "uefi",
        "disks": [{**LINUX, "readonly": True}],
        "cloud_init": {"user_data_file": "full.user-data", "meta_data": "instance-id: x\n"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def linux(world: World) -> World:
    """A host with the three guests, which may still boot."""
    world.shell("ip link add br0 type bridge && ip link set br0 up")
    iso = guests.linux()
    for path in (iso, iso.with_name("vmlinuz"), iso.with_name("initrd")):
        world.host.push(path, f"{IMAGES}/{path.name}", mode=0o644)
    world.shell(f"cd {IMAGES} && for n in 0 1 2 3; do truncate -s $((n + 1))M $n.img; done")
    world.shell(f"qemu-img create -q -f qcow2 {IMAGES}/4.qcow2 5M")
    world.shell(f"mkdir -p -m 700 {SECRETS}")
    world.host.push(SECRET, f"{SECRETS}/full.user-data", mode=0o600)
    for uuid, entry in ENTRIES.items():
        world.put(uuid, entry)
    return world


def facts(world: World, uuid: str, boots: int = 1) -> str:
    """What a guest said at the last of so many boots."""
    eventually(
        lambda: world.journal(uuid).count("FACTS end") >= boots, within=120, every=0.5, what=lambda: world.journal(uuid)
    )
    return world.journal(uuid).rpartition("GUEST-UP")[2]


def values(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def devices(told: str, kind: str) -> dict[str, dict[str, str]]:
    return {match[1]: values(match[0]) for match in re.finditer(rf"FACTS {kind} (\w+) .*", told)}


def seed(told: str, name: str) -> list[str]:
    return re.findall(rf"^SEED {name}: (.*)$", told, re.MULTILINE)


def test_its_processors_and_memory(linux: World) -> None:
    told = facts(linux, FULL)
    machine, cpu = values(re.findall("FACTS uuid.*", told)[0]), values(re.findall("FACTS cpu .*", told)[0])
    assert (machine["uuid"], machine["cpus"], machine["firmware"]) == (FULL, "2", "bios")
    assert 0.8 * 224 * 1024 < int(machine["memkb"]) < 224 * 1024
    assert (cpu["sockets"], cpu["cores"], cpu["threads"]) == ("1", "1", "2")
    assert "Nehalem" in told
    assert linux.show(FULL, "MemoryMax", "CPUWeight") == {"MemoryMax": str(1500 << 20), "CPUWeight": "50"}


def test_its_disks(linux: World) -> None:
    got = devices(facts(linux, FULL), "disk")
    shown = {
        name: (int(disk["sectors"]) >> 11, disk["bus"], disk["serial"], disk["ro"], disk["cache"])
        for name, disk in got.items()
    }
    iso = Path(guests.linux()).stat().st_size >> 20
    assert sorted(shown.values()) == sorted([
        (1, "virtio", "VIRTIO-1", "0", "back"),
        (2, "scsi", "SCSI-1", "0", "through"),
        (3, "scsi", "", "1", "through"),
        (4, "ide", "IDE-1", "0", "back"),
        (5, "virtio", "", "0", "back"),
        (iso, "cdrom", "", "1", "through"),
        (1, "virtio", "cidata", "1", "back"),
    ])  # fmt: skip


def test_its_nics(linux: World) -> None:
    got = sorted(devices(facts(linux, FULL), "nic").values(), key=lambda nic: nic["slot"])
    assert [(nic["slot"], nic["driver"]) for nic in got] == [
        ("08.0", "virtio_net"), ("09.0", "e1000"), ("0a.0", "e1000e"), ("0b.0", "8139cp"),
    ]  # fmt: skip
    assert (got[0]["mac"], [nic["mtu"] for nic in got]) == ("02:00:b3:39:79:75", ["1400", "1500", "1500", "1500"])
    assert len({nic["mac"] for nic in got if nic["mac"].startswith("02:")}) == 4


def test_what_an_entry_does_not_switch_off_is_there(linux: World) -> None:
    assert "FACTS rng=yes balloon=yes pvpanic=yes agent=yes screen=yes" in facts(linux, FULL)
    assert "FACTS rng=no balloon=no pvpanic=no agent=no screen=no" in facts(linux, KERNEL)


def test_cloud_init_finds_its_seed(linux: World) -> None:
    told = facts(linux, FULL)
    header, data = seed(told, "user-data")
    assert (header, json.loads(data)) == ("#cloud-config", USER_DATA)
    assert json.loads(seed(told, "meta-data")[0]) == {"instance-id": FULL, "local-hostname": "full-1"}
    assert "\n".join(seed(told, "network-config")) + "\n" == NETWORK.format(nic="eth0", number=1)
    other = facts(linux, KERNEL)
    assert seed(other, "user-data") == []
    assert json.loads(seed(other, "meta-data")[0]) == {"instance-id": "mine", "local-hostname": KERNEL}
    secret = facts(linux, UEFI)
    assert "\n".join(seed(secret, "user-data")) + "\n" == SECRET
    assert seed(secret, "meta-data") == ["instance-id: x"]
    assert seed(secret, "network-config") == []


def test_a_kernel_gets_its_command_line_to_the_letter(linux: World) -> None:
    assert f"FACTS cmdline {APPEND}\n" in facts(linux, KERNEL)


def test_two_guests_on_a_bridge_reach_each_other(linux: World) -> None:
    facts(linux, FULL)
    facts(linux, KERNEL)
    linux.type(KERNEL, "13")
    linux.wait_journal(KERNEL, "GUEST 10.9.0.3 is silent", within=60)
    assert "GUEST 10.9.0.1 answers" in linux.journal(KERNEL)


def test_seeds_and_variables_are_roots_alone(linux: World) -> None:
    facts(linux, UEFI)
    shown = linux.shell(f"stat -c '%a %U %n' {SEEDS} {VARIABLES} {SEEDS}/* {VARIABLES}/*").splitlines()
    assert sorted(shown) == sorted([
        f"700 root {SEEDS}", f"700 root {VARIABLES}", f"600 root {VARIABLES}/{UEFI}.fd",
        *(f"600 root {SEEDS}/{uuid}.iso" for uuid in ENTRIES),
    ])  # fmt: skip
    assert "pass  word" not in linux.shell(f"systemctl cat vm-{UEFI}; systemctl show vm-{UEFI}")


def test_systemd_alone_restarts_a_guest_with_its_seed_and_its_variables(linux: World) -> None:
    assert "firmware=efi boots=1" in facts(linux, UEFI)
    linux.host.run("systemctl", "stop", "uncloud-host")
    linux.host.run("kill", "-9", str(linux.pid(UEFI)))
    told = facts(linux, UEFI, boots=2)
    linux.host.run("systemctl", "start", "uncloud-host")
    assert "firmware=efi boots=2" in told
    assert "\n".join(seed(told, "user-data")) + "\n" == SECRET


def test_the_power_button_ends_a_guest_and_its_taps(linux: World) -> None:
    facts(linux, FULL)
    taps = linux.shell("ls /sys/class/net/br0/brif").split()
    assert len(taps) == 5
    linux.ask(FULL, status="TO_STOP")
    linux.wait_status(FULL, "STOP", within=60)
    assert "GUEST power button" in linux.journal(FULL)
    left = linux.shell("ls /sys/class/net").split()
    assert len(set(taps) & set(left)) == 1


def test_a_seed_is_made_anew_at_a_start_and_gone_with_its_vm(world: World) -> None:
    uuid = world.vm(cloud_init={"user_data": "the first"})
    world.ask(uuid, cloud_init={"user_data": "the second"}, status="TO_RESTART")
    world.wait_boots(uuid, 2)
    assert b"the second" in world.host.pull(f"{SEEDS}/{uuid}.iso")
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    assert uuid not in world.shell(f"ls {SEEDS}")


def test_variables_outlive_the_entry(world: World) -> None:
    """A guest may boot by them alone, and an entry that was deleted by mistake comes back."""
    uuid = world.new(firmware="uefi", stop_timeout=1)
    world.wait_status(uuid, "RUNNING")
    before = world.shell(f"stat -c '%i %s' {VARIABLES}/{uuid}.fd")
    world.delete(uuid)
    world.wait_gone(uuid)
    eventually(lambda: world.claim(uuid) == {}, what="the claim is released")
    world.put(uuid, disks=[world.image(uuid)], firmware="uefi", stop_timeout=1)
    world.wait_status(uuid, "RUNNING")
    assert world.shell(f"stat -c '%i %s' {VARIABLES}/{uuid}.fd") == before


def test_what_nobody_knows_is_removed_variables_after_a_month(world: World) -> None:
    kept, lost, new = world.new(firmware="uefi", stop_timeout=1), str(uuids.uuid4()), str(uuids.uuid4())
    world.wait_status(kept, "RUNNING")
    world.ask(kept, status="TO_STOP")
    world.wait_status(kept, "STOP")
    world.shell(f"cd {VARIABLES} && touch {lost}.fd {new}.fd && touch -d '31 days ago' {kept}.fd {lost}.fd")
    world.shell(f"mkdir -p {SEEDS} && touch {SEEDS}/{lost}.iso && systemctl restart uncloud-host")
    assert lost in world.shell(f"ls {VARIABLES}")  # the clock is not to be believed yet
    world.hurry("clock.HOUR = 0.0")
    left = world.shell(f"cd {VARIABLES} && find . -mtime -1").split()
    assert {f"./{kept}.fd", f"./{new}.fd"} <= set(left)
    assert lost not in world.shell(f"ls {VARIABLES} {SEEDS}")


def test_a_seed_that_cannot_be_written_fails_its_vm_alone(world: World) -> None:
    uuid = str(uuids.uuid4())
    world.shell(f"mkdir -p -m 700 {SEEDS} && mkdir {SEEDS}/{uuid}.iso")
    world.put(uuid, disks=[world.disk(uuid)], cloud_init={"user_data": "x"})
    world.wait_reason(uuid, f"^cloud_init: {SEEDS}/{uuid}.iso.new: Is a directory$")
    world.vm(cloud_init={"user_data": "x"})
    world.shell(f"rmdir {SEEDS}/{uuid}.iso")
    world.ask(uuid, status="TO_START")
    world.wait_boots(uuid, 1)
    assert ".new" not in world.shell(f"ls {SEEDS}")


def picture(world: World, address: str, *password: str) -> dict[str, Any]:
    program = Path(rfb.__file__).read_text()
    return json.loads(world.host.run("python3", "-c", program, address, *password).stdout)


def test_vnc_shows_the_screen(world: World) -> None:
    uuid = world.vm(vnc={"tcp": "127.0.0.1:5955"})

    def seen(address: str) -> bool:
        got = picture(world, address)
        return got["size"] == [720, 400] and got["colours"] > 1

    for address in (f"/run/uncloud-vm/{uuid}/vnc.sock", "127.0.0.1:5955"):
        eventually(lambda: seen(address), what=f"the BIOS's text at {address}")  # noqa: B023 - called at once


def test_vnc_with_a_password_refuses_other_passwords(world: World) -> None:
    world.shell(f"mkdir -p -m 700 {SECRETS} && printf secret-1 > {SECRETS}/vnc && chmod 600 {SECRETS}/vnc")
    uuid = world.vm(vnc={"tcp": "127.0.0.1:5956", "password_file": "vnc"})
    for address in (f"/run/uncloud-vm/{uuid}/vnc.sock", "127.0.0.1:5956"):
        assert picture(world, address, "secret-1")["security"] == rfb.PASSWORD
        assert picture(world, address, "secret-2") == {"refused": "Authentication failed"}
        assert picture(world, address) == {"refused": "it wants security of kind [2]"}


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()
