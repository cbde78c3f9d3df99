"""The figures as a picture: how long starts take, and what grows with the number of VMs. Drawn by gnuplot."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from figures import Figure

STARTS = {
    "systemd-run typed -> QEMU executing": "systemd-run",
    "etcdctl put acknowledged -> QEMU executing": "uncloud-host",
    "virsh create --paused": "virsh create",
}
GROWTH = {
    "put acknowledged -> one more executing": "start of one more (ms)",
    "uncloud-host ls": "uncloud-host ls (ms)",
    "memory of the agent (PSS)": "memory of the agent (MiB)",
}
SCRIPT = """
set terminal svg size 900,380 font "sans,12" background "white"
set output {file}
set multiplot layout 1,2
set key below
set title "one start, of 100 so many are done"
set xlabel "ms"; set logscale x; set xrange [10:1000]; set yrange [0:100]; set grid
plot {starts}
set title "as the number of VMs of a host grows"
set xlabel "VMs"; set xrange [*:*]; set logscale xy; set yrange [1:*]
plot {growth}
"""


def plot(figures: Sequence[Figure], file: Path) -> None:
    """Write an SVG; raise CalledProcessError if gnuplot cannot."""
    blocks: list[str] = []
    starts = [_curve(blocks, label, _distribution(found)) for label, found in _named(figures, STARTS)]
    growth = [_curve(blocks, label, _by_number(figures, what), "linespoints") for what, label in GROWTH.items()]
    script = SCRIPT.format(file=f"'{file}'", starts=", ".join(starts), growth=", ".join(growth))
    subprocess.run(["gnuplot"], input="\n".join(blocks) + script, text=True, check=True)


def _named(figures: Sequence[Figure], labels: dict[str, str]) -> list[tuple[str, Figure]]:
    found = {one.what: one for one in figures}
    return [(label, found[what]) for what, label in labels.items() if what in found]


def _distribution(figure: Figure) -> list[tuple[float, float]]:
    ordered = sorted(figure.samples)
    return [(one, 100 * (index + 1) / len(ordered)) for index, one in enumerate(ordered)]


def _by_number(figures: Sequence[Figure], what: str) -> list[tuple[float, float]]:
    found = [(re.fullmatch(rf"([0-9]+) VMs: {re.escape(what)}", one.what), one.median) for one in figures]
    return [(float(match[1]), median) for match, median in found if match]


def _curve(blocks: list[str], label: str, points: Sequence[tuple[float, float]], kind: str = "steps") -> str:
    name = f"$data{len(blocks)}"
    blocks.append(f"{name} << EOD\n" + "".join(f"{x} {y}\n" for x, y in points) + "EOD")
    return f"{name} with {kind} linewidth 2 title '{label}'"
