"""What tests/bench/run does: figures beside what one would do without us, always as ratios within one run."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:1] = [str(HERE), str(HERE.parent)]

from figures import Figure, table, told  # noqa: E402
from plot import plot  # noqa: E402
from rows import ROWS, SMALL, Bench, Sizes  # noqa: E402

from lab import CommandFailed, Lab, LabError, deb, tree  # noqa: E402

SOURCE = HERE.parents[1]
PACKAGES = ("systemd", "dbus", "etcd-server", "qemu-system-x86", "python3")
MEASURED = """
"executing": told by systemd itself, ActiveEnterTimestamp of a Type=exec unit: its exec of QEMU succeeded.
`systemd-run` and the loop make the very same unit: all properties, programs and files.
{machine}; load {load:.1f} before.
p99 of fewer than 100 is the largest. Figures of different machines or runs cannot be compared; ratios in one run can.
"""


def measure(names: list[str], sizes: Sizes) -> list[Figure]:
    package = deb.build(SOURCE)
    found = []
    for name in names:
        with Lab(f"bench-{os.getpid() % 1_000_000}", [tree.host(package), tree.base()]) as lab:
            figures = ROWS[name](Bench(lab, package, sizes))
            print(table(figures), file=sys.stderr, flush=True)  # all of it takes an hour: nothing measured is lost
        found += figures
    return found


def machine() -> str:
    """What was measured on: the machine, its kernel, and what the hosts run."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = ["dpkg-query", "--show", "--showformat=${Package} ${Version}, ", *PACKAGES]
    asked = tree.inside(tree.host(deb.build(SOURCE)), words)
    asked.check_returncode()
    versions = asked.stdout.removesuffix(", ")
    cpu = model[1] if model else os.uname().machine
    return f"{os.cpu_count()} CPUs ({cpu}), {memory:.0f} GiB, Linux {os.uname().release}; {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description="Figures, as ratios within one run.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"what to measure: {', '.join(ROWS)} (all)")
    parser.add_argument("--small", action="store_true", help="little of everything, in a few minutes")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw starts and growth as SVG; needs gnuplot")
    arguments = parser.parse_args()
    if unknown := [row for row in arguments.rows if row not in ROWS]:
        parser.error(f"{unknown[0]}: expected one of {', '.join(ROWS)}")
    rows = arguments.rows or list(ROWS)
    if arguments.plot and not {"systemd-run", "grow"} <= set(rows):
        parser.error("--plot: expected systemd-run and grow among the rows")
    if arguments.plot and not shutil.which("gnuplot"):
        parser.error("--plot: expected gnuplot to be installed (apt install gnuplot-nox)")
    try:
        where, load = machine(), os.getloadavg()[0]
        figures = measure(rows, SMALL if arguments.small else Sizes())
    except (LabError, CommandFailed, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"tests/bench/run: {error}", file=sys.stderr)
        return 1
    if arguments.plot:
        plot(figures, arguments.plot)
    if arguments.json:
        print(json.dumps({"machine": where, "load": load, "figures": [told(one) for one in figures]}, indent=1))
    else:
        print(MEASURED.format(machine=where, load=load))
        print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
