"""Which processes on this host run a virtual machine, as the kernel shows them in /proc. Only root sees all.

Told by the file that a process executes, or by KVM that it has open; never by its command, which it writes itself.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from uncloud_host.strangers import Program

PROC = Path("/proc")
KVM = os.makedev(10, 232)  # the same everywhere: Documentation/admin-guide/devices.txt
_LARGEST = 64 * 1024  # bytes of what a process says itself


def programs() -> list[Program]:
    """List those that there are now."""
    boot = _boot()
    found = (_program(int(name), boot) for name in os.listdir(PROC) if name.isdigit())
    return [one for one in found if one]


def alive(some: list[Program]) -> list[Program]:
    """Give those that are still there, in the units in which they are now."""
    return [replace(one, cgroup=_cgroup(one.pid)) for one in some if _start(one.pid) == one.start]


def _program(pid: int, boot: float) -> Program | None:
    try:
        path = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - of thousands
        if not os.path.basename(path).startswith("qemu-system-") and not _has_kvm(pid):  # noqa: PTH119
            return None
        start = _start(pid)
        since = boot + start / os.sysconf("SC_CLK_TCK")
        owner = _user((PROC / str(pid)).stat().st_uid)
        return Program(pid, start, since, path, owner, _cgroup(pid), _command(pid))
    except OSError:  # a thread of the kernel, or it has ended
        return None


def _has_kvm(pid: int) -> bool:
    return any(_is_kvm(f"/proc/{pid}/fd/{number}") for number in _descriptors(pid))


def _descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError):
        yield from os.listdir(f"/proc/{pid}/fd")


def _is_kvm(descriptor: str) -> bool:
    with suppress(OSError):
        link = os.readlink(descriptor)  # noqa: PTH115 - of thousands
        if link == "anon_inode:kvm-vm":
            return True
        if link.endswith("kvm"):
            found = os.stat(descriptor)  # noqa: PTH116
            return stat.S_ISCHR(found.st_mode) and found.st_rdev == KVM
    return False


def _start(pid: int) -> int:
    """When a process began, in clock ticks since the boot; 0 if there is none."""
    try:
        return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _boot() -> float:
    lines = (PROC / "stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def _cgroup(pid: int) -> str:
    with suppress(OSError):
        lines = (PROC / str(pid) / "cgroup").read_text(errors="replace").splitlines()
        return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    return ""


def _command(pid: int) -> tuple[str, ...]:
    with (PROC / str(pid) / "cmdline").open("rb") as file:
        return tuple(file.read(_LARGEST).decode(errors="replace").rstrip("\0").split("\0"))


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
