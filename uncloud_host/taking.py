"""The command `takeover`: the VMs of a dead host become another one's, by a person's word.

What still runs there is fenced off from its rbd images. From anything else it cannot be: then somebody has to say that
the host is off.
"""

import time
import uuid as uuids
from argparse import Namespace

from uncloud_host import ceph, takeover, witness
from uncloud_host.asking import ATTEMPTS, Outcome, end, say
from uncloud_host.config import Ceph, Config
from uncloud_host.etcd import Compare
from uncloud_host.facts import Claim, Me
from uncloud_host.models import VM
from uncloud_host.needs import Missing
from uncloud_host.snapshot import Snapshot, Unknown, Wrong


def take(arguments: Namespace, known: Config) -> int:
    """Take over the VMs that are named, or all of a host."""
    if bool(arguments.vms) == bool(arguments.host):
        raise Wrong("expected either VMs or --host")
    now = Snapshot(known)
    name = arguments.to or now.me.host
    to, _ = now.store.alive(name)
    if to is None:
        raise Wrong(f"--to: expected a host whose agent is alive; {name} shows no sign of life")
    found = list(dict.fromkeys(map(now.find, arguments.vms))) if arguments.vms else _of(now, arguments.host, to)
    outcomes = []
    for uuid in found:
        outcomes.append(_take(now, uuid, to, known.ceph, is_off=arguments.host_is_off))
        say(arguments, outcomes[-1])
    return end(arguments, outcomes)


def _of(now: Snapshot, host: str, to: Me) -> list[str]:
    """List what a dead host has claimed. Raises Wrong."""
    alive, _ = now.store.alive(host)
    all_claims = map(now.store.as_claim, now.store.listed(now.store.claims))
    claims = [claim for claim in all_claims if claim.host == host and not claim.is_of(to)]
    if alive and any(claim.is_of(alive) for claim in claims):
        raise Wrong(f"--host: expected a dead host; {host} has shown a sign of life within the last minute")
    if not claims:
        raise Unknown(f"--host: {host} has claimed no VM")
    return [claim.uuid for claim in claims]


def _take(now: Snapshot, uuid: str, to: Me, access: Ceph, *, is_off: bool) -> Outcome:
    for _ in range(ATTEMPTS):
        entry, claim = now.store.read(uuid)
        seen = now.seen(uuid, entry, claim)
        alive, unchanged = now.store.alive(claim.host if claim else to.host)
        reason = takeover.refusal(seen.desired, claim, alive, to)
        if not reason and isinstance(seen.desired, VM) and claim:
            reason, unchanged = _fence(now, seen.desired, claim, to, access, is_off=is_off)
        if reason or entry is None or claim is None:
            return Outcome(uuid, seen.name, "refused", reason)
        new = takeover.taken(claim, seen.desired, to, uuids.uuid4().hex, now=time.time())
        if now.store.take_over(entry, new, unchanged):
            return Outcome(uuid, seen.name, "done", f"is {to.host}'s now, and was {claim.host}'s")
    return Outcome(uuid, seen.name, "refused", "its entry or its claim keeps changing; try again")


def _fence(now: Snapshot, vm: VM, claim: Claim, to: Me, access: Ceph, *, is_off: bool) -> tuple[str, Compare]:
    """Have Ceph refuse whoever has a disk of a VM open, if nothing is in the way of taking it over.

    Say what is, and what must stay as it is until it is taken over.
    """
    unfenced, clients = _clients(vm, access)
    alive, unchanged = now.store.alive(claim.host)  # again: asking Ceph takes its time, and the host may be back
    if reason := takeover.refusal(vm, claim, alive, to):
        return reason, unchanged
    if is_off or not unfenced:
        unfenced += _block(clients, access)
    what = f"{claim.host} may still run it and cannot be kept from that ({'; '.join(unfenced)})"
    return (f"{what}; if that host is off, say so with --host-is-off" if unfenced and not is_off else ""), unchanged


def _clients(vm: VM, access: Ceph) -> tuple[list[str], list[str]]:
    """Say what nobody can be kept from writing to, and why; and who has the rest open, by address."""
    found = [
        f"disks[{index}] is no rbd image"
        for index, disk in enumerate(vm.entry.disks)
        if not disk.rbd and not disk.is_readonly
    ]
    images, clients = witness.disks(vm), []
    if not found and not images:
        return ["it writes to no disk"], []
    try:
        witness.prepare(vm, access)
        for image in images:
            known = ceph.clients(access, image.pool, image.namespace, image.image)
            clients += known
            found += [] if known else [f"{image}: nobody has it open or locked, as far as Ceph knows"]
    except (Missing, ceph.Problem, ceph.Silent) as problem:
        found.append(str(problem))
    return found, clients


def _block(clients: list[str], access: Ceph) -> list[str]:
    """Block them; say what went wrong."""
    try:
        for address in clients:
            ceph.block(access, address)
    except (ceph.Problem, ceph.Silent) as problem:
        return [str(problem)]
    return []
