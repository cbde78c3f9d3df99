"""A real QEMU with the command line of an entry, whose guest does not run (-S), and what it says that it has."""

import json
import shlex
import shutil
import socket
import subprocess
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.waiting import eventually
from uncloud_host import drives, names, qemu, unit
from uncloud_host.models import VM

SOURCE = Path(__file__).parents[2]
MIB = 1 << 20
CLUSTER = 1 << 16
OVMF_CODE, OVMF_VARS = 3653632, 540672  # bytes, as Debian's; the guest does not run, so zeros do


class Qmp:
    """One client on a QMP socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.lines = self.socket.makefile("r")
        try:
            self.socket.connect(path)
            self.lines.readline()  # its greeting
            self.ask("qmp_capabilities")  # answered when the machine has been made
        except BaseException:
            self.close()
            raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """Execute a command; events are skipped."""
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            line = self.lines.readline()
            assert line, f"{command}: QEMU is gone"
            answer = json.loads(line)
            assert "error" not in answer, f"{command} {arguments}: {answer}"
            if "return" in answer:
                return answer["return"]

    def get(self, path: str, name: str) -> Any:
        """Read a property of an object."""
        return self.ask("qom-get", path=path, property=name)

    def hmp(self, line: str) -> str:
        """Type a command of the monitor for people."""
        return str(self.ask("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class Qemu:
    """QEMU as it is started for a VM, with its files at their descriptors; a context."""

    def __init__(self, vm: VM, choices: qemu.Choices) -> None:
        self.vm = vm
        self.argv = unit.command(vm, choices)
        self.directory = Path(names.runtime_directory(vm.uuid))
        self.process: subprocess.Popen[bytes] | None = None
        self.said = ""  # all of it, when it has ended
        self.qmp: Qmp = None  # type: ignore[assignment]  # there is one inside the context

    def __enter__(self) -> Self:
        make_files(self.vm)
        for index in range(len(self.vm.entry.nics)):
            tap = names.tap(self.vm.uuid, index)
            subprocess.run(["ip", "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"], check=True)
        self.directory.mkdir(parents=True)
        Path(qemu.CAPABILITIES).write_text('{"execute":"qmp_capabilities"}\n')
        files = [f"{file.number}{'<' if file.readonly else '<>'}{shlex.quote(file.path)}" for file in
                 drives.files(self.vm)]  # fmt: skip
        if not Path(unit.PROGRAMS).exists():
            Path(unit.PROGRAMS).symlink_to(SOURCE / "uncloud_host/libexec")
        script = " ".join(["exec", shlex.join([*self.argv, "-S"]), *files, "</dev/ptmx"])
        with (self.directory / "output").open("wb") as output:
            # bash, because Debian's sh knows descriptors up to 9 only
            self.process = subprocess.Popen(["bash", "-c", script], stdout=output, stderr=output, cwd=self.directory)
        try:
            eventually(self._listens, within=60, what="QEMU listens")
            self.qmp = Qmp(str(self.directory / "qmp.sock"))
        except (AssertionError, OSError) as error:
            self._end()
            raise AssertionError(f"QEMU does not start: {self.said}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.qmp.close()
        self._end()

    @property
    def output(self) -> str:
        """What QEMU said."""
        return (self.directory / "output").read_text(errors="replace")

    def _listens(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"QEMU ended with {self.process.returncode}: {self.output}"
        # The monitor listens before the machine is made; the screen is the last.
        sockets = [word for word in self.argv if word.startswith("socket,id=")]
        return (self.directory / "qmp.sock").exists() and len(list(self.directory.glob("*.sock"))) >= len(sockets)

    def _end(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()
        self.said = self.output
        shutil.rmtree(self.directory)
        for index in range(len(self.vm.entry.nics)):
            subprocess.run(["ip", "link", "delete", names.tap(self.vm.uuid, index)], check=True)

    # what arrived

    def words(self, option: str) -> list[dict[str, str]]:
        """What was given with an option, in order: its first word is that of `driver`."""
        pairs = zip(self.argv, self.argv[1:], strict=False)
        return [_members(word) for name, word in pairs if name == option and not word.startswith("{")]

    def devices(self) -> list[tuple[dict[str, str], str]]:
        """What each -device said, and the path of the object that it made."""
        said = self.words("-device")
        unnamed = count()
        anonymous = "/machine/peripheral-anon/device"
        return [
            (one, f"/machine/peripheral/{one['id']}" if "id" in one else f"{anonymous}[{next(unnamed)}]")
            for one in said
        ]

    def device(self, drive: str) -> str:
        """The path of the device that has this drive or netdev."""
        found = [path for said, path in self.devices() if drive in (said.get("drive"), said.get("netdev"))]
        assert len(found) == 1, (drive, found)
        return found[0]

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The block nodes that have a name of ours."""
        return {node["node-name"]: node for node in self.qmp.ask("query-named-block-nodes", flat=True)}


def _members(word: str) -> dict[str, str]:
    """Undo how an option is written: a doubled comma is one of a value."""
    first, *rest = [part.replace("\0", ",") for part in word.replace(",,", "\0").split(",")]
    return {"driver": first, **dict(part.partition("=")[::2] for part in rest)}


def make_files(vm: VM) -> None:
    """Make what an entry names, as far as it is not there: files for QEMU, not for a guest."""
    formats = {f"disk{index}": disk.format for index, disk in enumerate(vm.entry.disks)}
    for file in drives.files(vm):
        content = {"kernel": kernel(), "uefi": bytes(OVMF_VARS)}.get(file.use, bytes(MIB))
        _make(file.path, qcow2() if formats.get(file.use) == "qcow2" else content)
    if vm.entry.firmware == "uefi":
        _make(drives.FIRMWARE, bytes(OVMF_CODE))
    if vm.entry.vnc.password_file:
        _make(names.credential(vm.uuid, "vnc"), b"password")


def _make(path: str, content: bytes) -> None:
    if not Path(path).exists():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)


def kernel() -> bytes:
    """What QEMU takes for a kernel of Linux: the header of its boot protocol, 2.12."""
    image = bytearray(1 << 15)
    image[0x1F1] = 4  # sectors of the part that runs in real mode
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x208] = b"HdrS\x0c\x02"
    image[0x211] = 1  # to be loaded high
    image[0x22C:0x230] = (0x7FFFFFFF).to_bytes(4, "little")  # the highest address of an initrd
    image[0x238:0x23C] = (2047).to_bytes(4, "little")  # the longest command line
    return bytes(image)


def qcow2(*, backing: str = "", features: int = 0, size: int = 4 * MIB) -> bytes:
    """An empty qcow2 image, version 3."""
    name = backing.encode()
    header = b"QFI\xfb" + b"".join(
        number.to_bytes(width, "big")
        for number, width in [
            (3, 4), (112 if name else 0, 8), (len(name), 4), (16, 4), (size, 8), (0, 4), (1, 4), (3 * CLUSTER, 8),
            (CLUSTER, 8), (1, 4), (0, 4), (0, 8), (features, 8), (0, 8), (0, 8), (4, 4), (104, 4), (0, 8),
        ]
    )  # fmt: skip
    table = (2 * CLUSTER).to_bytes(8, "big")
    counts = b"\0\1" * 4
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (header + name, table, counts, b""))
