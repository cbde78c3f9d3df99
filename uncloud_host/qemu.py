"""A VM entry as QEMU's command line: pure, no part of the entry is ever passed through as an option.

Options are key=value, because that is what people read in `systemctl cat`: every value gets its commas doubled, so that
none can begin an option. Paths are relative to the VM's runtime directory, in which QEMU works.
"""

from dataclasses import dataclass, replace

from uncloud_host import drives, names
from uncloud_host.devices import VNC_PORTS
from uncloud_host.models import VM
from uncloud_host.options import option, options, socket

BINARY = "/usr/bin/qemu-system-x86_64"
CAPABILITIES = f"{names.RUNTIME}/qmp-capabilities.json"  # in /run: VMs are restarted also when the package is gone
# PCI slots that do not depend on what else a VM has: a guest names its nics after them (enp0s8 is the first).
VGA_SLOT, USB_SLOT, RNG_SLOT, BALLOON_SLOT, SERIAL_SLOT, FIRST_NIC_SLOT = 0x02, 0x03, 0x04, 0x05, 0x06, 0x08
NICS = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e", "rtl8139": "rtl8139"}


@dataclass(frozen=True, slots=True)
class Choices:
    """What the host decides about every VM, and about this start of one VM."""

    accel: str = "kvm"
    cpu: str = "host"
    machine: str = "q35"
    vhost: bool = False
    ceph_user: str = "libvirt"
    vnc_tcp: str | None = None  # "ADDRESS:PORT" where the entry wants tcp

    def with_vnc(self, address: str | None) -> "Choices":
        """Add what is chosen at each start."""
        return replace(self, vnc_tcp=address)


def argv(vm: VM, choices: Choices) -> list[str]:
    """Build the whole command line. What it cannot express safely, models.py has refused."""
    return [
        BINARY,
        *_machine(vm, choices),
        *_monitors(),
        *_console(),
        *drives.words(vm, choices.ceph_user, vm.entry.machine or choices.machine),
        *_boot(vm),
        *_nics(vm, choices),
        *_screen(vm, choices),
        *_conveniences(vm),
    ]


def _machine(vm: VM, choices: Choices) -> list[str]:
    entry, cpu = vm.entry, vm.entry.cpu
    firmware = {"pflash0": "firmware", "pflash1": "uefi"} if entry.firmware == "uefi" else {}
    arranged = {"sockets": cpu.sockets, "cores": cpu.cores, "threads": cpu.threads} if cpu.is_arranged else {}
    # fmt: off
    return [
        "-name", options(f"guest={vm.name}", {"debug-threads": True}),
        "-uuid", vm.uuid,
        "-machine", option(entry.machine or choices.machine, accel=choices.accel, **firmware),
        "-cpu", cpu.model or choices.cpu,
        "-m", f"{entry.memory}M",
        "-smp", option(str(entry.cpus), **arranged),
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-msg", "timestamp=on",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        # A panicked guest is a failure of the unit (exit status 1), a guest that powers off is not (0).
        "-action", "panic=exit-failure,reboot=reset,shutdown=poweroff",
    ]
    # fmt: on


def _monitors() -> list[str]:
    """Two monitors, because QEMU serves one client on each: ExecStop= must never wait behind another client."""
    words = []
    for name in ("qmp", "stop"):
        words += ["-chardev", socket(name), "-mon", f"{name},mode=control"]
    # The flight recorder: QEMU writes its own events into a file, so that the true reason of an end is known when
    # nobody listened. What it reads first from CAPABILITIES switches the events on (input-path=: QEMU >= 10.0).
    record = option("file", id="record", path="events.json", input_path=CAPABILITIES)
    return [*words, "-chardev", record, "-mon", "record,mode=control"]


def _console() -> list[str]:
    """Send the serial console to the journal and to a socket. stdin must be something that never ends (the unit says
    /dev/ptmx): with /dev/null QEMU 10.0's hub takes stdio for closed and the journal stays empty."""
    # fmt: off
    return [
        "-chardev", "stdio,id=journal,signal=off",
        "-chardev", socket("console"),
        "-chardev", "hub,id=serial,chardevs.0=journal,chardevs.1=console",
        "-serial", "chardev:serial",
    ]
    # fmt: on


def _boot(vm: VM) -> list[str]:
    """Boot from nothing that the order does not name. A kernel's path is that of a descriptor from PID 1."""
    boot, fds = vm.entry.boot, {file.use: f"/proc/self/fd/{file.number}" for file in drives.files(vm)}
    words = ["-boot", "strict=on"]
    for use in drives.KERNEL:
        words += [f"-{use}", fds[use]] if use in fds else []
    return words + (["-append", boot.append] if boot.append else [])


def _nics(vm: VM, choices: Choices) -> list[str]:
    words, order = list[str](), drives.boot_order(vm)
    for index, nic in enumerate(vm.entry.nics):
        name, address = f"net{index}", nic.mac or names.mac(vm.uuid, index)
        tap = option("tap", id=name, ifname=names.tap(vm.uuid, index), script="no", downscript="no")
        tap += ",vhost=on" if choices.vhost and nic.model == "virtio" else ""
        device: dict[str, object] = {"addr": f"{FIRST_NIC_SLOT + index:x}", "netdev": name, "mac": address}
        # No option ROM: a guest must not look for something to boot in a network that the order does not name.
        device.update(order.get(f"nic{index}", {}) or [("romfile", "")])
        device |= {"host_mtu": nic.mtu} if nic.mtu and nic.model == "virtio" else {}
        words += ["-netdev", tap, "-device", options(NICS[nic.model], device)]
    return words


def _screen(vm: VM, choices: Choices) -> list[str]:
    password = {"password_secret": "vnc"} if vm.entry.vnc.password_file else {}
    displays = ["-vnc", option("unix:vnc.sock", **password)] if vm.entry.vnc.unix else []
    if choices.vnc_tcp:
        address, _, port = choices.vnc_tcp.rpartition(":")
        displays += ["-vnc", option(f"{address}:{int(port) - VNC_PORTS.start}", **password)]
    if not displays:
        return []
    secret = option("secret", id="vnc", file=names.credential(vm.uuid, "vnc"))
    # The tablet sends absolute positions, so that the pointer of a VNC client and the guest's are the same.
    devices = [f"VGA,addr={VGA_SLOT:x}", f"qemu-xhci,addr={USB_SLOT:x}", "usb-tablet"]
    return [*(["-object", secret] if password else []), *_devices(*devices), *displays]


def _conveniences(vm: VM) -> list[str]:
    """Devices that every guest has, unless its entry says false."""
    entry, words = vm.entry, []
    if entry.pvpanic:
        words += _devices("pvpanic")
    if entry.rng:
        words += _devices(f"virtio-rng-pci,addr={RNG_SLOT:x}")
    if entry.balloon:
        words += _devices(f"virtio-balloon-pci,addr={BALLOON_SLOT:x},free-page-reporting=on")
    if entry.guest_agent:
        words += ["-chardev", socket("agent"), *_devices(f"virtio-serial-pci,addr={SERIAL_SLOT:x}")]
        words += _devices("virtserialport,chardev=agent,name=org.qemu.guest_agent.0")
    return words


def _devices(*said: str) -> list[str]:
    return [word for device in said for word in ("-device", device)]
