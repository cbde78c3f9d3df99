"""What was done in storms and what was looked at, as a table for people."""

import re
from collections import Counter
from dataclasses import dataclass, field

from faults.truth import Truth
from system.world import World

GROWTH = {"fds": 6, "threads": 2, "memory": 12}  # what an agent may hold more than after its first storm, or MiB


@dataclass(frozen=True, slots=True)
class Usage:
    """What an agent holds: it must not grow."""

    fds: int
    threads: int
    memory: float  # MiB, proportional set size
    kinds: Counter[str]  # of descriptors

    def grown(self, first: "Usage") -> list[str]:
        """Say what it holds too much of, compared with an earlier look."""
        return [
            f"{name}: {first}, and now {self}"
            for name, more in GROWTH.items()
            if getattr(self, name) > getattr(first, name) + more
        ]


@dataclass(slots=True)
class Tally:
    """Counts of one or more storms."""

    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    storms: int = 0
    seconds: float = 0.0
    settled: list[float] = field(default_factory=list)  # seconds from the last fault until all was as asked
    usages: list[Usage] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)

    def seen(self, truth: Truth, changes: int, boots: int) -> None:
        """Remember how much was looked at."""
        self.looked = {
            "runs": len(truth.runs), "changes": changes, "records": len(truth.records),
            "runtimes": len(truth.runtimes), "mailed": len(truth.mailed), "boots": boots,
        }  # fmt: skip

    def __str__(self) -> str:
        first, last = self.usages[0], self.usages[-1]
        looked = self.looked
        invariants = {
            "no VM ran twice at one moment": f"{looked['runs']} runs seen in /proc",
            "no two boots wrote the same to one disk": f"{looked['boots']} boots told by guests",
            "no VM ended without a cause": f"{looked['runs']} runs",
            "no user's write was lost or undone": f"{looked['changes']} changes of entries in etcd's history",
            "all was as asked, nothing left over": f"within {max(self.settled):.0f} s of each storm's last fault",
            "each beginning and end was logged once": f"{looked['records']} records",
            "each was mailed": f"{looked['mailed']} events in mails",
            "how long each VM ran was right": f"{looked['runtimes']} records",
            "the agent that was never killed did not grow": f"{first.fds} to {last.fds} descriptors,"
            f" {first.threads} to {last.threads} threads, {first.memory:.0f} to {last.memory:.0f} MiB",
        }
        lines = [f"{self.seconds / 60:.0f} minutes of {self.storms} storms"]
        for title, counts in (("fault", self.faults), ("asked by users", self.operations)):
            lines += ["", f"{title:50} times", *(f"  {name:48} {times:5}" for name, times in sorted(counts.items()))]
            lines.append(f"  {'in all':48} {sum(counts.values()):5}")
        lines += ["", "held", *(f"  {name:48} {what}" for name, what in invariants.items())]
        return "\n".join(lines)


def usage(world: World) -> Usage:
    """Read what the agent of a host holds."""
    pid = world.host.run("systemctl", "show", "-P", "MainPID", "uncloud-host").stdout.strip()
    told = world.shell(f"ls /proc/{pid}/task | wc -l; grep ^Pss: /proc/{pid}/smaps_rollup; readlink /proc/{pid}/fd/*")
    threads, pss, *fds = told.splitlines()
    # It follows each VM's recorder.
    kinds = Counter(re.sub("[0-9a-f-]{36}|[0-9]+", "N", fd) for fd in fds if not fd.endswith("events.json"))
    return Usage(kinds.total(), int(threads), int(pss.split()[1]) / 1024, kinds)
