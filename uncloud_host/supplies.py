"""Files that a VM's unit opens and that the agent makes: cloud-init's disk, and where UEFI keeps its variables.

Each is there whole or not at all. systemd opens them at each of its restarts, so they stay while there is a unit.
"""

import io
import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from uncloud_host import cloudinit, drives
from uncloud_host.devices import SECRETS
from uncloud_host.models import VM, is_uuid

# Seconds until variables are removed that no VM of this host has: not at once, because a guest may boot by them alone,
# and an entry that was deleted by mistake comes back.
KEPT = 30 * 86400.0
DAY = 86400.0
MIB = 1 << 20
_UUID = slice(36)  # of a file's name


class Lacking(Exception):
    """A file could not be made; the message is one line that names the entry's field."""


def supply(vm: VM) -> None:
    """Make what a VM needs for a start. Raises Lacking."""
    field = "cloud_init"
    try:
        if vm.entry.cloud_init:
            _replace(Path(drives.seed(vm.uuid)), seed(vm), rounded=MIB)
        field = "firmware"
        if vm.entry.firmware == "uefi":
            _keep_variables(Path(drives.variables(vm.uuid)))
    except OSError as error:
        raise Lacking(f"{field}: {error.filename}: {error.strerror}") from None


def remove_seed(uuid: str) -> None:
    """Remove a seed, which may hold secrets, when its VM is off and its claim is given up."""
    with suppress(OSError):  # `tidy` tries again
        if is_uuid(uuid):  # else the key of a claim may be any path
            Path(drives.seed(uuid)).unlink()


def tidy(known: Container[str], now: float) -> None:
    """Remove seeds of VMs that are not `known` by entry, unit or claim; mark variables of those that are.

    `now` in seconds since 1970.
    """
    for name in _names(drives.SEEDS):
        if name[_UUID] not in known:
            with suppress(OSError):
                Path(drives.SEEDS, name).unlink()
    for name in _names(drives.VARIABLES):
        path = Path(drives.VARIABLES, name)
        with suppress(OSError):
            if name[_UUID] in known and now - path.stat().st_mtime > DAY:
                os.utime(path)  # KEPT counts from when it was known last


def forget(known: Container[str], now: float) -> None:
    """Remove variables of VMs that have not been `known` for long. `now` in seconds since 1970."""
    for name in _names(drives.VARIABLES):
        path = Path(drives.VARIABLES, name)
        with suppress(OSError):
            if name[_UUID] not in known and now - path.stat().st_mtime > KEPT:
                path.unlink()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def seed(vm: VM) -> bytes:
    """Build cloud-init's disk: ISO 9660 with the long names of Rock Ridge and Joliet. Takes 1 ms. Raises OSError."""
    import pycdlib  # noqa: PLC0415 - 25 ms and 6 MiB, which hosts without cloud-init need not spend

    secret = vm.entry.cloud_init and vm.entry.cloud_init.user_data_file
    files = cloudinit.files(vm, Path(SECRETS, secret).read_bytes() if secret else None)
    disk, written = pycdlib.PyCdlib(), io.BytesIO()
    disk.new(interchange_level=3, vol_ident=cloudinit.LABEL, joliet=3, rock_ridge="1.09")
    for name, content in files.items():
        short = f"/{name.upper().replace('-', '_')}.;1"
        disk.add_fp(io.BytesIO(content), len(content), iso_path=short, rr_name=name, joliet_path=f"/{name}")
    disk.write_fp(written)
    disk.close()
    return written.getvalue()


def _keep_variables(path: Path) -> None:
    if path.exists():
        os.utime(path)
        return
    _replace(path, Path(drives.VARIABLES_TEMPLATE).read_bytes(), lasting=True)


def _replace(path: Path, content: bytes, *, rounded: int = 1, lasting: bool = False) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()  # of an agent that died
    try:
        _write(new, content, rounded=rounded, lasting=lasting)
        new.rename(path)
    except OSError:
        with suppress(OSError):
            new.unlink()  # a full disk is to be no fuller
        raise


def _write(path: Path, content: bytes, *, rounded: int, lasting: bool) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        # A hole: busybox's findfs knows no disk that ends before the places where other file systems have their names.
        file.truncate(-(-len(content) // rounded) * rounded)
        if lasting:
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave an empty one, with which no guest boots
