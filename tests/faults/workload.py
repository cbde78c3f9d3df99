"""What users ask of some VMs at random, and what may follow from it."""

import json
import random
import signal
import time
import uuid as uuids
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from system.cluster import Cluster
from system.witness import Run
from system.world import World

KILLS = 3  # of a VM in a row: systemd restarts it after 1, 2, 4 s
STOP_TIMEOUT = 2  # seconds: who is asked to power off while its BIOS still runs is deaf


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that was done; it may end one run of the VM."""

    time: float  # before it was done
    what: str
    ends: bool


@dataclass(slots=True)
class Wish:
    """One VM: what was asked last, and all that was done to it."""

    uuid: str
    nics: list[dict[str, str]]
    host: str
    asked: str = "gone"  # on, off or gone
    kills: int = 0
    done: list[Operation] = field(default_factory=list)

    def history(self) -> str:
        return "\n".join(f"{one.time:.3f} {one.what}" for one in self.done)

    def unexplained(self, runs: Iterable[Run]) -> list[Run]:
        """Find runs that ended when no operation can have been the reason: each ends one run, at any later time."""
        causes = sorted(one.time for one in self.done if one.ends)
        over = sorted((run.gone, index, run) for index, run in enumerate(runs) if run.gone is not None)
        # The first end needs one cause before it, the second one two, and so on.
        return [run for n, (gone, _, run) in enumerate(over) if n >= len(causes) or causes[n] > gone]


class Workload:
    """A user with a number of VMs on some hosts, who cannot make up his mind. All choices come from the seed."""

    def __init__(self, cluster: Cluster, number: int, seed: int) -> None:
        self._cluster, self._random = cluster, random.Random(seed)
        self.wishes = [self._wish(index) for index in range(number)]

    def act(self) -> None:
        """Do one thing."""
        wish = self._random.choice(self.wishes)
        possible = {
            "on": (self.stop, self.restart, self.move, self.move, self.delete, self.kill, self.kill, self.start),
            "off": (self.start, self.start, self.move, self.delete),
            "gone": (self.start,),
        }
        self._random.choice(possible[wish.asked])(wish)

    def start(self, wish: Wish) -> None:
        status = {} if wish.asked == "gone" else {"status": "TO_START"}
        self._put(wish, "on", f"start, was {wish.asked}", **status)

    def stop(self, wish: Wish) -> None:
        self._put(wish, "off", "TO_STOP", ends=True, status="TO_STOP")

    def restart(self, wish: Wish) -> None:
        self._put(wish, "on", "TO_RESTART", ends=True, status="TO_RESTART")

    def move(self, wish: Wish) -> None:
        (wish.host,) = {world.name for world in self._cluster.worlds} - {wish.host}
        status = "RUNNING" if wish.asked == "on" else "TO_STOP"
        self._put(wish, wish.asked, f"move to {wish.host}", ends=wish.asked == "on", status=status)

    def delete(self, wish: Wish) -> None:
        self._note(wish, "delete", ends=True)
        wish.asked = "gone"
        self._world.delete(wish.uuid)

    def kill(self, wish: Wish) -> None:
        running = [run for run in self._cluster.witness.runs(wish.uuid) if run.gone is None]
        if running and wish.kills < KILLS:
            wish.kills += 1
            self._note(wish, f"kill -9 of pid {running[0].process.pid}", ends=True)
            running[0].process.signal(signal.SIGKILL)

    @property
    def _world(self) -> World:
        return self._cluster.worlds[0]  # any: they all have the same etcd

    def _wish(self, index: int) -> Wish:
        bits = self._random.getrandbits(128)
        uuid = str(uuids.UUID(int=bits, version=4))
        for world in self._cluster.worlds:
            world.disk(uuid)
        nics = [{"bridge": "br0"}] * (index % 2)
        return Wish(uuid, nics, self._random.choice(self._cluster.worlds).name)

    def _put(self, wish: Wish, asked: str, what: str, *, ends: bool = False, **fields: str) -> None:
        """Write the whole entry: whatever the agents have written in the meantime, this is what is asked now."""
        if what != "start, was on":
            wish.kills = 0
        self._note(wish, what, ends=ends)
        wish.asked = asked
        entry = {"host": wish.host, "memory": 16, "disks": [self._world.image(wish.uuid)], "nics": wish.nics}
        entry |= {"stop_timeout": STOP_TIMEOUT}
        self._world.put(wish.uuid, json.dumps(entry | fields))

    def _note(self, wish: Wish, what: str, *, ends: bool) -> None:
        wish.done.append(Operation(time.monotonic(), what, ends))


def invocations(records: Sequence[dict[str, str]], *events: str) -> list[str]:
    """The runs that these events tell of, one for each record."""
    return [record["invocation"] for record in records if record["event"] in events]
