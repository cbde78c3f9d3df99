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


def script(vm: VM, choices: qemu.Choices, listed: list[tuple[str, Value]]) -> str:
    """Write what root can copy to a shell to run a VM without systemd. `listed` are the properties of its unit."""
    directory = names.runtime_directory(vm.uuid)
    lines = [f"# VM {vm.name}, as root{_shell(vm)}; without the user and the sandbox that its unit gives it"]
    made = [file.path for file in drives.files(vm) if file.use in {"seed", "uefi"}]
    lines += [f"# {path} is made by the agent at a start" for path in made]
    lines.append(f"install -d -m 0750 {directory}")
    if credentials := drives.credentials(vm):
        lines.append(f"install -d -m 0700 {names.credential(vm.uuid, '')}")
    lines += [
        f"install -m 0400 {shlex.quote(path)} {names.credential(vm.uuid, name)}" for name, path in credentials.items()
    ]
    prepare: Any = dict(listed).get("ExecStartPreEx", [])
    lines += [shlex.join(argv) for _, argv, _ in prepare]
    lines += [f"cd {directory}", f"{command(unit.command(vm, choices))} \\\n  {_redirections(vm)}"]
    return "\n".join(lines) + "\n"


def _shell(vm: VM) -> str:
    return " in bash" if any(file.number > SH_KNOWS for file in drives.files(vm)) else ""


def _redirections(vm: VM) -> str:
    opened = [f"{file.number}{'<' if file.readonly else '<>'}{shlex.quote(file.path)}" for file in drives.files(vm)]
    return " ".join([*opened, "</dev/ptmx"])  # never ends, see qemu._console
