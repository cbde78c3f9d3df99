"""The command of a VM as a shell takes it: with the files that PID 1 would open, after what the unit prepares. Pure."""

import shlex
from typing import Any

from uncloud_host import drives, names, qemu, unit, unitfile
from uncloud_host.models import VM
from uncloud_host.unit import Value

SH_KNOWS = 9  # descriptors; bash knows more


def command(argv: list[str]) -> str:
    """Write a command with one option a line."""
    return " \\\n  ".join(unitfile.options([shlex.quote(word) for word in argv]))


def script(vm: VM, choices: qemu.Choices, listed: list[tuple[str, Value]], word: str) -> str:
    """Write what root can copy to a shell to run a VM without systemd; it does nothing where there is a unit.

    `listed` are the properties of its unit, `word` is how its entry was named to `render`.
    """
    name, directory = unit.name(vm.uuid), names.runtime_directory(vm.uuid)
    prepare: Any = dict(listed).get("ExecStartPreEx", [])
    refuse = f'{{ echo "there is a unit {name}" >&2; exit 1; }}'
    lines = [
        f"# VM {vm.name}, as root{_shell(vm)}; without the user and the sandbox that its unit gives it",
        "(",
        "set -e",
        # Its sockets are in use, and somebody may be waiting for them to stop it.
        f'[ -z "$(systemctl list-units --all --no-legend {name})" ] || {refuse}',
        f"install -d -m 0750 {directory}",
        *_supplies(vm, word),
        *_credentials(vm),
        *(shlex.join(argv) for _, argv, _ in prepare),
        f"cd {directory}",
        f"{command(['exec', *unit.command(vm, choices)])} \\\n  {_redirections(vm)}",
        ")",
    ]
    return "\n".join(lines) + "\n"


def _supplies(vm: VM, word: str) -> list[str]:
    """Make what the agent makes before a start: see supplies.py."""
    lines = []
    if vm.entry.firmware == "uefi":
        path = drives.variables(vm.uuid)
        lines.append(f"[ -e {path} ] || install -D -m 0600 {drives.VARIABLES_TEMPLATE} {path}")
    if vm.entry.cloud_init:
        path = drives.seed(vm.uuid)
        lines.append(f"install -d -m 0700 {drives.SEEDS}")
        lines.append(f"(umask 077; uncloud-host render --seed {shlex.quote(word)} > {path})")
    return lines


def _credentials(vm: VM) -> list[str]:
    found = drives.credentials(vm)
    lines = [f"install -m 0400 {shlex.quote(path)} {names.credential(vm.uuid, name)}" for name, path in found.items()]
    return [f"install -d -m 0700 {names.credential(vm.uuid, '')}", *lines] if lines else []


def _shell(vm: VM) -> str:
    return " in bash" if any(file.number > SH_KNOWS for file in drives.files(vm)) else ""


def _redirections(vm: VM) -> str:
    opened = [f"{file.number}{'<' if file.readonly else '<>'}{shlex.quote(file.path)}" for file in drives.files(vm)]
    return " ".join([*opened, "</dev/ptmx"])  # never ends, see qemu._console
