"""Runs on a host: what the agent costs with N VMs and M entries of other hosts in etcd; print one JSON object.

    python3 idle.py HOST N M SECONDS

In this order: memory and CPU with nothing to do; the same of PID 1 and the bus with and without the agent; M changes of
other hosts; the agent's restart.
"""

import json
import sys
import time
from pathlib import Path

from here import (
    active,
    claims,
    delete_all,
    disk,
    entry,
    memory,
    others,
    presence,
    put_all,
    run,
    settled,
    statuses,
    usage,
    uuids,
    value,
    wait,
)

AGENT, BUS = "uncloud-host.service", "dbus.service"
TICKS = 100  # a second, of /proc/PID/stat


def used(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def idle(seconds: float) -> dict[str, float]:
    """Percent of a core that each uses, over some seconds."""
    began, before = time.monotonic(), clocks()
    time.sleep(seconds)  # what is measured is time in which nothing happens
    after, took = clocks(), time.monotonic() - began
    return {name: 100 * (after[name] - before[name]) / took for name in before}


def clocks() -> dict[str, float]:
    """CPU seconds of each."""
    found = {"pid1": used(1), "bus": used(int(value(BUS, "MainPID")))}
    return found | ({"agent": usage(AGENT)} if value(AGENT, "ActiveState") == "active" else {})


def digested(count: int) -> float:
    """Changes of other hosts that a core of the agent digests in a second."""
    before = usage(AGENT)
    others(2, count)
    quiet = usage(AGENT)
    while True:
        time.sleep(1)  # a second in which it used next to nothing: it has nothing more to do
        if usage(AGENT) - quiet < 0.02:
            return count / (usage(AGENT) - before)
        quiet = usage(AGENT)


def restarted() -> float:
    """Seconds from the agent's new process until it has made its first full pass, which is when it is ready."""
    run("systemctl", "restart", AGENT)
    began, ready = (
        int(value(AGENT, f"{name}Monotonic")) for name in ("ExecMainStartTimestamp", "ActiveEnterTimestamp")
    )
    return (ready - began) / 1e6


def main() -> None:
    host, count, entries, seconds = sys.argv[1], *map(int, sys.argv[2:])
    vms = uuids(count)
    for me in vms:
        disk(me)
    put_all((f"/v1/vm/{me}", entry(host, me)) for me in vms)
    wait(lambda: statuses().count("RUNNING") == count, "all run", every=1)
    found: dict[str, object] = {"memory_before": memory(AGENT)}
    presence(host)
    others(1, entries)
    claims(entries)
    wait(lambda: len(active("vm-*.service")) == count, "all are active", every=1)
    found["memory"], found["idle"] = memory(AGENT), idle(seconds)
    found["digested"] = digested(entries)
    pids = {value(f"vm-{me}.service", "MainPID") for me in vms}
    found["restart"] = [restarted() for _ in range(3)]
    assert {value(f"vm-{me}.service", "MainPID") for me in vms} == pids, "VMs were touched"
    found["memory_after_restart"] = memory(AGENT)
    run("systemctl", "stop", AGENT)
    found["idle_without"] = idle(seconds)
    run("systemctl", "start", AGENT)
    put_all((f"/v1/vm/{me}", entry(host, me, status="TO_STOP")) for me in vms)
    wait(lambda: not active("vm-*.service"), "all have stopped", every=1)
    delete_all(f"/v1/vm/{me}" for me in vms)
    settled()
    print(json.dumps(found))


main()
