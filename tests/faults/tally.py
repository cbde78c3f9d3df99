"""What was done in storms and what was looked at, as a table for people."""

import re
import time
from collections import Counter
from dataclasses import dataclass, field

from faults.truth import Truth
from system.world import World

SPINS = 0.2  # of a core, over a storm: who works in storms needs 0.03
GROWTH = {"fds": 6, "threads": 6, "memory": 12}  # more than after its first storm: gRPC's own come and go


@dataclass(frozen=True, slots=True)
class Usage:
    """What an agent holds and what it has used: it must not grow, nor spin."""

    fds: int
    threads: int
    memory: float  # MiB that are its own: of shared files PSS counts more as soon as others end
    kinds: Counter[str]  # of descriptors and threads
    cpu: float  # seconds
    time: float  # on time.monotonic's clock

    def too_much(self, first: "Usage", last: "Usage") -> list[str]:
        """Say what it holds too much of, compared with the first look, or has used since the last one."""
        grown = [name for name, more in GROWTH.items() if getattr(self, name) > getattr(first, name) + more]
        spins = ["cpu"] if self.share(last) > SPINS else []
        return [f"{name}: first {first}, then {last}, and now {self}" for name in grown + spins]

    def share(self, last: "Usage") -> float:
        """How much of a core it has used since then."""
        return (self.cpu - last.cpu) / (self.time - last.time) if self.time > last.time else 0.0


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
    _records: set[str] = field(default_factory=set)  # by id; etcd loses some
    _runtimes: set[str] = field(default_factory=set)  # by invocation

    def seen(self, truth: Truth, changes: int, boots: int) -> None:
        """Remember how much was looked at."""
        self._records |= {record["id"] for record in truth.records}
        self._runtimes |= {record["invocation"] for record in truth.runtimes}
        self.looked = {
            "runs": len(truth.runs), "changes": changes, "records": len(self._records),
            "runtimes": len(self._runtimes), "mailed": len(truth.mailed), "boots": boots,
        }  # fmt: skip

    def too_much(self) -> list[str]:
        """Say what the agent that lives all the time has too much of."""
        return self.usages[-1].too_much(self.usages[0], self.usages[-2]) if len(self.usages) > 1 else []

    def __str__(self) -> str:
        lines = [f"{self.seconds / 60:.0f} minutes of {self.storms} storms"]
        for title, counts in (("fault", self.faults), ("asked by users", self.operations)):
            lines += ["", f"{title:50} times", *(f"  {name:48} {times:5}" for name, times in sorted(counts.items()))]
            lines.append(f"  {'in all':48} {sum(counts.values()):5}")
        held = self._held() if self.looked else {"nothing has been looked at yet": ""}
        return "\n".join([*lines, "", "held", *(f"  {name:48} {what}" for name, what in held.items())])

    def _held(self) -> dict[str, str]:
        """Name the invariants that held up to the last look, and of how much."""
        first, last, looked = self.usages[0], self.usages[-1], self.looked
        return {
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
            "  its memory after each storm, MiB": " ".join(f"{one.memory:.1f}" for one in self.usages),
            "and did not spin": f"{100 * last.share(first):.0f} % of a core in the mean",
        }


def usage(world: World) -> Usage:
    """Read what the agent of a host holds."""
    shown = world.host.run("systemctl", "show", "--property=MainPID,CPUUsageNSec", "uncloud-host").stdout
    about = dict(line.split("=") for line in shown.splitlines())
    pid, cpu = about["MainPID"], int(about["CPUUsageNSec"]) / 1e9
    directory = f"/proc/{pid}"
    threads = world.shell(f"cat {directory}/task/*/comm", check=False).splitlines()  # some end meanwhile
    own = re.search(r"^Anonymous: *([0-9]+) kB", world.shell(f"cat {directory}/smaps_rollup"), re.MULTILINE)
    assert own
    # It follows each VM's recorder.
    links = world.shell(f"readlink {directory}/fd/*", check=False).splitlines()
    fds = [fd for fd in links if not fd.endswith("events.json")]
    kinds = Counter(re.sub("[0-9a-f-]{36}|[0-9]+", "N", one) for one in fds + threads)
    return Usage(len(fds), len(threads), int(own[1]) / 1024, kinds, cpu, time.monotonic())
