"""Runs on a host: start N VMs at once through etcd, and by a bare loop of StartTransientUnit; print one JSON object.

    python3 burst.py HOST N ROUNDS

The loop is the limit of what systemd can do: the very same properties, made beforehand, sent over one connection, with
no agent, no etcd and no claim. Both end when the last unit is active, told by systemd itself.
"""

import json
import os
import sys
import time
from pathlib import Path

from here import all_active, delete_all, disk, entry, put_all, run, settled, statuses, uuids, wait

from uncloud_host import config, limits, unit
from uncloud_host.models import VM, parse
from uncloud_host.systemd import Systemd
from uncloud_host.unit import Evidence

DEFAULTS = Path("/etc/default/uncloud-host")
Unit = tuple[str, list[tuple[str, unit.Value]]]


def through_etcd(host: str, vms: list[str]) -> dict[str, float]:
    """Put them all; they are there as soon as etcd has the first hundred."""
    put = time.monotonic()
    put_all((f"/v1/vm/{me}", entry(host, me)) for me in vms)
    last, answer = all_active(len(vms))
    wait(lambda: statuses().count("RUNNING") == len(vms), "all entries say RUNNING", every=0.1)
    told = time.monotonic()
    put_all((f"/v1/vm/{me}", entry(host, me, status="TO_STOP")) for me in vms)
    wait(lambda: statuses().count("STOP") == len(vms), "all entries say STOP", every=0.5)
    delete_all(f"/v1/vm/{me}" for me in vms)
    settled()
    return {"active": last - put, "told": told - put, "answer": answer}


def by_a_loop(units: list[Unit]) -> dict[str, float]:
    """Start them with nothing between."""
    run("systemctl", "stop", "uncloud-host")
    systemd = Systemd()
    began = time.monotonic()
    for name, properties in units:
        systemd.start(name, properties)
    sent = time.monotonic()
    last, _ = all_active(len(units))
    run("systemctl", "stop", "vm-*.service")
    run("systemctl", "start", "uncloud-host")
    settled()
    return {"active": last - began, "sent": sent - began}


def units(host: str, vms: list[str]) -> list[Unit]:
    """What the agent would send, but for the claims."""
    known = config.read(config.variables(DEFAULTS.read_text()) | dict(os.environ))
    made = []
    for me in vms:
        vm = VM(me, parse(entry(host, me).encode()), 1, 1)
        marker = Evidence(host, me, 1, vm.entry.fingerprint(), vm.name, "", limits.fingerprint(vm))
        made.append((unit.name(me), unit.properties(vm, known.choices.with_vnc(None), known.units, marker)))
    return made


def main() -> None:
    host, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found: dict[str, list[dict[str, float]]] = {"etcd": [], "loop": []}
    vms = uuids(count)
    for me in vms:
        disk(me)
    for number in range(rounds + 1):
        both = through_etcd(host, vms), by_a_loop(units(host, vms))
        if number:  # the first warms caches
            found["etcd"].append(both[0])
            found["loop"].append(both[1])
        print(f"bench: {count} at once, {number} of {rounds}", file=sys.stderr, flush=True)
    print(json.dumps(found))


main()
