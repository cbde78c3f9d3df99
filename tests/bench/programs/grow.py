"""Runs on a host: what a start, the agent and its list cost as the number of VMs grows; print one JSON object.

    python3 grow.py HOST SECONDS N...

Instead of QEMU a program that does nothing: a thousand QEMUs want more memory than this is about.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from here import active, delete_all, entry, memory, put_all, run, statuses, usage, uuids, value, wait

AGENT = "uncloud-host.service"
QEMU = Path("/usr/bin/qemu-system-x86_64")
NOTHING = "#!/bin/sh\nexec sleep infinity\n"
STARTS = 10


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


def timed(*command: str) -> float:
    began = time.monotonic()
    run(*command)
    return time.monotonic() - began


def look(host: str, seconds: float) -> dict[str, float]:
    before, began = usage(AGENT), time.monotonic()
    time.sleep(seconds)  # what is measured is time in which nothing happens
    idle = 100 * (usage(AGENT) - before) / (time.monotonic() - began)
    start = statistics.median(one_more(host) for _ in range(STARTS))
    return {"idle": idle, "memory": memory(AGENT), "start": start, "list": timed("uncloud-host", "ls", "--json")}


def main() -> None:
    host, seconds, sizes = sys.argv[1], float(sys.argv[2]), [int(word) for word in sys.argv[3:]]
    QEMU.unlink()
    QEMU.write_text(NOTHING)
    QEMU.chmod(0o755)
    found: dict[int, dict[str, float]] = {}
    vms: list[str] = []
    for size in sizes:
        new = uuids(size - len(vms))
        vms += new
        put_all(bare(host, me) for me in new)
        wait(lambda size=size: statuses().count("RUNNING") == size, f"{size} run", every=1)
        found[size] = look(host, seconds)
        print(f"bench: {size} VMs", file=sys.stderr, flush=True)
    print(json.dumps(found))


main()
