"""What tests/bench/run does: figures beside what one would do without us, always as ratios within one run."""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[0] = str(TESTS)

from lab import CommandFailed, Lab, LabError, deb, tree  # noqa: E402
from system.world import IMAGES, World  # noqa: E402

SOURCE = TESTS.parent
GOAL = 1.0
SECONDS_EACH = 60.0  # for a pair of starts and stops, on the slowest machine that one would measure on
MEASURED = """
What: from a command to QEMU executing, told by systemd (ActiveEnterTimestamp of a Type=exec unit: its exec succeeded).
A tiny VM with one disk and no nic; {starts} starts each way, in turn; {cpus} CPUs, load {load:.1f} before.
`systemd-run` makes the very same unit: all properties, programs and files, compared line by line. Its own start-up
counts, because whoever types it waits for it; that of etcdctl counts in the last line only.
p99 of fewer than 100 starts is the slowest one.
"""


@dataclass(frozen=True)
class Figure:
    """One line of the table; times in milliseconds."""

    what: str
    starts: int
    median: float
    p99: float
    ratio: float  # of the medians, to systemd-run's


def figure(what: str, seconds: list[float], base: list[float]) -> Figure:
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    median = statistics.median(ordered)
    return Figure(what, len(ordered), median * 1000, p99 * 1000, median / statistics.median(base))


def starts(world: World, count: int) -> list[Figure]:
    """`etcdctl put` acknowledged -> QEMU executing, beside `systemd-run` of the same unit."""
    world.host.push(TESTS / "bench/starts.py", "/root/starts.py")
    image = f"{IMAGES}/bench.img"
    world.host.run("install", "-m600", "/root/tiny.img", image)
    words = ["python3", "/root/starts.py", world.name, str(count), image]
    with world.host.popen(*words, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=(count + 1) * SECONDS_EACH)
    if process.returncode:
        raise LabError(f"starts.py: exit status {process.returncode}")
    found = json.loads(out)
    ours, theirs = found["etcd"], [one["typed"] for one in found["systemd-run"]]
    return [
        figure("systemd-run typed -> QEMU executing", theirs, theirs),
        figure("etcdctl put acknowledged -> QEMU executing", [one["acknowledged"] for one in ours], theirs),
        figure("etcdctl put typed -> QEMU executing", [one["typed"] for one in ours], theirs),
    ]


def measure(count: int) -> list[Figure]:
    package = deb.build(SOURCE)
    with Lab(f"bench-{os.getpid() % 1_000_000}", [tree.host(package), tree.base()]) as lab:
        world = World(lab.host("vmhost1"))
        world.host.boot()
        world.install(package, UNCLOUD_MAIL_TO="")  # mails would be sent while others are measured
        world.wait_ready()
        return starts(world, count)


def table(figures: list[Figure]) -> str:
    lines = [f"{'':44} {'starts':>6} {'median':>10} {'p99':>10} {'ratio':>6}"]
    for one in figures:
        times = f"{one.median:7.1f} ms {one.p99:7.1f} ms"
        lines.append(f"{one.what:44} {one.starts:6} {times} {one.ratio:6.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description="Figures, as ratios within one run.")
    parser.add_argument("--starts", type=int, default=30, metavar="N", help="how often a VM is started each way (30)")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    arguments = parser.parse_args()
    if arguments.starts < 1:
        parser.error("--starts: expected an integer from 1 up")
    load = os.getloadavg()[0]
    try:
        figures = measure(arguments.starts)
    except (LabError, CommandFailed, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"tests/bench/run: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        told = [vars(one) for one in figures]
        print(json.dumps({"goal": GOAL, "cpus": os.cpu_count(), "load": load, "figures": told}, indent=1))
        return 0
    print(MEASURED.format(starts=arguments.starts, cpus=os.cpu_count(), load=load))
    print(table(figures))
    print(f"\nThe goal is a ratio of {GOAL:g} or less for the second line.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
