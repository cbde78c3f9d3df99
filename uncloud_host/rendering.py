"""The command render: the unit of a VM and the command in it, exactly as they would be started now."""

import sys
from argparse import Namespace
from pathlib import Path

from uncloud_host import limits, machine, needs, shell, supplies, unit, unitfile
from uncloud_host.checking import INVALID, STDIN, judge, read
from uncloud_host.config import Config
from uncloud_host.events import clean
from uncloud_host.facts import Invalid
from uncloud_host.looking import existing, show_json
from uncloud_host.models import VM, is_uuid, parse
from uncloud_host.snapshot import Snapshot, Unknown, Wrong
from uncloud_host.unit import Evidence

NOBODY = "00000000-0000-0000-0000-000000000000"  # the uuid of an entry that is a file of any name
NO_CLAIM = "none-yet"


def render(arguments: Namespace, known: Config) -> int:
    """Show what would be started. Raises Wrong, and what a Snapshot raises."""
    word = arguments.vm
    if word == STDIN or "/" in word or word.endswith(".json"):
        return _file(arguments, known)
    seen = existing(Snapshot(known), word)
    if isinstance(seen.desired, Invalid):
        print(f"{clean(word)}: {clean(seen.desired.reason)}")
        return INVALID
    if not isinstance(seen.desired, VM):
        raise Unknown(f"{word}: it has no entry")
    evidence = seen.observed.evidence
    claim = seen.claim.id if seen.claim else NO_CLAIM
    return _show(arguments, known, seen.desired, claim, evidence.vnc if evidence else "")


def _file(arguments: Namespace, known: Config) -> int:
    file = arguments.vm
    try:
        value = read(file)
    except OSError as error:
        raise Wrong(f"{file}: {error.strerror}") from None
    verdict = judge(file, value)
    if not verdict.valid:
        print("".join(f"{clean(file)}: {problem}\n" for problem in verdict.problems), end="")
        return INVALID
    stem = Path(file).stem
    return _show(arguments, known, VM(stem if is_uuid(stem) else NOBODY, parse(value), 0, 0), NO_CLAIM, "")


def _show(arguments: Namespace, known: Config, vm: VM, claim: str, screen: str) -> int:
    """Print unit and command; `screen` is where the VM's screen is if it runs."""
    if arguments.only == "seed":
        return _seed(vm)
    tcp = vm.entry.vnc.tcp
    try:
        address = tcp if isinstance(tcp, str) else screen if tcp and screen else _free(vm, known)
    except needs.Missing as problem:
        raise Wrong(str(problem)) from None
    marker = Evidence(
        known.host, claim, vm.mod_revision, vm.entry.fingerprint(), vm.name, address or "", limits.fingerprint(vm)
    )
    choices = known.choices.with_vnc(address)
    listed = unit.properties(vm, choices, known.units, marker)
    texts = {"unit": unitfile.text(listed), "command": shell.script(vm, choices, listed, _path(arguments.vm))}
    if arguments.json:
        show_json({"uuid": vm.uuid, "name": vm.name, **texts, "argv": unit.command(vm, choices)})
    else:
        wanted = [arguments.only] if arguments.only else list(texts)
        headed = {"unit": f"# {unit.name(vm.uuid)}\n", "command": ""}
        print("\n".join(headed[kind] + texts[kind] for kind in wanted), end="")
    return 0


def _seed(vm: VM) -> int:
    if not vm.entry.cloud_init:
        raise Wrong("cloud_init: the entry has none")
    try:
        sys.stdout.buffer.write(supplies.seed(vm))
    except OSError as error:
        raise Wrong(f"cloud_init: {error.filename}: {error.strerror}") from None
    return 0


def _path(word: str) -> str:
    """Name a file so that it is found from every directory."""
    return str(Path(word).absolute()) if "/" in word or word.endswith(".json") else word


def _free(vm: VM, known: Config) -> str | None:
    return machine.vnc_address(vm, known.vnc_listen, ())
