"""The commands that ask for something: start, stop, restart, confirm. They write to etcd; the agents do the rest."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

from uncloud_host.desired import read
from uncloud_host.etcd import EtcdError, KeyValue
from uncloud_host.events import clean
from uncloud_host.facts import Gone, Invalid, Me
from uncloud_host.looking import label, show_json
from uncloud_host.models import Status
from uncloud_host.patch import patched
from uncloud_host.snapshot import Snapshot, Wrong
from uncloud_host.systemd import SystemdError
from uncloud_host.unit import State
from uncloud_host.view import Seen, state_word

ATTEMPTS = 5  # writes that may be overtaken by somebody else's
PAUSE = 0.2  # seconds between looks
WAIT = 300.0  # seconds, if nothing else is said


class Wish(NamedTuple):
    """What is written, and what it will have become when it is done."""

    ask: Status
    goal: Status


WISHES = {
    "start": Wish(Status.TO_START, Status.RUNNING),
    "stop": Wish(Status.TO_STOP, Status.STOP),
    "restart": Wish(Status.TO_RESTART, Status.RUNNING),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one VM."""

    uuid: str
    name: str
    result: Literal["asked", "done", "held", "refused", "failed", "timeout"]
    text: str

    @property
    def is_good(self) -> bool:
        """Tell whether nobody has to do anything about it."""
        return self.result in ("asked", "done", "held")


def ask(arguments: Namespace, now: Snapshot) -> int:
    """Write the wanted status into entries, and wait for it if asked to."""
    if arguments.timeout is not None and not arguments.wait:
        raise Wrong("--timeout: expected together with --wait")
    uuids = list(dict.fromkeys(map(now.find, arguments.vms)))  # all of them, before anything is written
    wish, outcomes = WISHES[arguments.command], []
    for uuid in uuids:
        outcomes.append(_ask(now, uuid, wish))
        say(arguments, outcomes[-1])
    return end(arguments, _wait(now, outcomes, wish, arguments) if arguments.wait else outcomes)


def _ask(now: Snapshot, uuid: str, wish: Wish) -> Outcome:
    for _ in range(ATTEMPTS):
        entry, claim = now.store.read(uuid)
        seen = now.seen(uuid, entry, claim)
        if entry is None:
            return Outcome(uuid, seen.name, "refused", "it has no entry in etcd")
        if problem := _problem(uuid, entry, wish.ask):
            return Outcome(uuid, seen.name, "refused", problem)
        if _is_fulfilled(seen, wish, now.me):
            return Outcome(uuid, seen.name, "done", f"is {wish.goal} already, nothing is written")
        # The reason is that of an older status: beside the new one it would look like its failure.
        if now.store.set_status(entry, {"status": str(wish.ask), "status_reason": None}):
            return Outcome(uuid, seen.name, "asked", f"{wish.ask} is written")
    return Outcome(uuid, seen.name, "refused", "somebody else keeps writing its entry; try again")


def _is_fulfilled(seen: Seen, wish: Wish, me: Me) -> bool:
    """Tell whether nothing would happen. Of another host's VM only the status is known."""
    if wish.ask == Status.TO_RESTART or seen.word("status") != wish.goal:
        return False
    as_wished = State.ABSENT if wish.ask == Status.TO_STOP else State.RUNNING
    return state_word(seen.observed) == as_wished or not seen.concerns(me)


def _problem(uuid: str, entry: KeyValue, status: Status) -> str:
    """Say why no agent would act on the entry with this status; it may be that which makes it valid."""
    value = entry.value
    with suppress(ValueError, RecursionError):
        value = patched(value, {"status": str(status)})
    desired = read(uuid, entry._replace(value=value))
    return desired.reason if isinstance(desired, Invalid) else ""


def _wait(now: Snapshot, outcomes: Sequence[Outcome], wish: Wish, arguments: Namespace) -> list[Outcome]:
    """Wait until each VM that was asked for has come to an end, and show the way there."""
    seconds = WAIT if arguments.timeout is None else arguments.timeout
    deadline = time.monotonic() + seconds
    found, said = {one.uuid: one for one in outcomes}, dict[str, str]()
    while waiting := [uuid for uuid, one in found.items() if one.result == "asked"]:
        is_late, trouble = time.monotonic() >= deadline, None
        try:
            now.look()
            for uuid in waiting:
                seen = now.vm(uuid)
                stands = _stands(seen, now.me)
                late = replace(found[uuid], result="timeout", text=f"not {wish.goal} within {seconds:g} s: {stands}")
                found[uuid] = judged(seen, wish) or (late if is_late else found[uuid])
                if said.get(uuid) != stands:
                    said[uuid] = stands
                    say(arguments, replace(found[uuid], result="asked", text=stands))
                if found[uuid].result != "asked":
                    say(arguments, found[uuid])
        except (EtcdError, SystemdError) as error:  # it may come back: the wish is written, and VMs are not concerned
            trouble = error
        if is_late and trouble:
            raise trouble
        time.sleep(0 if is_late else PAUSE)
    return list(found.values())


def _stands(seen: Seen, me: Me) -> str:
    reason = f" ({seen.word('status_reason')})" if seen.word("status_reason") else ""
    here = f", {state_word(seen.observed)} on this host" if seen.concerns(me) else ""
    return f"{seen.word('status') or 'without a status'}{reason}{here}"


def judged(seen: Seen, wish: Wish) -> Outcome | None:
    """Tell what became of a wish; None while that is open."""
    status, reason = seen.word("status"), seen.word("status_reason")
    if isinstance(seen.desired, Gone):
        return Outcome(seen.uuid, seen.name, "failed", "its entry was deleted")
    if isinstance(seen.desired, Invalid):
        return Outcome(seen.uuid, seen.name, "failed", seen.desired.reason)
    if status == wish.goal:
        return Outcome(seen.uuid, seen.name, "done", f"is {status}")
    if status == wish.ask:
        return None
    return Outcome(seen.uuid, seen.name, "failed", f"is {status or 'without a status'}{reason and f': {reason}'}")


def confirm(arguments: Namespace, now: Snapshot) -> int:
    """End holds by a person's word."""
    if arguments.vms and arguments.all:
        raise Wrong("--all: expected without VMs")
    held = [claim.uuid for claim in now.store.claims_of(now.me) if claim.held]
    named = [now.find(word) for word in arguments.vms] or (held if arguments.all else [])
    outcomes = [_confirm(now, uuid) for uuid in dict.fromkeys(named)]
    outcomes = outcomes or [Outcome(uuid, now.vm(uuid).name, "held", "is held") for uuid in held]
    for one in outcomes:
        say(arguments, one)
    if not named:
        what = "name those that are really to go, or give --all" if held else "nothing is held on this host"
        print(what, file=sys.stderr)
    return end(arguments, outcomes)


def _confirm(now: Snapshot, uuid: str) -> Outcome:
    for _ in range(ATTEMPTS):
        seen = now.vm(uuid)
        if seen.claim is None or not seen.claim.held:
            return Outcome(uuid, seen.name, "refused", "it is not held")
        if now.store.confirm(seen.claim):
            return Outcome(uuid, seen.name, "done", "is held no more; what etcd says is done")
    return Outcome(uuid, seen.name, "refused", "its claim keeps changing; try again")


def say(arguments: Namespace, one: Outcome) -> None:
    """Print a line as soon as it is known; for programs the object at the end says it."""
    is_aside = arguments.json or not one.is_good
    line = clean(f"{'' if one.is_good else 'uncloud-host: '}{label(one.uuid, one.name)}: {one.text}")
    print(line, file=sys.stderr if is_aside else sys.stdout, flush=True)


def end(arguments: Namespace, outcomes: Sequence[Outcome]) -> int:
    """Say all for programs; return the exit status."""
    is_good = all(one.is_good for one in outcomes)
    if arguments.json:
        show_json({"command": arguments.command, "ok": is_good, "vms": [asdict(one) for one in outcomes]})
    return 0 if is_good else 1
