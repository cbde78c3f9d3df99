"""What a VM's unit may not do: the properties that leave nothing to a guest that broke out of QEMU but itself. Pure.

Every one was measured with `systemd-analyze security` and seen to survive a daemon-reload. The privileged programs of
the unit (`+`: prepare, record) get the mount namespace without what is taken away here: they see the host's files.
"""

import ipaddress
from collections.abc import Sequence

from uncloud_host import drives
from uncloud_host.models import VM
from uncloud_host.qemu import Choices

Value = str | bool | int | Sequence["Value"]
Properties = list[tuple[str, Value]]

# What file modes leave open to everybody: other VMs' units with their command lines, in files and over the bus, and two
# places to write; and our secrets, should somebody get their modes wrong. Few, because each costs a start 1 to 2 ms.
HIDDEN = ["/dev/shm", "/etc/uncloud-host", "/run/dbus", "/run/lock", "/run/systemd/transient"]  # noqa: S108 - to hide
_AF_INET, _AF_INET6 = 2, 10
_EVERYWHERE: Value = [[_AF_INET, [0] * 4, 0], [_AF_INET6, [0] * 16, 0]]
_LOOPBACK: Value = [[_AF_INET, [127, 0, 0, 0], 8], [_AF_INET6, [0] * 15 + [1], 128]]


def properties(vm: VM, choices: Choices) -> Properties:
    """List them, in the order in which systemd must get them."""
    return [
        ("NoNewPrivileges", True),
        ("CapabilityBoundingSet", 0),
        ("PrivateUsers", True),
        *_files(),
        *_devices(vm, choices),
        *_network(vm, choices),
        *_kernel(),
        ("MemoryDenyWriteExecute", choices.accel == "kvm"),  # TCG writes the code that it runs
        ("SystemCallArchitectures", ["native"]),
        ("SystemCallFilter", [True, ["@system-service", "seccomp"]]),  # seccomp: for QEMU's own -sandbox
        ("SystemCallFilter", [False, ["@privileged", "@resources"]]),
        ("SystemCallErrorNumber", 1),  # EPERM
    ]


def _files() -> Properties:
    return [
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("InaccessiblePaths", [f"-{path}" for path in HIDDEN]),  # "-": not every host has all of them
        ("PrivateTmpEx", "disconnected"),  # in memory: it is nobody else's, and the host's disk is not filled
        ("PrivateMounts", True),
        ("ProtectProc", "invisible"),
        ("ProcSubset", "pid"),
    ]


def _devices(vm: VM, choices: Choices) -> Properties:
    """A /dev of its own with the few harmless ones, and a filter in the kernel (BPF) that says the same."""
    ours = ["/dev/kvm"] * (choices.accel == "kvm") + ["/dev/net/tun"] * bool(vm.entry.nics)
    ours += ["/dev/vhost-net"] * (choices.vhost and bool(vm.entry.nics))
    # True: a device that is missing is QEMU's to complain of; without, not even the recorder could be started.
    bound: Properties = [("BindPaths", [[device, device, True, 0] for device in ours])] if ours else []
    return [
        ("PrivateDevices", True),
        *bound,
        ("DevicePolicy", "closed"),
        ("DeviceAllow", [[device, "rw"] for device in ["/dev/ptmx", *ours]]),
    ]


def _network(vm: VM, choices: Choices) -> Properties:
    """Let QEMU itself have no more of the host's network than it needs; what the guest sends through taps is not
    touched by any of this."""
    families = ["AF_UNIX"] + ["AF_INET", "AF_INET6"] * _speaks_ip(vm, choices)
    listed: Properties = [
        ("PrivateNetwork", not vm.entry.nics and not _speaks_ip(vm, choices)),  # taps are the host's
        ("RestrictAddressFamilies", [True, families]),
    ]
    if _is_local(vm, choices):
        listed += [("IPAddressDeny", _EVERYWHERE), ("IPAddressAllow", _LOOPBACK)]
    elif vm.entry.nics and not _speaks_ip(vm, choices):
        listed.append(("IPAddressDeny", _EVERYWHERE))
    # SocketBindDeny= would fit here, but loading its filter doubles the time of a start.
    return listed


def _speaks_ip(vm: VM, choices: Choices) -> bool:
    """Tell whether QEMU itself has anything to do with TCP/IP."""
    return bool(choices.vnc_tcp) or drives.has_rbd(vm)


def _is_local(vm: VM, choices: Choices) -> bool:
    """Tell whether all that QEMU has to do with TCP/IP is on this host."""
    if drives.has_rbd(vm):
        return False
    try:
        return ipaddress.ip_address((choices.vnc_tcp or "").rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:  # UNCLOUD_VNC_LISTEN may be a name
        return False


def _kernel() -> Properties:
    return [
        ("PrivateIPC", True),
        ("ProtectKernelTunables", True),
        ("ProtectKernelModules", True),
        ("ProtectKernelLogs", True),
        ("ProtectControlGroups", True),
        ("ProtectClock", True),
        ("ProtectHostname", True),
        ("LockPersonality", True),
        ("KeyringMode", "private"),
        ("RestrictRealtime", True),
        ("RestrictSUIDSGID", True),
        # CLONE_NEWUTS alone: "none" (0) is silently lost at a daemon-reload, on 252 and 257.
        ("RestrictNamespaces", 0x04000000),
    ]
