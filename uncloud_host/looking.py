"""The commands that look: ls, show, plan."""

import json
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from uncloud_host import names, view
from uncloud_host.events import clean
from uncloud_host.facts import Gone
from uncloud_host.snapshot import Snapshot, Unknown
from uncloud_host.unit import State
from uncloud_host.view import Seen


def ls(arguments: Namespace, now: Snapshot) -> int:
    """List VMs, a line each."""
    rows = [view.row(seen, now.me) for seen in now.vms(everywhere=arguments.all)]
    if arguments.json:
        show_json([asdict(row) for row in rows])
    else:
        print(view.table(rows, now=time.time(), hosts=arguments.all), end="")
    return 0


def show(arguments: Namespace, now: Snapshot) -> int:
    """Tell everything about one VM."""
    seen = existing(now, arguments.vm)
    plan = now.steps(seen)
    told = view.record(seen, now.me, plan)
    if arguments.json:
        show_json(told)
    else:
        told["plan"] = [str(step) for step in plan] or "nothing to do"
        print(view.columns(list(view.flat(told))), end="")
    return 0


def plan(arguments: Namespace, now: Snapshot) -> int:
    """Tell what a pass would do now."""
    if arguments.vm:
        seen = [existing(now, arguments.vm)]
    else:
        # Entry, claim and unit of a list are not of one moment: what seems to need something is looked at again.
        busy = [one.uuid for one in now.vms(everywhere=False) if now.steps(one)]
        now.look()
        seen = [now.vm(uuid) for uuid in busy]
    steps = [(one, step) for one in seen for step in now.steps(one)]
    if arguments.json:
        show_json([{"uuid": one.uuid, "name": one.name} | asdict(step) for one, step in steps])
    else:
        print("\n".join(f"{label(one.uuid, one.name)}: {step}" for one, step in steps) or "nothing to do")
    return 0


def vnc(arguments: Namespace, now: Snapshot) -> int:
    """Tell where the screen of a VM is, a place in each line."""
    seen = existing(now, arguments.vm)
    try:
        # What has been changed in the entry since the start is not known by it.
        has_socket = (Path(names.runtime_directory(seen.uuid)) / "vnc.sock").is_socket()
    except PermissionError:  # nor by anybody but root
        has_socket = None
    found = view.screens(seen, has_socket=has_socket)
    if not found:
        state = view.state_word(seen.observed)
        raise Unknown(
            f"{arguments.vm}: it has no screen" + (f": its unit here is {state}" if state != "running" else "")
        )
    if arguments.json:
        show_json({"uuid": seen.uuid, "name": seen.name, "screens": found})
    else:
        print("\n".join(found))
    return 0


def existing(now: Snapshot, word: str) -> Seen:
    """Look at the VM that is meant. Raises Wrong."""
    seen = now.vm(now.find(word))
    if isinstance(seen.desired, Gone) and seen.observed.state == State.ABSENT and not seen.claim:
        raise Unknown(f"{word}: there is no such VM: no entry, no claim, no unit on this host")
    return seen


def label(uuid: str, name: str) -> str:
    """Name a VM so that it is found by eye and by uuid."""
    return clean(uuid if name == uuid else f"{uuid} ({name})")


def show_json(value: object) -> None:
    """Print for programs; ASCII, so that no text can do anything to a terminal."""
    print(json.dumps(value, indent=2))
