"""The machine we are on: who it is, and which of its ports are free. Looks only; what it takes is its own lock."""

import fcntl
import os
import re
import socket
from collections.abc import Collection
from pathlib import Path

from uncloud_host.config import ConfigError
from uncloud_host.devices import VNC_PORTS
from uncloud_host.facts import Me
from uncloud_host.models import VM
from uncloud_host.needs import Missing

LOCK = "/run/uncloud-host/lock"


def me(host: str) -> Me:
    """Tell who we are. The machine id survives reboots, the boot id does not."""
    machine_id = Path("/etc/machine-id").read_text().strip()
    if not re.fullmatch("[0-9a-f]{32}", machine_id):
        raise ConfigError("/etc/machine-id: expected 32 hex digits; see systemd-machine-id-setup(1)")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Me(host, machine_id, boot_id)


def lock(path: str = LOCK) -> int | None:
    """Become the machine's only agent; None if there is one. The lock lasts as long as the descriptor is open."""
    Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
