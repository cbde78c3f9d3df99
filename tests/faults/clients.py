"""Users who ask for this and that, each for VMs of his own, and who insist until etcd has taken what they say."""

import json
import random
import subprocess
import threading
import time
import uuid as uuids
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab import Ceph, guests
from lab.ceph import POOL
from lab.host import CommandFailed
from system.cluster import Cluster

PATIENCE = 180  # seconds in which etcd must take a write, whatever is done to it
PAUSES = (0.2, 1.5)  # seconds between two things that a user asks for
STOP_TIMEOUT = 2  # seconds: who is asked to power off while its BIOS still runs is deaf


@dataclass(slots=True)
class Wish:
    """One VM: what its user asked last, and each text that he ever wrote, by its number."""

    uuid: str
    disks: list[dict[str, Any]]
    nics: list[dict[str, str]]
    host: str
    memory: int = 16
    asked: str = "gone"  # on, off or gone
    kills: int = 0  # since its user last ended it: systemd waits ever longer before it restarts
    was_repeated: bool = False  # etcd did not answer at once and may take a write once more, after others
    texts: list[str] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)  # when each of them was, first, on time.monotonic's clock
    deleted: list[float] = field(default_factory=list)  # when its entry was to be deleted

    def when(self, value: str) -> float:
        """When its user first tried to write this, of which an agent may have made something else."""
        return self.tried[json.loads(value)["x-write"]]

    def was_asked(self, value: str, after: float, before: float) -> bool:
        """Whether this was asked for in time: a text, or (nothing) that it be deleted, which may have come late."""
        if value:
            return self.when(value) < before
        return any((at > after or self.was_repeated) and at < before for at in self.deleted)

    @property
    def image(self) -> str:
        """Its disk in Ceph; nothing if that is a file."""
        return str(self.disks[0].get("rbd", ""))

    def __str__(self) -> str:
        return f"{self.uuid}: {self.asked} on {self.host}, write {len(self.texts) - 1}"


class User:
    """Asks for something else each time. All choices come from the seed."""

    def __init__(self, cluster: Cluster, wishes: Sequence[Wish], seed: int) -> None:
        self._cluster, self._chance = cluster, random.Random(seed)
        self.wishes = wishes
        self.done: Counter[str] = Counter()
        self._one_thing = threading.Lock()

    def act(self, _is_over: threading.Event) -> None:
        with self._one_thing:
            wish = self._chance.choice(self.wishes)
            possible: dict[str, Sequence[Callable[[Wish], None]]] = {
                "on": (self._stop, self._restart, self._move, self._move, self._delete, self._edit, self._edit),
                "off": (self._start, self._start, self._move, self._delete),
                "gone": (self._start,),
            }
            act = self._chance.choice(possible[wish.asked])
            act(wish)
            self.done[act.__name__.strip("_")] += 1

    def insist(self, entries: Mapping[str, Mapping[str, Any]], excused: Container[str]) -> None:
        """Say again what etcd does not hold although it took it, which only a late proposal or a lost etcd explains.

        excused: VMs that somebody stopped, hosts where he made them fail; those who want them ask for them again.
        """
        with self._one_thing:
            for wish in self.wishes:
                entry = entries.get(wish.uuid, {})
                may_ask_again = wish.uuid in excused or wish.host in excused
                is_last = entry.get("x-write", -1) == (-1 if wish.asked == "gone" else len(wish.texts) - 1)
                if not is_last and not wish.was_repeated:
                    raise AssertionError(f"{wish}: etcd has {entry}")
                if not is_last and wish.asked == "gone":
                    self._delete_entry(wish)
                elif not is_last:
                    self._put(wish, "TO_START" if wish.asked == "on" else "TO_STOP", ends=True)
                elif may_ask_again and wish.asked == "on" and entry.get("status") in ("STOP", "FAILED"):
                    self._put(wish, "TO_START")

    def _start(self, wish: Wish) -> None:
        fresh, wish.asked = wish.asked == "gone", "on"
        self._put(wish, "" if fresh else "TO_START")

    def _stop(self, wish: Wish) -> None:
        wish.asked = "off"
        self._put(wish, "TO_STOP", ends=True)

    def _restart(self, wish: Wish) -> None:
        self._put(wish, "TO_RESTART", ends=True)

    def _edit(self, wish: Wish) -> None:
        """Change what waits for the next start; nothing may end for it."""
        wish.memory = self._chance.choice((16, 20, 24))
        self._put(wish, "RUNNING")

    def _move(self, wish: Wish) -> None:
        wish.host = self._chance.choice([world.name for world in self._cluster.worlds if world.name != wish.host])
        self._put(wish, "RUNNING" if wish.asked == "on" else "TO_STOP", ends=True)

    def _delete(self, wish: Wish) -> None:
        wish.asked = "gone"
        self._delete_entry(wish)

    def _put(self, wish: Wish, status: str, *, ends: bool = False) -> None:
        """Write the whole entry: whatever the agents have written in the meantime, this is what is asked now."""
        entry = {"host": wish.host, "memory": wish.memory, "disks": wish.disks, "nics": wish.nics}
        entry |= {"stop_timeout": STOP_TIMEOUT, "x-write": len(wish.texts)} | ({"status": status} if status else {})
        wish.texts.append(json.dumps(entry))
        wish.tried.append(time.monotonic())
        wish.kills = 0 if ends else wish.kills
        self._etcd(wish, "put", f"/v1/vm/{wish.uuid}", text=wish.texts[-1])

    def _delete_entry(self, wish: Wish) -> None:
        wish.kills = 0
        wish.deleted.append(time.monotonic())
        self._etcd(wish, "del", f"/v1/vm/{wish.uuid}")

    def _etcd(self, wish: Wish, *words: str, text: str = "") -> None:
        """Repeat a command of etcdctl until etcd has answered it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._cluster.etcd.run("etcdctl", *words, input=text, timeout=15)
            except (CommandFailed, subprocess.TimeoutExpired) as error:
                wish.was_repeated = True
                if time.monotonic() > deadline:
                    raise AssertionError(f"etcd took nothing for {PATIENCE} s: {error}") from error
            else:
                return


def wishes(cluster: Cluster, ceph: Ceph, count: int, seed: int) -> list[Wish]:
    """VMs to ask for: half of them with a nic, a quarter on Ceph; of the others each host has a disk at one path."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        uuid = str(uuids.UUID(int=chance.getrandbits(128), version=4))
        if index % 4 == 0:
            disk = {"rbd": ceph.load(f"{POOL}/{uuid}", guests.tiny())}
        else:
            disk = cluster.worlds[0].image(uuid)
            for world in cluster.worlds:
                world.disk(uuid)
        nics = [{"bridge": "br0"}] * (index % 2)
        made.append(Wish(uuid, [disk], nics, chance.choice(cluster.worlds).name))
    return made
