"""What two VMs of one host cannot both have: a disk that one of them writes to, or a mac. Pure."""

from collections.abc import Iterable

from uncloud_host import names
from uncloud_host.models import VM


def conflict(vm: VM, others: Iterable[VM]) -> str:
    """Say which field of an entry is taken by one of the others, and whose it is; nothing if all is free."""
    own = _macs(vm)
    for index, mac in enumerate(own):
        if mac in own[:index]:  # one that is written is what another one without a mac gets
            return f"nics[{index}].mac: {mac} is that of nics[{own.index(mac)}] too"
    for other in others:
        for index, disk in enumerate(vm.entry.disks):
            for theirs in other.entry.disks:
                if disk.source == theirs.source and not (disk.is_readonly and theirs.is_readonly):
                    field, image = disk.source
                    return f"disks[{index}].{field}: {image} is a disk of VM {other.name} ({other.uuid}) too"
        macs = set(_macs(other))
        for index, mac in enumerate(own):
            if mac in macs:
                return f"nics[{index}].mac: {mac} is a mac of VM {other.name} ({other.uuid}) too"
    return ""


class Sharing:
    """Who names the same disks and macs: most VMs share nothing, and need not be compared with each other."""

    def __init__(self, vms: Iterable[VM]) -> None:
        self._by_thing: dict[object, set[str]] = {}
        for vm in vms:
            self.add(vm)

    def add(self, vm: VM) -> None:
        """Learn what a VM names."""
        for thing in _things(vm):
            self._by_thing.setdefault(thing, set()).add(vm.uuid)

    def others(self, vm: VM) -> set[str]:
        """List the uuids of VMs that share something with this one."""
        return {uuid for thing in _things(vm) for uuid in self._by_thing.get(thing, ())} - {vm.uuid}


def _things(vm: VM) -> list[object]:
    return [*(disk.source for disk in vm.entry.disks), *_macs(vm)]


def _macs(vm: VM) -> list[str]:
    return [nic.mac or names.mac(vm.uuid, index) for index, nic in enumerate(vm.entry.nics)]
