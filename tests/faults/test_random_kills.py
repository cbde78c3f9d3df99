"""Two agents that are killed a hundred times while a user asks for this and that: in the end all is as it was asked.

SEED in the environment repeats the choices of a run; when exactly they meet the agents is never the same.
"""

import os
import random
import secrets
import threading
from collections.abc import Callable

import pytest

from faults.workload import Wish, Workload, invocations
from system.cluster import Cluster
from system.world import World
from waiting import eventually

VMS = 8
KILLS = 100  # of agents
SETTLED = 60  # seconds after the last fault
PAUSES = (0.05, 0.5)  # seconds between two things that the user does
LIVES = (0.05, 2.5)  # seconds that an agent has; it needs about one to make its first pass
DROP_IN = "[Service]\nRestartSec=100ms\nRestartSteps=0\n"  # or the delay would grow to a minute
KILL = "pid=$(systemctl show -P MainPID uncloud-host); [ $pid != 0 ] && kill -9 $pid"
BEGINNINGS, ENDS = ("started", "restarted"), ("stopped", "killed", "moved")


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    made = new_cluster()
    for world in made.worlds:
        world.shell("ip link add br0 type bridge && ip link set br0 up")
        world.host.push(DROP_IN, "/etc/systemd/system/uncloud-host.service.d/soon.conf")
        world.shell("systemctl daemon-reload")
        world.wait_ready()
    return made


class Killer(threading.Thread):
    """Kills the agent of one host, so many times."""

    def __init__(self, world: World, kills: int, seed: int) -> None:
        super().__init__(name=f"killer of {world.name}")
        self._world, self.left, self._random = world, kills, random.Random(seed)
        self.given_up = threading.Event()

    def run(self) -> None:
        while self.left and not self.given_up.wait(self._random.uniform(*LIVES)):
            if self._world.host.run("sh", "-c", KILL, check=False).returncode == 0:
                self.left -= 1


def test_a_hundred_deaths(cluster: Cluster) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    print(f"SEED={seed}")
    workload = Workload(cluster, VMS, seed)
    disturb(cluster, workload, seed)
    for world in cluster.worlds:
        world.wait_ready()
    for wish in workload.wishes:
        eventually(lambda wish=wish: is_so(cluster, wish), within=SETTLED, what=lambda wish=wish: told(cluster, wish))
    cluster.witness.look_again()
    assert cluster.witness.doubles() == []
    for wish in workload.wishes:
        assert wish.unexplained(cluster.witness.runs(wish.uuid)) == [], told(cluster, wish)
        eventually(lambda wish=wish: is_told(cluster, wish), what=lambda wish=wish: told(cluster, wish))
    for world in cluster.worlds:
        assert left_over(world, workload.wishes) == []
        assert not [line for line in world.agent_lines() if "Traceback" in line]
    print(f"{sum(len(wish.done) for wish in workload.wishes)} operations, {len(cluster.witness.runs())} runs")


def disturb(cluster: Cluster, workload: Workload, seed: int) -> None:
    """Ask for this and that until the last agent has died."""
    killers = [Killer(world, KILLS // len(cluster.worlds), seed + n) for n, world in enumerate(cluster.worlds)]
    pauses, pause = random.Random(seed), threading.Event()
    for killer in killers:
        killer.start()
    try:
        while any(killer.is_alive() for killer in killers):
            workload.act()
            pause.wait(pauses.uniform(*PAUSES))
    finally:
        for killer in killers:
            killer.given_up.set()
            killer.join()
    assert [killer.left for killer in killers] == [0] * len(killers)


def is_so(cluster: Cluster, wish: Wish) -> bool:
    """Whether etcd, systemd and the kernel agree with what was asked last."""
    entry = cluster.worlds[0].entry(wish.uuid)
    if wish.asked == "on":
        (there,) = [world for world in cluster.worlds if world.name == wish.host]
        return cluster.runs(wish.uuid, there)
    status = {"off": "STOP", "gone": None}[wish.asked]
    return bool(entry) == (wish.asked == "off") and entry.get("status") == status and cluster.rests(wish.uuid)


def is_told(cluster: Cluster, wish: Wish) -> bool:
    """Whether each run has its beginning in the log and, unless it still runs, its end, and nothing else is there."""
    records = [record for world in cluster.worlds for record in world.records(wish.uuid)]
    runs = cluster.witness.runs(wish.uuid)
    began, ended = invocations(records, *BEGINNINGS), set(invocations(records, *ENDS))
    return (
        len(began) == len(set(began))
        # Not the other way round: one that is stopped just before it executes QEMU is told, and was never seen.
        and {run.invocation for run in runs} <= set(began)
        and set(began) - ended == {run.invocation for run in runs if run.gone is None}
        and {record["event"] for record in records} <= {*BEGINNINGS, *ENDS}
        and len(records) == len({record["id"] for record in records})
    )


def left_over(world: World, wishes: list[Wish]) -> list[str]:
    """Units and taps of a host that nobody asked for."""
    units = {
        line.split()[0] for line in world.shell("systemctl list-units --all --plain --no-legend 'vm-*'").splitlines()
    }
    here = [wish for wish in wishes if (wish.asked, wish.host) == ("on", world.name)]
    taps = world.shell("ls -d /sys/class/net/*/tun_flags 2>/dev/null || true").split()
    nics = sum(len(wish.nics) for wish in here)
    return sorted(units - {f"vm-{wish.uuid}.service" for wish in here}) + (taps if len(taps) != nics else [])


def told(cluster: Cluster, wish: Wish) -> str:
    """For the reader of a failed test; the times of operations and runs are of one clock."""
    return f"asked: {wish.asked} on {wish.host}\n{wish.history()}\n{cluster.told(wish.uuid)}"
