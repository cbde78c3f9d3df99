"""The disks of a VM on QEMU's command line: image files, rbd images, the cloud-init seed and UEFI's variables. Pure.

Files arrive as file descriptors that PID 1 opened (OpenFile=), so images stay root's alone and QEMU can open no other;
rbd images are opened by QEMU itself, with a key that is a credential of its unit.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from uncloud_host.devices import SECRETS, Disk
from uncloud_host.models import VM
from uncloud_host.names import RUNTIME, credential
from uncloud_host.options import option, options

FIRST_FD = 3  # PID 1 passes the files of OpenFile= from 3 up, in the order of the list (sd_listen_fds(3))
CEPH_CONF = f"{RUNTIME}/ceph.conf"  # like CEPH_KEY in /run: VMs are restarted also when the package is gone
CEPH_KEY = "/run/uncloud-host/ceph.key"
SEEDS = "/run/uncloud-host/seeds"
VARIABLES = "/var/lib/uncloud-host/uefi"  # each VM's own store of UEFI variables
FIRMWARE, VARIABLES_TEMPLATE = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
DIRECT = {"none", "directsync"}  # caches: not the host's
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


def direct(vm: VM) -> list[int]:
    """List the descriptors that must have O_DIRECT before QEMU takes them."""
    uncached = {f"disk{n}" for n, disk in enumerate(vm.entry.disks) if disk.cache in DIRECT}
    return [file.number for file in files(vm) if file.use in uncached]


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
        said += ["-object", option("secret", id="ceph", format="base64", file=credential(vm.uuid, "ceph"))]
    if any(disk.bus == "scsi" for disk in vm.entry.disks):
        said += ["-device", f"virtio-scsi-pci,id=scsi,addr={SCSI_SLOT:x}"]
    order, ide = boot_order(vm), _ide(machine)
    for index, disk in enumerate(vm.entry.disks):
        node = f"disk{index}"
        file = by_use.get(node)
        said += _file(file, node, disk) if file else ["-blockdev", _rbd(disk, node, ceph_user)]
        driver, properties = _device(disk, index)
        properties |= next(ide) if disk.bus in {"ide", "cdrom"} else {}
        said += ["-device", options(driver, {**properties, "drive": node, **order.get(node, {})})]
    if uefi := by_use.get("uefi"):
        said += ["-blockdev", f"file,node-name=firmware,filename={FIRMWARE},read-only=on", *_file(uefi, "uefi")]
    if seed := by_use.get("seed"):
        said += [*_file(seed, "seed"), "-device", f"virtio-blk-pci,addr={SEED_SLOT:x},serial=cidata,drive=seed"]
    return said


def boot_order(vm: VM) -> dict[str, dict[str, int]]:
    """Number what the firmware tries to boot from: as the entry says, else all disks."""
    order = vm.entry.boot.order
    if order is None:
        order = tuple(f"disk{index}" for index in range(len(vm.entry.disks)))
    return {name: {"bootindex": number} for number, name in enumerate(order, start=1)}


def _ide(machine: str) -> Iterator[dict[str, object]]:
    """Count the places of IDE disks: QEMU finds no second one by itself on q35, where each bus has one place."""
    if "q35" in machine:
        return ({"bus": f"ide.{number}"} for number in count())
    return ({"bus": f"ide.{number // 2}", "unit": number % 2} for number in count())


def _file(file: File, node: str, disk: Disk | None = None) -> list[str]:
    """Open an image by its descriptor. A raw one needs no second block node for its format."""
    image = f"{node}-file" if disk and disk.format == "qcow2" else node
    # The lock makes a second QEMU on the same image fail instead of corrupting it.
    said = {"node-name": image, "filename": f"/dev/fdset/{file.number}", "locking": True}
    said |= ({"read-only": True} if file.readonly else {}) | (_options(disk) if disk else {})
    words = ["-add-fd", f"fd={file.number},set={file.number}", "-blockdev", options("file", said)]
    if disk and disk.format == "qcow2":
        # JSON alone can say null. Without it, QEMU would open whatever an image's header names as its backing file.
        top = {"driver": "qcow2", "node-name": node, "file": image, "backing": None, "read-only": file.readonly}
        cache = {"direct": disk.cache in DIRECT, "no-flush": disk.cache == "unsafe"}
        discard = "unmap" if disk.discard else "ignore"
        words += ["-blockdev", json.dumps(top | {"cache": cache, "discard": discard}, separators=(",", ":"))]
    return words


def _rbd(disk: Disk, node: str, user: str) -> str:
    pool, *namespace, image = (disk.rbd or "").split("/")
    place = {"pool": pool} | ({"namespace": namespace[0]} if namespace else {}) | {"image": image}
    said = {"node-name": node, **place, "user": user, "key-secret": "ceph", "conf": CEPH_CONF}
    return options("rbd", said | ({"read-only": True} if disk.is_readonly else {}) | _options(disk))


def _options(disk: Disk) -> dict[str, object]:
    """Say what is not QEMU's default."""
    discard: dict[str, object] = {"discard": "unmap"} if disk.discard else {}
    if disk.cache in DIRECT:
        return discard | {"cache.direct": True}
    return discard | ({"cache.no-flush": True} if disk.cache == "unsafe" else {})


def _device(disk: Disk, index: int) -> tuple[str, dict[str, object]]:
    said: dict[str, object] = {"serial": disk.serial} if disk.serial else {}
    if disk.bus == "cdrom":
        return "ide-cd", said
    if not disk.is_readonly:
        # An error stops the guest instead of showing it a broken disk: it goes on when the disk is back.
        said |= {"werror": "stop", "rerror": "stop"}
        said |= {"write-cache": False} if disk.cache in {"writethrough", "directsync"} else {}
    match disk.bus:
        case "virtio":
            return "virtio-blk-pci", {"addr": f"{FIRST_DISK_SLOT + index:x}", **said}
        case "scsi":
            return "scsi-hd", {"bus": "scsi.0", "scsi-id": index, **said}
        case _:
            return "ide-hd", said
