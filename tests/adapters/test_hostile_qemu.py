"""Hostile texts that an entry may have arrive in a real QEMU as exactly that value of that field, and as no option."""

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.qemus import MIB, Qemu, qcow2
from tests.adapters.test_qemu_takes import everything_arrived, qemu_of
from tests.core.hostile import TEXTS
from uncloud_host import names
from uncloud_host.models import InvalidEntry, parse

IMAGES = "/var/lib/uncloud-host/images"
HOSTILE = f"{IMAGES}/hostile"


def accepted(**fields: Any) -> bool:
    try:
        parse(json.dumps({"host": "a"} | fields).encode())
    except (InvalidEntry, UnicodeEncodeError):
        return False
    return True


def batches(texts: list[str], size: int) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, size)):
        yield batch


WORDS = [text for text in TEXTS if accepted(name=text) or accepted(boot={"kernel": "/k", "append": text})]


def test_there_are_enough_of_them() -> None:
    assert len(WORDS) > 100


@pytest.mark.parametrize("batch", batches(WORDS, 20), ids=lambda batch: batch[0][:12])
def test_names_and_kernel_command_lines(batch: list[str]) -> None:
    for text in batch:
        entry: dict[str, Any] = {"boot": {"kernel": f"{IMAGES}/vmlinuz"}}
        entry |= {"name": text} if accepted(name=text) else {}
        if accepted(boot={"kernel": "/k", "append": text}):
            entry["boot"]["append"] = text
        with qemu_of(entry) as found:
            assert found.qmp.ask("query-name") == ({"name": text} if "name" in entry else {"name": found.vm.uuid})
            assert found.qmp.get("/machine", "append") == entry["boot"].get("append", "")
            assert found.qmp.ask("query-status")["status"] == "prelaunch"
            assert found.process
            assert Path(f"/proc/{found.process.pid}/comm").read_text() == "qemu-system-x86\n"


def test_serials_and_paths_of_disks() -> None:
    serials = [text for text in TEXTS if accepted(disks=[{"file": "/a", "serial": text}])]
    inside = [text.replace("/images", HOSTILE) for text in TEXTS if text.startswith("/images/")]
    named = [f"{HOSTILE}/{text}" for text in TEXTS if "/" not in text]
    paths = [path for path in dict.fromkeys(inside + named) if accepted(disks=[{"file": path}])]
    paths = [path for path in paths if max(len(os.fsencode(part)) for part in path.split("/")) < 256]
    assert len(paths) > 60
    for batch in batches(paths, 24):
        disks = [{"file": path, "bus": "scsi", "serial": serials[n % len(serials)]} for n, path in enumerate(batch)]
        for number, path in enumerate(batch):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(bytes(MIB + 4096 * number))  # each of a size of its own
        with qemu_of({"disks": disks}) as found:
            everything_arrived(found)
            sizes = [found.nodes()[f"disk{number}"]["image"]["virtual-size"] for number in range(len(batch))]
            assert sizes == [MIB + 4096 * number for number in range(len(batch))]
            assert {path for path in opened_by(found) if path.startswith(IMAGES)} == set(batch)


def opened_by(found: Qemu) -> set[str]:
    """The files that QEMU has, as the kernel says."""
    assert found.process
    return {str(link.readlink()) for link in Path(f"/proc/{found.process.pid}/fd").iterdir()}


@pytest.mark.parametrize("text", [text for text in TEXTS if accepted(cpu={"model": text})])
def test_a_cpu_model_is_one_or_there_is_none_of_that_name(text: str) -> None:
    try:
        with qemu_of({"cpu": {"model": text}}) as found:
            everything_arrived(found)
    except AssertionError as error:
        assert f"unable to find CPU model '{text}'" in str(error) or f"'{text}' requires KVM" in str(error)


@pytest.mark.parametrize("text", [text for text in TEXTS if accepted(machine=text)])
def test_a_machine(text: str) -> None:
    with qemu_of({"machine": text}) as found:
        everything_arrived(found)


@pytest.mark.parametrize("text", [text for text in TEXTS if accepted(vnc={"tcp": text})])
def test_addresses_of_screens(text: str) -> None:
    with qemu_of({"vnc": {"tcp": text}}) as found:
        everything_arrived(found)


def test_macs() -> None:
    texts = {text.lower() for text in TEXTS if accepted(nics=[{"bridge": "b", "mac": text}])}
    with qemu_of({"nics": [{"bridge": "b", "mac": text} for text in texts]}) as found:
        everything_arrived(found)


def test_a_raw_disk_stays_raw_whatever_its_guest_writes_on_it() -> None:
    disk = Path(f"{IMAGES}/guest-wrote.img")
    disk.parent.mkdir(parents=True, exist_ok=True)
    disk.write_bytes(qcow2(backing="/etc/passwd").ljust(2 * MIB, b"\0"))
    with qemu_of({"disks": [{"file": str(disk), "discard": True}]}) as found:
        node = found.nodes()["disk0"]
        assert (node["drv"], node["image"]["virtual-size"], node["backing_file_depth"]) == ("file", 2 * MIB, 0)
        assert "backing-image" not in node["image"]


def test_what_a_qcow2_image_names_as_its_backing_file_is_not_opened() -> None:
    """The agent refuses such an image; if it is changed after that look, QEMU opens nothing else all the same."""
    for name in ("/etc/passwd", "json:{}", "nbd:127.0.0.1:1", f"{IMAGES}/other.img"):
        disk = Path(f"{IMAGES}/backed.qcow2")
        disk.write_bytes(qcow2(backing=name))
        with qemu_of({"disks": [{"file": str(disk), "format": "qcow2", "readonly": True}]}) as found:
            node = found.nodes()["disk0"]
            assert (node["drv"], node["backing_file_depth"]) == ("qcow2", 0)
            assert not {"/etc/passwd", f"{IMAGES}/other.img"} & opened_by(found)


def test_a_tap_is_the_vms_own_whatever_its_bridge_is_called() -> None:
    bridges = [text for text in TEXTS if accepted(nics=[{"bridge": text}])]
    for batch in batches(bridges, 8):
        with qemu_of({"nics": [{"bridge": bridge} for bridge in batch]}) as found:
            everything_arrived(found)
            assert all(names.tap(found.vm.uuid, n) in found.qmp.hmp("info network") for n in range(len(batch)))
