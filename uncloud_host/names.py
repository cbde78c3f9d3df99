"""The names of what belongs to a VM on its host. Pure."""

import hashlib

RUNTIME = "/run/uncloud-vm"  # each VM has a directory of its own in here, owned by its uid


def runtime_directory(uuid: str) -> str:
    """Where the VM's sockets are: qmp.sock, stop.sock, console.sock, vnc.sock, agent.sock."""
    return f"{RUNTIME}/{uuid}"


def credential(uuid: str, name: str) -> str:
    """Where PID 1 puts a credential of the VM's unit."""
    return f"/run/credentials/vm-{uuid}.service/{name}"


def short(uuid: str) -> str:
    """Twelve hex digits for names that must be short. A hash, because slices of uuids collide: version 7 begins
    with the time, version 1 ends with the machine's MAC."""
    return hashlib.sha256(uuid.encode()).hexdigest()[:12]


def user(uuid: str) -> str:
    """Name the user that a VM's QEMU is, made by systemd (DynamicUser=)."""
    return f"vm-{short(uuid)}"


def tap(uuid: str, index: int) -> str:
    """Name the tap of a nic: 14 of the 15 bytes that Linux allows."""
    return f"t{short(uuid)}{index}"


def mac(uuid: str, index: int) -> str:
    """Give a nic without a mac a locally administered one that stays the same for ever."""
    digest = hashlib.sha256(f"{uuid}/{index}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))
