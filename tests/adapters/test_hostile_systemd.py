"""Hostile texts in a real systemd: what a unit is started with it has, also after a daemon-reload and a restart.

In the place of QEMU is a program that writes down its words and its files.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.test_hostile_qemu import accepted
from tests.core.hostile import TEXTS
from tests.waiting import eventually
from uncloud_host import limits, names, qemu, unit
from uncloud_host.models import VM, parse
from uncloud_host.systemd import Systemd
from uncloud_host.unit import Evidence

IMAGES = Path("/var/tmp/hostile-images")  # noqa: S108 - a host of the test's own
DUMP = Path("/usr/local/lib/dump.py")  # where the sandbox lets it be read
PROGRAM = """
import json, os, signal, sys
files = {n: os.readlink(f"/proc/self/fd/{n}") for n in range(3, 40) if os.path.lexists(f"/proc/self/fd/{n}")}
with open("dump.new", "w") as file:
    json.dump([sys.argv[1:], {n: path for n, path in files.items() if "/hostile-images" in path}], file)
os.rename("dump.new", "dump")
signal.pause()
"""
SHOWN = "Description,Environment,OpenFile,ExecStart,IOReadBandwidthMax,LogExtraFields,RuntimeDirectory"
PATHS = [f"{IMAGES}/{text}" for text in TEXTS if "/" not in text and len(text) < 100]
PATHS = [path for path in PATHS if accepted(disks=[{"file": path}])]
LIMITED = [path for path in PATHS if accepted(disks=[{"file": path}], limits={"io_read_bandwidth_max": 7})]


def entries() -> Iterator[dict[str, Any]]:
    """Every text that may be a name or a command line; every path that an image may have, with a limit if it may."""
    for text in TEXTS:
        entry: dict[str, Any] = {"name": text} if accepted(name=text) else {}
        if accepted(boot={"kernel": "/k", "append": text}):
            entry |= {"boot": {"kernel": f"{IMAGES}/k", "append": text}}
        if entry:
            yield entry
    for first in range(0, len(PATHS), 24):
        yield {"disks": [{"file": path, "bus": "scsi"} for path in PATHS[first : first + 24]]}
    for first in range(0, len(LIMITED), 24):
        disks = [{"file": path, "bus": "scsi"} for path in LIMITED[first : first + 24]]
        yield {"disks": disks, "limits": {"io_read_bandwidth_max": 5000, "io_write_iops_max": 7}}


@pytest.fixture
def units() -> Iterator[dict[str, VM]]:
    IMAGES.mkdir(exist_ok=True)
    DUMP.write_text(PROGRAM)
    for path in [*PATHS, IMAGES / "k"]:
        Path(path).touch()
    vms = [VM(str(uuid.uuid4()), parse(json.dumps({"host": "a"} | entry).encode()), 1, 1) for entry in entries()]
    made = {unit.name(vm.uuid): vm for vm in vms}
    yield made
    subprocess.run(["systemctl", "kill", "--signal=KILL", *made], check=False)
    subprocess.run(["systemctl", "stop", *made], check=False)
    subprocess.run(["systemctl", "reset-failed", *made], check=False, stderr=subprocess.DEVNULL)


def start(bus: Systemd, name: str, vm: VM) -> None:
    marker = Evidence("a", "c", 1, vm.entry.fingerprint(), vm.name, "", limits.fingerprint(vm))
    argv = ["/usr/bin/python3", str(DUMP), *unit.command(vm, qemu.Choices("tcg", "max"))]
    changed: dict[str, unit.Value] = {"ExecStart": [[argv[0], argv, False]], "TimeoutStopUSec": unit.SECOND}
    left_out = ("ExecStopEx", "ExecStopPostEx")  # the package is not needed here
    listed = unit.properties(vm, qemu.Choices("tcg", "max"), unit.Settings(), marker)
    bus.start(name, [(key, changed.get(key, value)) for key, value in listed if key not in left_out])


def dumped(vm: VM) -> tuple[list[str], list[str]]:
    """What the program of a VM was given: its words, and its files in order."""
    dump = Path(names.runtime_directory(vm.uuid), "dump")
    eventually(dump.exists, within=60, what=f"a file of {vm.entry}")
    words, files = json.loads(dump.read_text())
    dump.unlink()
    return words, [files[number] for number in sorted(files, key=int)]


def all_is_there(units: dict[str, VM]) -> None:
    for vm in units.values():
        words, files = dumped(vm)
        assert words == unit.command(vm, qemu.Choices("tcg", "max"))
        paths = [disk.file for disk in vm.entry.disks] + [vm.entry.boot.kernel] * bool(vm.entry.boot.kernel)
        assert files == paths


def shown(units: dict[str, VM]) -> list[str]:
    """What systemd says of them; the time of a start is not of interest."""
    said = subprocess.check_output(["systemctl", "show", "-p", SHOWN, *units], text=True)
    return [line.partition(" ; start_time=")[0] for line in said.splitlines()]


def test_nothing_changes_at_a_reload_and_at_a_restart(units: dict[str, VM]) -> None:
    assert len(units) > 100
    assert len(LIMITED) > 30
    bus = Systemd()
    for name, vm in units.items():
        start(bus, name, vm)
    all_is_there(units)
    before = shown(units)
    for vm in units.values():
        assert f"Description=VM {vm.name}" in before
    limited = " ".join(line.partition("=")[2] for line in before if line.startswith("IOReadBandwidthMax=/"))
    assert limited == " ".join(f"{path} 5000" for path in LIMITED)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert shown(units) == before
    subprocess.run(["systemctl", "kill", "--signal=KILL", *units], check=True)  # each is restarted by itself
    all_is_there(units)
    assert os.path.commonpath([IMAGES, *PATHS]) == str(IMAGES)
