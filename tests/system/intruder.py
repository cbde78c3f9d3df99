"""Run inside a VM host: be what a guest is that broke out of QEMU, try things, and say what came of each.

intruder.py PID < FACTS   in the cgroup and the namespaces of this QEMU, as its uid, without capabilities. Without its
                          system call filters, so that nothing of what is refused here depends on them.
intruder.py 0 < FACTS     as root of the host: what does not succeed then is no proof of anything.

Prints {attempt: "" or the name of an errno}.
"""

import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Facts = dict[str, str]
ATTEMPTS: dict[str, Callable[[Facts], object]] = {}
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PTRACE_SEIZE = 38, 24, 0x4206
SYS_PIDFD_GETFD = 438
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
CAPABILITIES = 64


def become(pid: int) -> None:
    """Leave all behind that this QEMU does not have."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    uid, gid = (int(status[key].split()[0]) for key in ("Uid", "Gid"))
    cgroup = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    spaces = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("mnt", "net", "ipc", "uts", "cgroup")}
    users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    Path(f"/sys/fs/cgroup{cgroup.removeprefix('0::')}/cgroup.procs").write_text("0")
    for space in spaces.values():
        os.setns(space)
    os.setgroups([int(group) for group in status["Groups"].split()])
    os.setns(users)  # gives all capabilities, in there
    for capability in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def read(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read(1)


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def attach(tap: str) -> None:
    with open("/dev/net/tun", "r+b", buffering=0) as tun:  # noqa: PTH123
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        try:
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", tap.encode(), flags).ljust(40, b"\0"))
        except OSError as error:
            if error.errno != errno.EBUSY:  # who may not gets no further than EPERM
                raise


def trace(pid: str) -> None:
    call(libc.ptrace(PTRACE_SEIZE, int(pid), None, None))  # ends with us


def read_memory(pid: str, address: str) -> None:
    """By process_vm_readv(2), which needs no /proc."""
    here, one, none = ctypes.create_string_buffer(8), ctypes.c_ulong(1), ctypes.c_ulong(0)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(here), len(here))
    remote = (ctypes.c_void_p * 2)(int(address, 16), len(here))
    call(libc.process_vm_readv(int(pid), local, one, remote, one, none))


def take_descriptor(pid: str) -> None:
    call(libc.syscall(SYS_PIDFD_GETFD, os.pidfd_open(int(pid)), 0, 0))


def make_file(directory: str) -> None:
    with tempfile.TemporaryFile(dir=directory):
        pass


def find_a_place(facts: Facts) -> None:
    """Look for a directory to write to that is not the VM's own."""
    private = (facts["own_directory"], "/tmp", "/var/tmp", "/proc", "/dev/mqueue")  # noqa: S108 - the last by PrivateIPC=
    for directory, inside, _ in os.walk("/"):
        inside[:] = [name for name in inside if os.path.join(directory, name) not in private]  # noqa: PTH118
        if os.access(directory, os.W_OK):
            if os.getuid():
                raise OSError(0, directory)  # so that one sees which
            return
    raise OSError(errno.ENOENT, "")


def make_device(facts: Facts) -> None:
    path = f"{facts['own_directory']}/device"
    os.mknod(path, 0o20600, os.makedev(1, 1))
    os.unlink(path)  # noqa: PTH108


def mount(facts: Facts) -> None:
    call(libc.mount(b"none", facts["own_directory"].encode(), b"tmpfs", 0, None))
    call(libc.umount2(facts["own_directory"].encode(), 0))


def speak_raw(family: int) -> None:
    socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if family == socket.AF_INET else 0).close()


OTHERS = {  # of another VM
    "disk": lambda f: read(f["other_image"]),
    "unit, with its command line": lambda f: read(f"/run/systemd/transient/{f['other_unit']}"),
    "list of events": lambda f: read(f"{f['other_directory']}/events.json"),
    "directory": lambda f: os.listdir(f["other_directory"]),
    "monitor": lambda f: connect(f"{f['other_directory']}/qmp.sock"),
    "power button": lambda f: connect(f"{f['other_directory']}/stop.sock"),
    "console": lambda f: connect(f"{f['other_directory']}/console.sock"),
    "screen": lambda f: connect(f"{f['other_directory']}/vnc.sock"),
    "tap": lambda f: attach(f["other_tap"]),
    "limits": lambda f: os.close(os.open(f"{f['other_cgroup']}/cgroup.freeze", os.O_WRONLY)),
}
for what, how in OTHERS.items():
    ATTEMPTS[f"use another VM's {what}"] = how
for whose in ("other", "init", "agent"):
    ATTEMPTS |= {
        f"{whose}: see its command line": lambda f, w=whose: read(f"/proc/{f[f'{w}_pid']}/cmdline"),
        f"{whose}: see its environment": lambda f, w=whose: read(f"/proc/{f[f'{w}_pid']}/environ"),
        f"{whose}: open its memory": lambda f, w=whose: os.close(os.open(f"/proc/{f[f'{w}_pid']}/mem", os.O_RDONLY)),
        f"{whose}: see what it has open": lambda f, w=whose: os.listdir(f"/proc/{f[f'{w}_pid']}/fd"),
        f"{whose}: walk through its root": lambda f, w=whose: os.listdir(f"/proc/{f[f'{w}_pid']}/root/etc"),
        f"{whose}: read its memory": lambda f, w=whose: read_memory(f[f"{w}_pid"], f[f"{w}_address"]),
        f"{whose}: take a descriptor": lambda f, w=whose: take_descriptor(f[f"{w}_pid"]),
        f"{whose}: trace it": lambda f, w=whose: trace(f[f"{w}_pid"]),
        f"{whose}: send it a signal": lambda f, w=whose: os.kill(int(f[f"{w}_pid"]), 0),
    }
ATTEMPTS |= {
    "read the agent's etcd password": lambda _: read("/etc/uncloud-host/etcd.password"),
    "read a secret that lies elsewhere": lambda _: read("/etc/etcd.password"),
    "read another unit's credential": lambda _: read("/run/credentials/lab-secret.service/etcd"),
    "list what the agent keeps on disk": lambda _: os.listdir("/var/lib/uncloud-host"),
    "list what the agent keeps in memory": lambda _: os.listdir("/run/uncloud-host"),
    "list which VMs there are": lambda _: os.listdir("/run/uncloud-vm"),
    "list which units there are": lambda _: os.listdir("/run/systemd/transient"),
    "list home directories": lambda _: os.listdir("/root"),
    "read the journal": lambda _: read(str(next(Path("/var/log/journal").glob("*/system.journal")))),
    "read the password file": lambda _: read("/etc/shadow"),
    "call systemd over the bus": lambda _: connect("/run/dbus/system_bus_socket"),
    "call systemd directly": lambda _: connect("/run/systemd/private"),
    "talk to etcd": lambda _: socket.create_connection(("127.0.0.1", 2379), timeout=5).close(),
    "write anywhere": find_a_place,
    "make a tap": lambda _: attach("stranger0"),
    "make a device": make_device,
    "open a device that lies about": lambda _: os.close(os.open("/usr/local/fuse", os.O_RDWR)),
    "send raw IP packets": lambda _: speak_raw(socket.AF_INET),
    "send raw frames": lambda _: speak_raw(socket.AF_PACKET),
    "mount": mount,
    "change the host's name": lambda f: call(libc.sethostname(f["host"].encode(), len(f["host"]))),
    "read the kernel's log": lambda _: call(libc.klogctl(9, None, 0)),
    **{
        f"write to {d}": lambda _, d=d: make_file(d)
        for d in ("/", "/etc", "/usr", "/run", "/var", "/run/lock", "/dev/shm", "/dev")  # noqa: S108
    },
}
# The last, because root is where its filters hold from then on.
ATTEMPTS["enter another VM's cgroup"] = lambda f: Path(f"{f['other_cgroup']}/cgroup.procs").write_text("0")
# What a VM can do, or the attempts above were in vain for another reason.
OWN: dict[str, Callable[[Facts], object]] = {
    "own: write to its directory": lambda f: make_file(f["own_directory"]),
    "own: read its events": lambda f: os.close(os.open(f"{f['own_directory']}/events.json", os.O_RDONLY)),
    "own: connect to its console": lambda f: connect(f"{f['own_directory']}/console.sock"),
    "own: see its command line": lambda f: read(f"/proc/{f['own_pid']}/cmdline"),
    "own: send QEMU a signal": lambda f: os.kill(int(f["own_pid"]), 0),
    "own: write to /tmp": lambda _: make_file("/tmp"),  # noqa: S108
    "own: read a program": lambda _: read("/usr/bin/qemu-system-x86_64"),
}


def outcome(function: Callable[[Facts], object], facts: Facts) -> str:
    try:
        function(facts)
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def main() -> None:
    facts = json.load(sys.stdin)
    if pid := int(sys.argv[1]):
        become(pid)
    said = {words: outcome(function, facts) for words, function in (ATTEMPTS | OWN).items()}
    status = Path("/proc/self/status").read_text().splitlines()
    said |= {key: value for key, _, value in (line.partition(":\t") for line in status) if key in ("CapEff", "CapBnd")}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
