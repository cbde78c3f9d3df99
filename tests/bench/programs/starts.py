"""Runs on a host: start the same VM N times through etcd and N times by systemd-run, in turn; print one JSON object.

    python3 starts.py HOST N IMAGE

Both ways end at the same moment, told by systemd itself: ActiveEnterTimestampMonotonic of the unit, which for Type=exec
is when PID 1 has seen that the exec of QEMU succeeded. They begin at the clock of this program: the same.
"""

import json
import re
import sys
import time
import urllib.request
import uuid
from pathlib import Path

from here import active, run, settled, value, wait

METRICS = "http://127.0.0.1:9477/metrics"


def began(unit: str) -> float:
    """When QEMU was executing, in seconds of the monotonic clock."""
    wait(lambda: active(unit), f"{unit} is active")
    return active(unit)[0]


def listening(uuid: str) -> None:
    """Wait for QEMU's own socket: looking for a file disturbs nobody who is being measured."""
    wait(Path(f"/run/uncloud-vm/{uuid}/qmp.sock").exists, f"QEMU of {uuid} listens")


def gone(unit: str) -> None:
    wait(lambda: value(unit, "ActiveState") in ("inactive", "failed"), f"{unit} has ended")


def status(uuid: str) -> str:
    found = run("etcdctl", "get", "--print-value-only", f"/v1/vm/{uuid}")
    return str(json.loads(found).get("status", "")) if found else ""


def through_etcd(host: str, image: str) -> tuple[dict[str, float], list[str], list[str]]:
    """Put an entry, as a user does, with one etcdctl; also give the unit and QEMU's argv that came of it."""
    me = str(uuid.uuid4())
    entry = {"host": host, "memory": 16, "stop_timeout": 1, "disks": [{"file": image}]}
    typed = time.monotonic()
    run("etcdctl", "put", f"/v1/vm/{me}", text=json.dumps(entry))
    acknowledged = time.monotonic()
    listening(me)
    unit = f"vm-{me}.service"
    executing = began(unit)
    figures = {"acknowledged": executing - acknowledged, "typed": executing - typed, "etcdctl": acknowledged - typed}
    wait(lambda: status(me) == "RUNNING", "the entry says RUNNING")
    settings = transient(unit, me)
    argv = Path(f"/proc/{value(unit, 'MainPID')}/cmdline").read_text().replace(me, "UUID").split("\0")[:-1]
    run("etcdctl", "put", f"/v1/vm/{me}", text=json.dumps(entry | {"status": "TO_STOP"}))
    wait(lambda: status(me) == "STOP", "the entry says STOP")
    run("etcdctl", "del", f"/v1/vm/{me}")
    settled()
    return figures, settings, argv


def transient(unit: str, me: str) -> list[str]:
    """Read a transient unit's settings from the file that systemd keeps of it, with UUID for the VM's own."""
    text = Path(f"/run/systemd/transient/{unit}").read_text().replace(me, "UUID")
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    names = [line.partition("=")[0] for line in lines]
    kept = []
    for index, line in enumerate(lines):
        name, _, value = line.partition("=")
        reset = not value and name in names[index + 1 :]  # systemd empties a list before it fills it
        if not reset and line != "StandardInput=file" and (name != "ExecStart" or value):
            kept.append(line)
    return kept


def by_systemd_run(settings: list[str], argv: list[str]) -> dict[str, float]:
    """Start the same unit under another name, as one would from a shell."""
    me = str(uuid.uuid4())
    unit = f"bench-{me}.service"  # not vm-*: the agent would find a VM that nobody asked for
    words = [option(line.replace("UUID", me)) for line in settings if not line.startswith("ExecStart=")]
    command = ["systemd-run", "--quiet", f"--unit={unit}", *words, "--", *(word.replace("UUID", me) for word in argv)]
    typed = time.monotonic()
    run(*command)
    returned = time.monotonic()
    listening(me)
    executing = began(unit)
    same(settings, transient(unit, me))
    run("systemctl", "stop", unit)
    gone(unit)
    settled()
    return {"typed": executing - typed, "returned": returned - typed}


def option(line: str) -> str:
    """Say a line of a unit file to systemd-run; a Description= property would come on top of its own."""
    name, _, value = line.replace("%%", "%").partition("=")
    if name == "PrivateTmp":  # systemd-run 257 takes that for yes or no
        name = "PrivateTmpEx"
    return f"--description={value}" if name == "Description" else f"--property={name}={value}"


def same(ours: list[str], theirs: list[str]) -> None:
    """Make sure that the two are compared for doing the same."""
    different = set(map(plain, ours)) ^ set(map(plain, theirs))
    if different:
        raise SystemExit("systemd-run made another unit:\n" + "\n".join(sorted(different)))


def plain(line: str) -> str:
    return re.sub(r'["\\]', "", line)


def steps() -> dict[str, float]:
    """Seconds that each step of the agent's own part took, in the mean of all starts, from its metrics."""
    with urllib.request.urlopen(METRICS, timeout=10) as answer:
        text = answer.read().decode()
    sums, counts = (
        dict(re.findall(rf'^uncloud_start_step_seconds_{kind}{{step="([a-z]+)"}} (\S+)$', text, re.MULTILINE))
        for kind in ("sum", "count")
    )
    return {step: float(sums[step]) / float(counts[step]) for step in counts}


def main() -> None:
    host, count, image = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    found: dict[str, list[dict[str, float]]] = {"etcd": [], "systemd-run": []}
    _, settings, argv = through_etcd(host, image)  # the first of each warms caches and is not counted
    by_systemd_run(settings, argv)
    for number in range(count):
        figures, settings, argv = through_etcd(host, image)
        found["etcd"].append(figures)
        found["systemd-run"].append(by_systemd_run(settings, argv))
        print(f"bench: {number + 1} of {count}", file=sys.stderr, flush=True)
    print(json.dumps(found | {"steps": steps()}))


main()
