"""What the host gives a VM at most, as properties that systemd can also change while the unit runs. Pure."""

import hashlib
import json
from collections.abc import Sequence

from uncloud_host.models import VM

MIB = 1 << 20
WEIGHTS = {"cpu_weight", "cpu_quota", "io_weight"}
UNSET = (1 << 64) - 1  # systemd's "infinity" and its "[not set]"
# What QEMU may need beside the guest's memory, in MiB: the limit is there to stop a QEMU that leaks, and must never end
# one that works. Others' figures: KubeVirt 240 + 8 per CPU + memory / 512, without Ceph; fc.qemu, with it, expects 512
# and complains at 1024.
QEMU, PER_CPU, PER_RBD_DISK, MEMORY_SHARE = 1024, 8, 256, 128
TRANSLATIONS = 1024  # TCG's cache of translated code

Property = tuple[str, int | Sequence[Sequence[str | int]]]


def properties(vm: VM, accel: str, *, is_pending: bool = False) -> list[Property]:
    """List the limits of a VM, those that its entry does not set included: setting them again resets them.

    `is_pending`: the VM runs with another entry than this one, so what depends on its memory and its disks waits.
    """
    limits = vm.entry.limits
    quota = UNSET if limits.cpu_quota is None else limits.cpu_quota * 10_000  # microseconds of CPU per second
    weights: list[Property] = [
        ("CPUWeight", limits.cpu_weight or UNSET),
        ("CPUQuotaPerSecUSec", quota),
        ("IOWeight", limits.io_weight or UNSET),
    ]
    if is_pending:
        return weights
    return [
        *weights,
        ("IOReadBandwidthMax", _of_disks(vm, limits.io_read_bandwidth_max)),
        ("IOWriteBandwidthMax", _of_disks(vm, limits.io_write_bandwidth_max)),
        ("IOReadIOPSMax", _of_disks(vm, limits.io_read_iops_max)),
        ("IOWriteIOPSMax", _of_disks(vm, limits.io_write_iops_max)),
        ("MemoryMax", memory_max(vm, accel) * MIB),
    ]


def said(vm: VM, accel: str) -> list[Property]:
    """List the limits that there are: what a unit is started with."""
    return [(key, value) for key, value in properties(vm, accel) if value not in (UNSET, [])]


def memory_max(vm: VM, accel: str) -> int:
    """Give the limit of a VM's memory in MiB: as its entry says, else the guest's and what QEMU may need beside."""
    entry = vm.entry
    if entry.limits.memory_max:
        return entry.limits.memory_max
    disks = PER_RBD_DISK * sum(bool(disk.rbd) for disk in entry.disks)
    own = QEMU + PER_CPU * entry.cpus + disks + entry.memory // MEMORY_SHARE
    return entry.memory + own + (TRANSLATIONS if accel == "tcg" else 0)


def fingerprint(vm: VM, *, is_pending: bool = False) -> str:
    """Hash what an entry says of limits, to tell whether a running unit has them; nothing if it says nothing."""
    limits = vm.entry.limits
    if not limits.model_fields_set:
        return ""
    told = limits.model_dump(mode="json", exclude_defaults=True, include=WEIGHTS if is_pending else None)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8] if told else ""


def _of_disks(vm: VM, most: int | None) -> list[list[str | int]]:
    """Limit the devices that a VM's image files are on: systemd finds them by the files. Ceph has limits of its own."""
    paths = dict.fromkeys(disk.file for disk in vm.entry.disks if disk.file)
    return [[path, most] for path in paths] if most else []
