"""The machine we are on: who it is, and whether it has what a VM needs. Looks only; what it takes is its own lock."""

import fcntl
import os
import re
import socket
import stat
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from uncloud_host.config import Config, ConfigError
from uncloud_host.facts import Me
from uncloud_host.models import VM, VNC_PORTS

LOCK = "/run/uncloud-host/lock"


class Missing(Exception):
    """The machine lacks what a VM needs; the message is one line that names the entry's field."""


def me(host: str) -> Me:
    """Tell who we are. The machine id survives reboots, the boot id does not."""
    machine_id = Path("/etc/machine-id").read_text().strip()
    if not re.fullmatch("[0-9a-f]{32}", machine_id):
        raise ConfigError("/etc/machine-id: expected 32 hex digits; see systemd-machine-id-setup(1)")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Me(host, machine_id, boot_id)


def lock() -> int | None:
    """Become the machine's only agent; None if there is one. The lock lasts as long as the descriptor is open."""
    Path(LOCK).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def vnc_address(vm: VM, listen: str, taken: Collection[str]) -> str | None:
    """Choose where the VM's screen listens on tcp. Raises Missing if the port is taken.

    `taken` are the addresses of other VMs here, which may not have come to listen on them yet.
    """
    wanted = vm.entry.vnc.tcp
    if isinstance(wanted, str):
        if wanted in taken or not _is_free(wanted):
            raise Missing(f"vnc.tcp: {wanted} is taken or is no address of this host")
        return wanted
    if not wanted:
        return None
    for port in VNC_PORTS:
        address = f"{listen}:{port}"
        if address not in taken and _is_free(address):
            return address
    raise Missing(f"vnc.tcp: no port is free on {listen}")


def check(vm: VM, config: Config) -> None:
    """Look whether disks and bridges are there and may be used. Raises Missing.

    PID 1 opens the images as root, so a path must be safe from everybody else: below one of the directories for
    images, a regular file, with no symlink and nothing that others can write on the way.
    """
    for index, disk in enumerate(vm.entry.disks):
        if not any(disk.file.startswith(f"{directory}/") for directory in config.image_dirs):
            raise Missing(f"disks[{index}].file: {disk.file} is not below {' or '.join(config.image_dirs)}")
        if problem := _unsafe(disk.file):
            raise Missing(f"disks[{index}].file: {problem}")
    for index, nic in enumerate(vm.entry.nics):
        if not any(fnmatchcase(nic.bridge, pattern) for pattern in config.bridges):
            raise Missing(f"nics[{index}].bridge: {nic.bridge} is not allowed by UNCLOUD_BRIDGES")
        if not Path(f"/sys/class/net/{nic.bridge}/bridge").is_dir():
            raise Missing(f"nics[{index}].bridge: there is no bridge {nic.bridge} on this host")


def _unsafe(path: str) -> str:
    for step in _steps(path):
        try:
            found = os.lstat(step)
        except OSError as error:
            return f"{step}: {error.strerror}"
        if stat.S_ISLNK(found.st_mode):
            return f"{step} is a symbolic link"
        if step == path:
            return "" if stat.S_ISREG(found.st_mode) else f"{step} is not a regular file"
        if not stat.S_ISDIR(found.st_mode):
            return f"{step} is not a directory"
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{step} can be written by others than root"
    return ""


def _steps(path: str) -> Iterator[str]:
    """/a/b/c: /, /a, /a/b, /a/b/c."""
    yield "/"
    parts = path.split("/")[1:]
    for count in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:count])


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(*found[0][:3]) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found[0][4])
            listener.listen()  # with SO_REUSEADDR the bind succeeds beside another one that only bound
    except (OSError, UnicodeError):  # UnicodeError: UNCLOUD_VNC_LISTEN is no name either
        return False
    return True
