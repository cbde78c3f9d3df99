"""Two hundred ends of VMs at random while etcd, the mail server and the agent come and go: each is told, exactly once.

What really ended is read from PID 1's own records in the journal. SEED in the environment repeats the choices of a run.
"""

import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from system.world import IMAGES, World
from waiting import eventually

VMS, ENDS = 12, 204
COUNTER = slice(512, 514)  # where the tiny guest counts its boots, on its disk
STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"  # PID 1's message about each run, systemd's catalog
BEGINNINGS = {"started", "restarted"}
OVER = {"stopped", "crashed", "killed", "panicked", "powered-off", "stopped-by-hand"}
AWAY = {"etcd": "etcd", "smtp": "lab-smtp", "agent": "uncloud-host"}

End = Callable[["Crowd", str], None]


class Crowd:
    """Some VMs on a host, and how often each guest has booted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.uuids = [world.new(name=f"vm {n}") for n in range(VMS)]
        self._boots = dict.fromkeys(self.uuids, 0)
        self.away: set[str] = set()

    def runs(self) -> dict[str, str]:
        """The invocation of each VM that runs."""
        shown = self.world.shell("systemctl show 'vm-*.service' -p Id,InvocationID,ActiveState,SubState")
        units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown.split("\n\n") if unit.strip()]
        running = [unit for unit in units if (unit["ActiveState"], unit["SubState"]) == ("active", "running")]
        return {unit["Id"][3:-8]: unit["InvocationID"] for unit in running}

    def wait_booted(self, uuid: str) -> None:
        """A guest that still boots obeys no letter."""

        def boots() -> int:
            return int.from_bytes(self.world.host.pull(f"{IMAGES}/{uuid}.img")[COUNTER], "little")

        eventually(lambda: boots() > self._boots[uuid], within=60, what=lambda: self.world.journal(uuid))
        self._boots[uuid] = boots()

    def switch(self, name: str) -> None:
        """Let somebody go away, or come back."""
        verb = "start" if name in self.away else "stop"
        if (name, verb) == ("smtp", "start"):
            self.world.serve()
        else:
            self.world.host.run("systemctl", verb, "--no-block", AWAY[name])
        self.away ^= {name}


def signal(name: str) -> End:
    return lambda crowd, uuid: crowd.world.shell(f"kill -{name} {crowd.world.pid(uuid)}") and None


def types(letter: str) -> End:
    return lambda crowd, uuid: crowd.world.type(uuid, letter)


def systemctl(*words: str) -> End:
    return lambda crowd, uuid: crowd.world.host.run("systemctl", *words, f"vm-{uuid}") and None


def asked(crowd: Crowd, uuid: str) -> None:
    crowd.world.ask(uuid, status="TO_RESTART")


def stopped(crowd: Crowd, uuid: str) -> None:
    crowd.world.host.run("systemctl", "stop", f"vm-{uuid}")
    crowd.world.wait_status(uuid, "STOP", within=60)
    crowd.world.ask(uuid, status="TO_START")


ALONE: tuple[End, ...] = (
    signal("KILL"), signal("SEGV"), signal("TERM"), types("p"), types("x"), systemctl("kill", "--signal=KILL"),
    systemctl("restart"),
)  # fmt: skip
TOGETHER: tuple[End, ...] = (asked, stopped)  # with etcd and an agent only


def test_two_hundred_ends(new_world: Callable[..., World]) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    world = new_world(UNCLOUD_STOP_TIMEOUT="5", UNCLOUD_RESTART_LIMIT="1000")
    world.hurry("letters.WINDOW = 20.0")  # seconds: all these VMs end again and again
    crowd = Crowd(world)
    for uuid in crowd.uuids:
        world.wait_status(uuid, "RUNNING", within=90)
    for _ in range(ENDS // VMS):
        end_all(crowd, chance)
        for name in chance.sample(sorted(AWAY), chance.choice((0, 1, 1, 2))):
            crowd.switch(name)
    for name in set(crowd.away):
        crowd.switch(name)
    world.wait_ready()
    is_all_told(crowd)
    assert not [line for line in world.agent_lines() if "Traceback" in line]


def end_all(crowd: Crowd, chance: random.Random) -> None:
    """End every VM once, each in its way, and wait until all run again."""
    before = crowd.runs()
    assert before.keys() == set(crowd.uuids)
    for uuid in crowd.uuids:
        crowd.wait_booted(uuid)
    may_ask = not crowd.away & {"etcd", "agent"}
    for uuid in crowd.uuids:
        chance.choice(ALONE + TOGETHER * may_ask)(crowd, uuid)

    def are_back() -> bool:
        after = crowd.runs()
        return all(after.get(uuid, before[uuid]) != before[uuid] for uuid in crowd.uuids)

    eventually(are_back, within=90, every=0.3, what=lambda: f"away: {crowd.away}; {before} and now {crowd.runs()}")
    crowd.world.shell("systemctl reset-failed 'vm-*'")  # or systemd waits ever longer before it restarts them


def is_all_told(crowd: Crowd) -> None:
    world = crowd.world
    running = crowd.runs()
    words = ["journalctl", "-o", "json", "--output-fields=INVOCATION_ID", "_PID=1", f"MESSAGE_ID={STARTING}"]
    begun = {
        record["INVOCATION_ID"]
        for uuid in crowd.uuids
        for record in map(json.loads, world.host.run(*words, f"UNIT=vm-{uuid}.service").stdout.splitlines())
    }
    over = begun - set(running.values())
    assert len(over) >= ENDS // VMS * VMS

    def records() -> list[dict[str, Any]]:
        return [record for uuid in crowd.uuids for record in world.records(uuid)]

    def told(events: set[str]) -> Counter[str]:
        return Counter(record["invocation"] for record in records() if record["event"] in events)

    eventually(lambda: told(OVER) == Counter(over), within=120, what=lambda: difference(told(OVER), over, records()))
    assert told(BEGINNINGS) == Counter(begun), difference(told(BEGINNINGS), begun, records())
    ids = {record["id"] for record in records()}
    assert [record for record in records() if record["event"] not in OVER | BEGINNINGS] == []
    assert told(OVER) == Counter(over), difference(told(OVER), over, records())  # still
    assert len(ids) == len(records()) == len(begun) + len(over)
    runs = [run for uuid in crowd.uuids for run in world.runs(uuid)]
    assert Counter(run["invocation"] for run in runs) == Counter(begun)
    assert {run["invocation"] for run in runs if run["stopped"]} == over
    eventually(
        lambda: ids <= world.mailed().keys(), within=120, what=lambda: f"not mailed: {ids - world.mailed().keys()}"
    )
    # A mail that is delivered twice has one Message-ID; no event is in two mails.
    assert [event for event, mails in world.mailed().items() if len(mails) > 1] == []
    print(f"{len(over)} ends, {len(ids)} events in {len(set.union(*world.mailed().values()))} mails")


def difference(told: Counter[str], true: set[str], records: list[dict[str, Any]]) -> str:
    wrong = (Counter(true) - told) + (told - Counter(true))
    about = [record for record in records if record["invocation"] in wrong]
    return f"not told: {true - told.keys()}; wrong: {wrong}; {about}"
