"""The disks of a VM on QEMU's command line: image files, rbd images, the cloud-init seed and UEFI's variables. Pure.

Files arrive as file descriptors that PID 1 opened (OpenFile=), so images stay root's alone and QEMU can open no other;
rbd images are opened by QEMU itself, with a key that is a credential of its unit. All is JSON: nothing in an entry can
become an option.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from uncloud_host.devices import SECRETS, Disk
from uncloud_host.models import VM
from uncloud_host.names import RUNTIME, credential
from uncloud_host.options import json_option, option

FIRST_FD = 3  # PID 1 passes the files of OpenFile= from 3 up, in the order of the list (sd_listen_fds(3))
CEPH_CONF = f"{RUNTIME}/ceph.conf"  # like CEPH_KEY in /run: VMs are restarted also when the package is gone
CEPH_KEY = "/run/uncloud-host/ceph.key"
SEEDS = "/run/uncloud-host/seeds"
VARIABLES = "/var/lib/uncloud-host/uefi"  # each VM's own store of UEFI variables
FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
KERNEL = ("kernel", "initrd")  # QEMU opens these by path: of the descriptor, so that directories may be root's alone
# PCI slots that do not depend on what else a VM has: an added disk must not rename the guest's nics (enp0s8).
SCSI_SLOT, SEED_SLOT, FIRST_DISK_SLOT = 0x07, 0x1E, 0x10


@dataclass(frozen=True, slots=True)
class File:
    """A file that PID 1 opens for QEMU; `number` is its file descriptor and its fdset."""

    use: str  # disk0, disk1 ..., kernel, initrd, uefi, seed
    path: str
    readonly: bool
    number: int


def files(vm: VM) -> list[File]:
    """List the files of a VM in the order of their file descriptors."""
    disks = [(f"disk{n}", disk.file, disk.is_readonly) for n, disk in enumerate(vm.entry.disks)]
    boot, uefi = vm.entry.boot, vm.entry.firmware == "uefi"
    others = [
        ("kernel", boot.kernel, True),
        ("initrd", boot.initrd, True),
        ("uefi", variables(vm.uuid) if uefi else None, False),
        ("seed", seed(vm.uuid) if vm.entry.cloud_init else None, True),
    ]
    there = [(use, path, readonly) for use, path, readonly in disks + others if path]
    return [File(*found, number) for number, found in zip(count(FIRST_FD), there, strict=False)]


def seed(uuid: str) -> str:
    """Name the disk image that carries cloud-init's seed; made anew at each start that the agent makes."""
    return f"{SEEDS}/{uuid}.iso"


def variables(uuid: str) -> str:
    """Name the file in which UEFI keeps its variables; made at the first start, and kept."""
    return f"{VARIABLES}/{uuid}.fd"


def has_rbd(vm: VM) -> bool:
    """Tell whether a VM needs Ceph."""
    return any(disk.rbd for disk in vm.entry.disks)


def credentials(vm: VM) -> dict[str, str]:
    """List what PID 1 gives to the VM's user alone (LoadCredential=): name and file."""
    password = vm.entry.vnc.password_file
    found = {"ceph": CEPH_KEY} if has_rbd(vm) else {}
    return found | ({"vnc": f"{SECRETS}/{password}"} if password else {})


def words(vm: VM, ceph_user: str, machine: str) -> list[str]:
    """Build the options of all disks."""
    by_use = {file.use: file for file in files(vm)}
    said = []
    if has_rbd(vm):
        secret = {"qom-type": "secret", "id": "ceph", "format": "base64", "file": credential(vm.uuid, "ceph")}
        said += ["-object", json_option(secret)]
    if any(disk.bus == "scsi" for disk in vm.entry.disks):
        said += ["-device", json_option({"driver": "virtio-scsi-pci", "id": "scsi", "addr": f"{SCSI_SLOT:x}"})]
    order, places = boot_order(vm), _ide_places(machine)
    for index, disk in enumerate(vm.entry.disks):
        node = f"disk{index}"
        file = by_use.get(node)
        said += _fdset(file) if file else []
        said += ["-blockdev", json_option({"node-name": node, **_block(disk, file, ceph_user)})]
        place = next(places) if disk.bus in {"ide", "cdrom"} else {}
        said += ["-device", json_option({**_device(disk, index), **place, "drive": node, **order.get(node, {})})]
    if uefi := by_use.get("uefi"):
        code = {"driver": "file", "filename": FIRMWARE, "read-only": True}
        said += ["-blockdev", json_option({"node-name": "firmware", **code})]
        said += [*_fdset(uefi), "-blockdev", json_option({"node-name": "uefi", **_file(uefi)})]
    if disc := by_use.get("seed"):
        device = {"driver": "virtio-blk-pci", "addr": f"{SEED_SLOT:x}", "drive": "seed", "serial": "cidata"}
        said += [*_fdset(disc), "-blockdev", json_option({"node-name": "seed", **_file(disc)})]
        said += ["-device", json_option(device)]
    return said


def _ide_places(machine: str) -> Iterator[dict[str, object]]:
    """Give each disk of bus ide or cdrom its place: left to QEMU, the second one on q35 finds the first one's taken."""
    if "q35" in machine:
        return ({"bus": f"ide.{number}"} for number in count())
    return ({"bus": f"ide.{number // 2}", "unit": number % 2} for number in count())


def boot_order(vm: VM) -> dict[str, dict[str, int]]:
    """Number what the firmware tries to boot from: as the entry says, else all disks."""
    order = vm.entry.boot.order
    if order is None:
        order = tuple(f"disk{index}" for index in range(len(vm.entry.disks)))
    return {name: {"bootindex": number} for number, name in enumerate(order, start=1)}


def _fdset(file: File) -> list[str]:
    return ["-add-fd", option(fd=file.number, set=file.number)]


def _file(file: File) -> dict[str, object]:
    # The lock makes a second QEMU on the same image fail instead of corrupting it.
    node = {"driver": "file", "filename": f"/dev/fdset/{file.number}", "locking": "on"}
    return node | ({"read-only": True} if file.readonly else {})


def _rbd(disk: Disk, user: str) -> dict[str, object]:
    pool, *namespace, image = (disk.rbd or "").split("/")
    place = {"pool": pool, "image": image} | ({"namespace": namespace[0]} if namespace else {})
    node = {"driver": "rbd", **place, "user": user, "key-secret": "ceph", "conf": CEPH_CONF}
    return node | ({"read-only": True} if disk.is_readonly else {})


def _block(disk: Disk, file: File | None, ceph_user: str) -> dict[str, object]:
    """Build the block node of a disk; what is QEMU's default is not said."""
    options: dict[str, object] = {"discard": "unmap"} if disk.discard else {}
    if disk.cache in {"none", "directsync"}:
        options["cache"] = {"direct": True}
    elif disk.cache == "unsafe":
        options["cache"] = {"no-flush": True}
    node = (_file(file) if file else _rbd(disk, ceph_user)) | options
    if disk.format == "raw":  # the protocol's node is enough
        return node
    readonly = {"read-only": True} if disk.is_readonly else {}
    # Without a word about it, QEMU would open whatever path an image's header names as its backing file.
    return {"driver": disk.format, **readonly, **options, "backing": None, "file": node}


def _device(disk: Disk, index: int) -> dict[str, object]:
    said: dict[str, object] = {"serial": disk.serial} if disk.serial else {}
    if disk.bus == "cdrom":
        return {"driver": "ide-cd", **said}
    if not disk.is_readonly:
        # An error stops the guest instead of showing it a broken disk: it goes on when the disk is back.
        said |= {"werror": "stop", "rerror": "stop"}
        said |= {"write-cache": "off"} if disk.cache in {"writethrough", "directsync"} else {}
    match disk.bus:
        case "virtio":
            return {"driver": "virtio-blk-pci", "addr": f"{FIRST_DISK_SLOT + index:x}", **said}
        case "scsi":
            return {"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": index, **said}
        case _:
            return {"driver": "ide-hd", **said}
