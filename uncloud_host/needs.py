"""Has this host what an entry names: images, kernels, bridges, secrets, firmware? Looks only."""

import difflib
import functools
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from uncloud_host import drives, qemu
from uncloud_host.config import Config
from uncloud_host.devices import SECRETS, Nic
from uncloud_host.models import IDE_DISKS, VM
from uncloud_host.patience import Patience

QCOW2 = b"QFI\xfb"
BACKING, FEATURES, VERSION = slice(8, 16), slice(72, 80), slice(4, 8)  # of qcow2's header, big-endian
DATA_FILE = 1 << 2  # an incompatible feature: the data are in another file
ANSWER = 10.0  # seconds for QEMU to list what it has
VNC_PASSWORD = 8  # what of a password VNC looks at


class Missing(Exception):
    """The machine lacks what a VM needs; the message is one line that names the entry's field."""


def check(vm: VM, config: Config, patience: Patience) -> None:
    """Look whether everything is there and may be used. Raises Missing, and Silence if that cannot be known now.

    PID 1 opens the images as root, so a path must be safe from everybody else: below one of the directories for
    images, a regular file, with no symlink and nothing that others can write on the way.
    """
    try:
        _check_hardware(vm)
        check_images(vm, config, patience)
        _check_ide(vm, config)
        for index, nic in enumerate(vm.entry.nics):
            _check_bridge(f"nics[{index}]", nic, config)
        if vm.entry.firmware == "uefi" and not Path(drives.FIRMWARE).exists():
            raise Missing(f"firmware: uefi needs {drives.FIRMWARE}, of the package ovmf")
        _check_secrets(vm)
    except subprocess.TimeoutExpired:
        raise Missing(f"QEMU did not say within {ANSWER:g} s what it knows") from None
    except OSError as error:  # it was there a moment ago
        raise Missing(f"{error.filename}: {error.strerror}") from None


def _check_hardware(vm: VM) -> None:
    """QEMU itself would tell only when the unit has started, and systemd would try again and again."""
    for field, option, word in (("cpu.model", "-cpu", vm.entry.cpu.model), ("machine", "-machine", vm.entry.machine)):
        if word and word not in (known := _known(option, Path(qemu.BINARY).stat().st_mtime_ns)):
            meant = difflib.get_close_matches(word, known, n=1)
            raise Missing(f"{field}: QEMU knows no {word}" + (f"; did you mean {meant[0]}?" if meant else ""))


@functools.cache
def _known(option: str, _version: int) -> frozenset[str]:
    """Ask QEMU for the names that an option takes: 20 ms, once for each QEMU that is installed. Raises OSError."""
    words = [qemu.BINARY, option, "help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER)  # noqa: S603 - ours
    known = frozenset(line.split()[0] for line in done.stdout.splitlines() if line.strip())
    if done.returncode or not known:  # in the middle of an upgrade; not to be remembered
        raise Missing(f"QEMU does not say what it knows: {qemu.BINARY} {option} help: exit status {done.returncode}")
    return known


def check_images(vm: VM, config: Config, patience: Patience) -> None:
    """Look whether the files that an entry names may be used. Raises Missing and Silence."""
    for field, path, problem in _images(vm):
        above = [directory for directory in config.image_dirs if path.startswith(f"{directory}/")]
        if not above:
            raise Missing(f"{field}: {path} is not below {' or '.join(config.image_dirs)}")
        patience.look(max(above, key=len), partial(_check_image, field, path, problem))


def _check_image(field: str, path: str, problem: Callable[[str], str]) -> None:
    try:
        found = _unsafe(path) or problem(path)
    except OSError as error:  # it was there a moment ago
        found = f"{path}: {error.strerror}"
    if found:
        raise Missing(f"{field}: {found}")


def _check_ide(vm: VM, config: Config) -> None:
    """An entry without a machine is checked as for q35, which has more places."""
    machine = vm.entry.machine or config.choices.machine
    if "q35" not in machine and sum(disk.bus in {"ide", "cdrom"} for disk in vm.entry.disks) > IDE_DISKS["pc"]:
        raise Missing(f"disks: expected at most {IDE_DISKS['pc']} of bus ide or cdrom on machine {machine}")


def _images(vm: VM) -> Iterator[tuple[str, str, Callable[[str], str]]]:
    """List the fields that name files, the files, and what else may be wrong with each."""
    for index, disk in enumerate(vm.entry.disks):
        if disk.file:
            yield f"disks[{index}].file", disk.file, _qcow2_problem if disk.format == "qcow2" else _no_problem
    for use, path in (("kernel", vm.entry.boot.kernel), ("initrd", vm.entry.boot.initrd)):
        if path:
            yield f"boot.{use}", path, _kernel_problem


def _no_problem(_path: str) -> str:
    return ""


def _kernel_problem(path: str) -> str:
    is_readable = Path(path).stat().st_mode & stat.S_IROTH
    return "" if is_readable else f"QEMU's user cannot read {path}; chmod a+r"


def _check_bridge(field: str, nic: Nic, config: Config) -> None:
    if not any(fnmatchcase(nic.bridge, pattern) for pattern in config.bridges):
        raise Missing(f"{field}.bridge: {nic.bridge} is not allowed by UNCLOUD_BRIDGES")
    bridge = Path(f"/sys/class/net/{nic.bridge}/bridge")
    if not bridge.is_dir():
        raise Missing(f"{field}.bridge: there is no bridge {nic.bridge} on this host")
    if nic.mtu and nic.mtu > (most := int((bridge.parent / "mtu").read_text())):
        raise Missing(f"{field}.mtu: bridge {nic.bridge} has an mtu of {most}")
    filtering = bridge / "vlan_filtering"  # not there if the kernel has none
    if nic.vlan and not (filtering.exists() and filtering.read_text().strip() == "1"):
        how = f"ip link set {nic.bridge} type bridge vlan_filtering 1"
        raise Missing(f"{field}.vlan: bridge {nic.bridge} has no vlan_filtering; {how}")


def _check_secrets(vm: VM) -> None:
    if name := vm.entry.vnc.password_file:
        password = _secret("vnc.password_file", name)
        if not 0 < len(password) <= VNC_PASSWORD or b"\n" in password:
            text = f"expected 1 to {VNC_PASSWORD} characters and no newline, as printf %s PASSWORD > FILE writes them"
            raise Missing(f"vnc.password_file: {SECRETS}/{name}: {text}")
    if vm.entry.cloud_init and (name := vm.entry.cloud_init.user_data_file):
        _secret("cloud_init.user_data_file", name)


def _secret(field: str, name: str) -> bytes:
    path = f"{SECRETS}/{name}"
    _be_safe(field, path)
    found = Path(path).stat()
    if found.st_uid != 0 or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Missing(f"{field}: {path} must be root's alone; chown root, chmod 600")
    return Path(path).read_bytes()


def _qcow2_problem(path: str) -> str:
    """Look at the header: what it names beside itself would be opened by QEMU, or be missing."""
    with Path(path).open("rb") as image:
        header = image.read(FEATURES.stop)
    if not header.startswith(QCOW2):
        return f"{path} is no qcow2 image"
    if any(header[BACKING]):
        return f"{path} has a backing file; make it complete with qemu-img convert"
    features = int.from_bytes(header[FEATURES]) if int.from_bytes(header[VERSION]) > 2 else 0  # noqa: PLR2004 - it says
    if features & DATA_FILE:
        return f"{path} has its data in another file; make it complete with qemu-img convert"
    return ""


def _be_safe(field: str, path: str) -> None:
    if problem := _unsafe(path):
        raise Missing(f"{field}: {problem}")


def _unsafe(path: str) -> str:
    for step in _steps(path):
        try:
            found = os.lstat(step)
        except OSError as error:
            return f"{path}: {error.strerror}"
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
