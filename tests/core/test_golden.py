"""Each cases/NAME.json is an entry; NAME.argv and NAME.unit are what it becomes.

A new case is a new NAME.json: the first run writes what is missing and fails, so that somebody reads it before it is
committed.
"""

import json
import textwrap
from pathlib import Path

import pytest

from uncloud_host import limits, qemu, shell, unit, unitfile
from uncloud_host.models import VM, parse

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
@pytest.mark.parametrize("kind", ["argv", "unit"])
def test_an_entry_becomes_exactly_this(case: Path, kind: str) -> None:
    vm = VM(UUID, parse(case.read_bytes()), create_revision=7, mod_revision=9)
    host = json.loads(case.read_text()).get("metadata", {})  # how the host of this case is set up
    address = vm.entry.vnc.tcp if isinstance(vm.entry.vnc.tcp, str) else "127.0.0.1:5900" if vm.entry.vnc.tcp else None
    accel = host.get("accel", "kvm")
    vhost = accel == "kvm"  # as hosts with KVM have
    choices = qemu.Choices(accel, "host" if accel == "kvm" else "max", vhost=vhost).with_vnc(address)
    if kind == "argv":
        made = shell.command(qemu.argv(vm, choices)) + "\n"
    else:
        entry = vm.entry
        marker = unit.Evidence(
            entry.host, "c1a1", 9, entry.fingerprint(), vm.name, address or "", limits.fingerprint(vm)
        )
        listed = unit.properties(vm, choices, unit.Settings(), marker)
        made = unitfile.text([(key, value) for key, value in listed if key != "ExecStart"])  # that is .argv
    golden = case.with_suffix(f".{kind}")
    if not golden.exists():
        golden.write_text(made)
        pytest.fail(f"{golden.name} was missing and has been written: read it, then commit it")
    assert made == golden.read_text()


def test_the_readme_shows_what_an_entry_becomes() -> None:
    readme = (Path(__file__).parents[2] / "README.rst").read_text()
    case = Path(__file__).parent / "cases" / "production"
    for kind in (".json", ".argv"):
        assert textwrap.indent(case.with_suffix(kind).read_text().strip(), "    ") in readme, kind


def test_disks_without_page_cache_are_opened_so_before_qemu_runs() -> None:
    disks = [{"file": f"/{cache}", "cache": cache} for cache in ("writeback", "none", "unsafe", "directsync")]
    vm = VM(UUID, parse(json.dumps({"host": "a", "disks": disks}).encode()), create_revision=7, mod_revision=9)
    direct, numbers, binary, *_ = unit.command(vm, qemu.Choices())
    assert (direct, numbers, binary) == ("/usr/libexec/uncloud-host/direct", "4,6", qemu.BINARY)
