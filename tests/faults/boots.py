"""What the guests themselves say: that they are up, and how often each disk has been booted from."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from faults.clients import Wish
from system.cluster import Cluster
from system.witness import Run

BOOTED = re.compile(r"TINY-GUEST boot ([0-9]+)w")  # printed when the count is on the disk


def mute(cluster: Cluster) -> list[Run]:
    """List VMs that run, and whose guests have never said that they are up."""
    return [run for run in cluster.witness.runs() if run.gone is None and not _has_booted(cluster, run)]


def told(cluster: Cluster, wishes: Sequence[Wish], since: datetime) -> Counter[tuple[str, str, int]]:
    """Count what guests told: of each disk, by VM and place, how often a boot had that number.

    An image in Ceph is one for all hosts; the others are one on each.
    """
    in_ceph = {wish.uuid for wish in wishes if wish.image}
    seen: Counter[tuple[str, str, int]] = Counter()
    for world in cluster.worlds:
        words = ["journalctl", "--no-pager", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT"]
        words += [f"--since=@{since.timestamp():.0f}", "--grep=TINY-GUEST boot"]
        for line in world.host.run(*words, check=False).stdout.splitlines():
            record = json.loads(line)
            uuid = str(record.get("_SYSTEMD_UNIT", ""))[3:39]
            found = BOOTED.search(str(record.get("MESSAGE", "")))
            if uuid and found:
                seen[uuid, "ceph" if uuid in in_ceph else world.name, int(found[1])] += 1
    return seen


def twice(seen: Counter[tuple[str, str, int]]) -> list[str]:
    """List boots that got one number: two VMs had a disk open at once, or what was written to it was lost."""
    return [
        f"boot {number} of {uuid} on {where}: {times} times" for (uuid, where, number), times in seen.items()
        if times > 1
    ]  # fmt: skip


def _has_booted(cluster: Cluster, run: Run) -> bool:
    world = next(world for world in cluster.worlds if world.name == run.host)
    status = Path(f"/proc/{run.process.pid}/status")
    pids = re.search(r"^NSpid:(.*)", status.read_text(), re.MULTILINE) if status.exists() else None
    # By its pid there: of a run that began when /run was full journald does not know the invocation.
    words = ["journalctl", "--quiet", "--boot", "--lines=1", "--grep=TINY-GUEST boot"]
    words += [f"_SYSTEMD_UNIT=vm-{run.uuid}.service", f"_PID={pids[1].split()[-1] if pids else 0}"]
    return bool(world.host.run(*words, check=False).stdout)
