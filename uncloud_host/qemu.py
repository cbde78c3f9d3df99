"""A VM entry as QEMU's command line: pure, no part of the entry is ever passed through as an option.

Devices, netdevs and block nodes are JSON (QEMU escapes nothing there and refuses unknown members); what QEMU 10.0
takes as key=value only (-name, -chardev, -vnc) gets its commas doubled, so that no value can begin an option.
Images arrive as file descriptors that PID 1 opened (OpenFile=): QEMU can open no path of the host at all.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import count

from uncloud_host.models import VM, VNC_PORTS

BINARY = "/usr/bin/qemu-system-x86_64"
RUNTIME = "/run/uncloud-vm"  # each VM has a directory of its own in here, owned by its uid
CAPABILITIES = f"{RUNTIME}/qmp-capabilities.json"  # in /run: VMs are restarted also when the package is gone
FIRST_FD = 3  # PID 1 passes the files of OpenFile= from 3 up, in the order of the list (sd_listen_fds(3))


@dataclass(frozen=True, slots=True)
class Choices:
    """What the host decides about every VM, and about this start of one VM."""

    accel: str = "kvm"
    cpu: str = "host"
    machine: str = "q35"
    vnc_tcp: str | None = None  # "ADDRESS:PORT" where the entry wants tcp

    def with_vnc(self, address: str | None) -> "Choices":
        """Add what is chosen at each start."""
        return replace(self, vnc_tcp=address)


@dataclass(frozen=True, slots=True)
class Image:
    """A file that PID 1 opens for QEMU; `number` is its file descriptor and its fdset."""

    path: str
    readonly: bool
    number: int


def runtime_directory(uuid: str) -> str:
    """Where the VM's sockets are: qmp.sock, stop.sock, console.sock, vnc.sock."""
    return f"{RUNTIME}/{uuid}"


def short(uuid: str) -> str:
    """Twelve hex digits for names that must be short. A hash, because slices of uuids collide: version 7 begins
    with the time, version 1 ends with the machine's MAC."""
    return hashlib.sha256(uuid.encode()).hexdigest()[:12]


def tap(uuid: str, index: int) -> str:
    """Name the tap of a nic: 14 of the 15 bytes that Linux allows."""
    return f"t{short(uuid)}{index}"


def mac(uuid: str, index: int) -> str:
    """Give a nic without a mac a locally administered one that stays the same for ever."""
    digest = hashlib.sha256(f"{uuid}/{index}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def images(vm: VM) -> list[Image]:
    """List the files of a VM in the order of their file descriptors."""
    return [Image(disk.file, disk.is_readonly, fd) for fd, disk in zip(count(FIRST_FD), vm.entry.disks, strict=False)]


def argv(vm: VM, choices: Choices) -> list[str]:
    """Build the whole command line. What it cannot express safely, models.py has refused."""
    return [
        BINARY,
        *_machine(vm, choices),
        *_monitors(vm.uuid),
        *_console(vm.uuid),
        *_disks(vm),
        *_nics(vm),
        *_screen(vm, choices),
    ]


def _machine(vm: VM, choices: Choices) -> list[str]:
    # fmt: off
    return [
        "-name", _option(guest=vm.name, debug_threads="on"),
        "-uuid", vm.uuid,
        "-machine", _option(choices.machine, accel=choices.accel),
        "-cpu", choices.cpu,
        "-m", f"{vm.entry.memory}M",
        "-smp", str(vm.entry.smp),
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-msg", "timestamp=on",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        # A panicked guest is a failure of the unit (exit status 1), a guest that powers off is not (0).
        "-action", "panic=exit-failure,reboot=reset,shutdown=poweroff",
        "-device", _json(driver="pvpanic"),
        "-object", _json(qom_type="rng-random", id="rng0", filename="/dev/urandom"),
        "-device", _json(driver="virtio-rng-pci", rng="rng0"),
    ]
    # fmt: on


def _monitors(uuid: str) -> list[str]:
    """Two monitors, because QEMU serves one client on each: ExecStop= must never wait behind another client."""
    words = []
    for name in ("qmp", "stop"):
        words += ["-chardev", _socket(name, uuid), "-mon", _option(chardev=name, mode="control")]
    # The flight recorder: QEMU writes its own events into a file, so that the true reason of an end is known when
    # nobody listened. What it reads first from CAPABILITIES switches the events on (input-path=: QEMU >= 10.0).
    record = _option("file", id="record", path=f"{runtime_directory(uuid)}/events.json", input_path=CAPABILITIES)
    return [*words, "-chardev", record, "-mon", "chardev=record,mode=control"]


def _console(uuid: str) -> list[str]:
    """Send the serial console to the journal and to a socket. stdin must be something that never ends (the unit says
    /dev/ptmx): with /dev/null QEMU 10.0's hub takes stdio for closed and the journal stays empty."""
    # fmt: off
    return [
        "-chardev", _option("stdio", id="journal", signal="off"),
        "-chardev", _socket("console", uuid),
        "-chardev", "hub,id=serial,chardevs.0=journal,chardevs.1=console",
        "-serial", "chardev:serial",
    ]
    # fmt: on


def _disks(vm: VM) -> list[str]:
    words = []
    for index, (disk, image) in enumerate(zip(vm.entry.disks, images(vm), strict=True)):
        node = f"disk{index}"
        # The lock makes a second QEMU on the same image fail instead of corrupting it.
        file = {"driver": "file", "filename": f"/dev/fdset/{image.number}", "locking": "on"}
        block = {"driver": "raw", "read-only": image.readonly, "file": {**file, "read-only": image.readonly}}
        if disk.bus == "cdrom":
            device = {"driver": "ide-cd"}
        else:
            # An error stops the guest instead of showing it a broken disk: it goes on when the disk is back.
            errors = {} if image.readonly else {"werror": "stop", "rerror": "stop"}
            device = {"driver": "virtio-blk-pci", **errors}
        # fmt: off
        words += [
            "-add-fd", _option(fd=image.number, set=image.number),
            "-blockdev", _json(node_name=node, **block),
            "-device", _json(**device, drive=node, bootindex=index + 1),
        ]
        # fmt: on
    return words


def _nics(vm: VM) -> list[str]:
    words = []
    for index, nic in enumerate(vm.entry.nics):
        name, address = f"net{index}", nic.mac or mac(vm.uuid, index)
        netdev = {"type": "tap", "id": name, "ifname": tap(vm.uuid, index), "script": "no", "downscript": "no"}
        # No option ROM: a guest without a bootable disk must not look for one in the network.
        device = {"driver": "virtio-net-pci", "netdev": name, "mac": address, "romfile": ""}
        words += ["-netdev", _json(**netdev), "-device", _json(**device)]
    return words


def _screen(vm: VM, choices: Choices) -> list[str]:
    displays = []
    if vm.entry.vnc.unix:
        displays += ["-vnc", _option(f"unix:{runtime_directory(vm.uuid)}/vnc.sock")]
    if choices.vnc_tcp:
        address, _, port = choices.vnc_tcp.rpartition(":")
        displays += ["-vnc", _option(f"{address}:{int(port) - VNC_PORTS.start}")]
    if not displays:
        return []
    # The tablet sends absolute positions, so that the pointer of a VNC client and the guest's are the same.
    devices = [{"driver": "VGA"}, {"driver": "qemu-xhci"}, {"driver": "usb-tablet"}]
    return [word for device in devices for word in ("-device", _json(**device))] + displays


def _socket(name: str, uuid: str) -> str:
    path = f"{runtime_directory(uuid)}/{name}.sock"
    return _option("socket", id=name, path=path, server="on", wait="off")


def _option(first: str | None = None, **rest: object) -> str:
    """Write a key=value option. Every comma of a value is doubled: QEMU's way to say that it is one."""
    words = [] if first is None else [first.replace(",", ",,")]
    words += [f"{key.replace('_', '-')}={str(value).replace(',', ',,')}" for key, value in rest.items()]
    return ",".join(words)


def _json(**members: object) -> str:
    return json.dumps({key.replace("_", "-"): value for key, value in members.items()}, separators=(",", ":"))
