"""Runs on a host: what a start, the agent, its list and an audit cost as the number of VMs grows, with M entries and
claims of other hosts in etcd; print one JSON object.

    python3 grow.py HOST M SECONDS N...

Instead of QEMU a program that does nothing: a thousand QEMUs want more memory than this is about.
"""

import json
import sys
import time
from pathlib import Path

from here import (
    active,
    claims,
    delete_all,
    entry,
    memory,
    others,
    presence,
    put_all,
    run,
    timed,
    usage,
    uuids,
    value,
    wait,
)

AGENT = "uncloud-host.service"
QEMU = Path("/usr/bin/qemu-system-x86_64")
NOTHING = "#!/bin/sh\nexec sleep infinity\n"
STARTS, LOOKS = 10, 5


def bare(host: str, me: str) -> tuple[str, str]:
    return f"/v1/vm/{me}", entry(host, me, disks=[])


def one_more(host: str) -> float:
    """Seconds from an acknowledged put until systemd has executed one VM more."""
    (me,) = uuids(1)
    put_all([bare(host, me)])
    acknowledged, unit = time.monotonic(), f"vm-{me}.service"
    wait(lambda: active(unit), f"{unit} is active")
    took = active(unit)[0] - acknowledged
    delete_all([f"/v1/vm/{me}"])
    wait(lambda: value(unit, "ActiveState") == "inactive", f"{unit} is gone")
    return took


def running() -> int:
    """How many VMs of this host run, and have been told to."""
    return run("uncloud-host", "ls", "--json").count('"asked": "RUNNING"')


def look(host: str, seconds: int) -> dict[str, object]:
    before, began = usage(AGENT), time.monotonic()
    time.sleep(seconds)  # what is measured is time in which nothing happens
    idle = 100 * (usage(AGENT) - before) / (time.monotonic() - began)
    return {
        "idle": idle,
        "memory": memory(AGENT),
        "start": [one_more(host) for _ in range(STARTS)],
        "list": [timed("uncloud-host", "ls", "--json") for _ in range(LOOKS)],
        "audit": [timed("uncloud-host", "audit", "--json") for _ in range(LOOKS)],
        "get": [timed("etcdctl", "get", "--prefix", "/v1/vm/") for _ in range(LOOKS)],
    }


def main() -> None:
    host, entries, seconds, *sizes = sys.argv[1], *map(int, sys.argv[2:])
    QEMU.unlink()
    QEMU.write_text(NOTHING)
    QEMU.chmod(0o755)
    presence(host)
    others(1, entries)
    claims(entries)
    found: dict[int, dict[str, object]] = {}
    vms: list[str] = []
    for size in sizes:
        new = uuids(size - len(vms))
        vms += new
        put_all(bare(host, me) for me in new)
        wait(lambda size=size: running() == size, f"{size} run", every=1)
        found[size] = look(host, seconds)
        print(f"bench: {size} VMs", file=sys.stderr, flush=True)
    print(json.dumps(found))


main()
