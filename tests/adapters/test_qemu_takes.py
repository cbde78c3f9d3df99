"""QEMU 10 takes every golden command line, and has what the entry says, by its own word."""

import json
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.qemus import MIB, Qemu
from uncloud_host import names, qemu
from uncloud_host.models import VM, parse

CASES = sorted((Path(__file__).parents[1] / "core/cases").glob("*.json"))
HERE = [case for case in CASES if '"rbd"' not in case.read_text()]  # Ceph is not here
UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"


def shown(name: str, said: str) -> object:
    """What a property is when it is read that was said so."""
    match name, said:
        case "addr", slot:
            return int(slot, 16) << 3  # slot and function
        case (("format" | "write-cache" | "werror" | "rerror" | "serial" | "romfile" | "name"), _):
            return said
        case _, ("on" | "off"):
            return said == "on"
        case _:
            return int(said) if said.isdecimal() else said


BACKEND = "/virtio-backend"  # virtio-blk is two objects


def qemu_of(entry: dict[str, Any] | bytes) -> Qemu:
    value = entry if isinstance(entry, bytes) else json.dumps({"host": "vmhost1", "memory": 16} | entry).encode()
    vm = VM(UUID, parse(value), create_revision=7, mod_revision=9)
    tcp = vm.entry.vnc.tcp
    address = tcp if isinstance(tcp, str) else "127.0.0.1:5900" if tcp else None
    return Qemu(vm, qemu.Choices("tcg", "max").with_vnc(address))


def test_there_are_cases() -> None:
    assert len(HERE) > 15


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.stem)
def test_qemu_has_what_the_entry_says(case: Path) -> None:
    with qemu_of(case.read_bytes()) as found:
        everything_arrived(found)


def everything_arrived(found: Qemu) -> None:
    the_machine_arrived(found)
    the_disks_arrived(found)
    the_nics_arrived(found)
    the_screen_arrived(found)
    every_device_has_its_properties(found)


def the_machine_arrived(found: Qemu) -> None:
    entry, ask = found.vm.entry, found.qmp.ask
    assert ask("query-name") == {"name": found.vm.name}
    assert ask("query-uuid") == {"UUID": UUID}
    assert ask("query-memory-size-summary")["base-memory"] == entry.memory * MIB
    assert ask("query-status")["status"] == "prelaunch"
    cpus = ask("query-cpus-fast")
    assert len(cpus) == entry.cpus
    assert {found.qmp.get(cpu["qom-path"], "type") for cpu in cpus} == {f"{entry.cpu.model or 'max'}-x86_64-cpu"}
    if entry.cpu.is_arranged:
        places = [{key: cpu["props"][key] for key in ("socket-id", "core-id", "thread-id")} for cpu in cpus]
        most = {key: max(place[key] for place in places) + 1 for key in places[0]}
        assert most == {
            "socket-id": entry.cpu.sockets, "core-id": entry.cpu.cores, "thread-id": entry.cpu.threads
        }  # fmt: skip
    machine = found.qmp.get("/machine", "type").removesuffix("-machine")
    wanted = entry.machine or "q35"
    assert machine == wanted or machine.startswith({"q35": "pc-q35-", "pc": "pc-i440fx-"}.get(wanted, "="))
    for name in ("kernel", "initrd"):
        assert bool(found.qmp.get("/machine", name)) == bool(getattr(entry.boot, name))
    assert found.qmp.get("/machine", "append") == (entry.boot.append or "")
    chardevs = {chardev["label"]: chardev["filename"] for chardev in ask("query-chardev")}
    assert {"qmp", "stop", "record", "console", "journal", "serial"} <= chardevs.keys()
    if entry.firmware == "uefi":
        drives = [found.qmp.get(f"/machine/system.flash{number}", "drive") for number in (0, 1)]
        assert drives == ["firmware", "uefi"]


def the_disks_arrived(found: Qemu) -> None:
    nodes = found.nodes()
    blocks = {block.get("qdev", "").removesuffix(BACKEND): block for block in found.qmp.ask("query-block")}
    for index, disk in enumerate(found.vm.entry.disks):
        name = f"disk{index}"
        node, path = nodes[name], found.device(name)
        assert node["drv"] == ("file" if disk.format == "raw" else disk.format)
        assert node["ro"] == disk.is_readonly
        flush = disk.cache == "unsafe"
        direct = disk.cache in {"none", "directsync"}
        assert (node["cache"]["direct"], node["cache"]["no-flush"]) == (direct, flush)
        assert node["backing_file_depth"] == 0
        assert node["detect_zeroes"] == "off"
        block = blocks[path]
        assert block["inserted"]["node-name"] == name
        if not disk.is_readonly:
            assert block["inserted"]["cache"]["writeback"] == (disk.cache not in {"writethrough", "directsync"})
        if disk.serial:
            assert found.qmp.get(path, "serial") == disk.serial
        order = found.vm.entry.boot.order
        number = index + 1 if order is None else order.index(name) + 1 if name in order else -1
        assert found.qmp.get(path, "bootindex") == number
        assert disk.is_readonly or disk.discard == discards(found, index)


def discards(found: Qemu, index: int) -> bool:
    """Write a whole disk and give it back: has the file become smaller?"""
    path = found.vm.entry.disks[index].file
    assert path
    disk = found.device(f"disk{index}") + BACKEND * (found.vm.entry.disks[index].bus == "virtio")
    for line in ("write 0 1M", "discard 0 1M"):
        said = found.qmp.hmp(f'qemu-io -d {disk} "{line}"')
        assert not re.search("failed|error", said, re.IGNORECASE), said
    return Path(path).stat().st_blocks * 512 < MIB


def the_nics_arrived(found: Qemu) -> None:
    network = found.qmp.hmp("info network")
    for index, nic in enumerate(found.vm.entry.nics):
        path = found.device(f"net{index}")
        assert found.qmp.get(path, "type") == qemu.NICS[nic.model]
        assert found.qmp.get(path, "mac") == (nic.mac or names.mac(UUID, index))
        assert f"ifname={names.tap(UUID, index)},script=no,downscript=no" in network
        if nic.model == "virtio":
            assert found.qmp.get(path, "host_mtu") == (nic.mtu or 0)
        order = found.vm.entry.boot.order or ()
        name = f"nic{index}"
        assert found.qmp.get(path, "bootindex") == (order.index(name) + 1 if name in order else -1)


def the_screen_arrived(found: Qemu) -> None:
    vnc = found.vm.entry.vnc
    servers = [server for one in found.qmp.ask("query-vnc-servers") for server in one["server"]]
    assert ["unix"] * vnc.unix == [server["family"] for server in servers if server["family"] == "unix"]
    if vnc.unix:  # QEMU does not tell the path
        with socket.socket(socket.AF_UNIX) as screen:
            screen.connect(f"{found.directory}/vnc.sock")
            assert screen.recv(3) == b"RFB"
    tcp = [f"[{one['host']}]:{one['service']}" if one["family"] == "ipv6" else f"{one['host']}:{one['service']}"
           for one in servers if one["family"] != "unix"]  # fmt: skip
    wanted = vnc.tcp if isinstance(vnc.tcp, str) else "127.0.0.1:5900"
    assert tcp == ([wanted] if vnc.tcp else [])
    assert {server["auth"] for server in servers} <= {"vnc" if vnc.password_file else "none"}


def every_device_has_its_properties(found: Qemu) -> None:
    made = [name["name"] for name in found.qmp.ask("qom-list", path="/machine/peripheral-anon")]
    assert sum(name.startswith("device[") for name in made) == sum("id" not in said for said, _ in found.devices())
    for said, path in found.devices():
        kind = found.qmp.get(path, "type")
        assert kind == said["driver"]
        for name, value in said.items():
            if name not in {"driver", "id", "bus"}:
                assert found.qmp.get(path, name) == shown(name, value), (kind, name)
    for said in found.words("-object"):
        assert found.qmp.get(f"/objects/{said['id']}", "type") == said["driver"]
        for name in said.keys() - {"driver", "id"}:
            assert found.qmp.get(f"/objects/{said['id']}", name) == said[name]


FULL = {
    "smp": 4, "firmware": "uefi", "cloud_init": {"user_data": "x"}, "vnc": {"tcp": "127.0.0.1:5903"},
    "nics": [{"bridge": "br0", "model": model} for model in ("virtio", "e1000", "e1000e", "rtl8139") * 2],
}  # fmt: skip


@pytest.mark.parametrize(("machine", "ide"), [("q35", 6), ("pc", 4)])
def test_as_many_devices_as_an_entry_may_have(machine: str, ide: int) -> None:
    busses = ["virtio"] * 14 + ["ide"] * (ide - 2) + ["cdrom"] * 2 + ["scsi"] * (24 - 14 - ide)
    disks = [{"file": f"/var/lib/uncloud-host/images/{machine}-{n}.img", "bus": bus} for n, bus in enumerate(busses)]
    with qemu_of({"machine": machine, "disks": disks, **FULL}) as found:
        everything_arrived(found)
        assert Counter(said["driver"] for said, _ in found.devices())["virtio-blk-pci"] == 15


CACHES = ("writeback", "none", "writethrough", "directsync", "unsafe")


@pytest.mark.parametrize("format_of_disks", ["raw", "qcow2"])
@pytest.mark.parametrize("discard", [False, True])
def test_every_cache_on_every_bus(format_of_disks: str, discard: bool) -> None:
    kinds = [
        {"bus": bus, "cache": cache, "serial": f"{bus}.{cache}"[:20], "format": format_of_disks, "discard": discard}
        for bus in ("virtio", "scsi", "ide", "cdrom") for cache in CACHES
    ]  # fmt: skip
    kinds += [{"bus": bus, "cache": "none", "readonly": True, "format": format_of_disks} for bus in ("virtio", "scsi")]
    kinds.sort(key=lambda kind: kind["bus"] != "virtio")  # slots are counted from the first disk
    for busses in (["virtio", "scsi", "ide"], ["cdrom"]):  # IDE has not enough places for all at once
        some = [kind for kind in kinds if kind["bus"] in busses]
        directory = f"/var/lib/uncloud-host/images/{format_of_disks}"
        disks = [kind | {"file": f"{directory}/{'-'.join(map(str, kind.values()))}"} for kind in some]
        with qemu_of({"disks": disks}) as found:
            everything_arrived(found)
