"""Where the agent may die: what is asked of it (SCENARIOS), and between which two of its writes (BOUNDARIES)."""

import json
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass

from system.world import IMAGES, World

ON, OFF, GIVEN_UP = "active/running", "inactive/dead", "failed/failed"


@dataclass(frozen=True)
class Scenario:
    """Something that is asked of the agent, and what there shall be in the end."""

    begin: Callable[[World], str]  # what is there before; gives the uuid
    ask: Callable[[World, str], object]
    status: str | None
    unit: str
    boots: int
    events: str
    reason: str | None = None
    is_claimed: bool | None = None  # None: if there is a unit


def new(world: World) -> str:
    uuid = str(uuids.uuid4())
    world.disk(uuid)
    return uuid


def put(world: World, uuid: str) -> None:
    world.put(uuid, disks=[{"file": f"{IMAGES}/{uuid}.img"}])


def kill(world: World, uuid: str) -> None:
    world.host.run("kill", "-9", str(world.pid(uuid)))


def kill_all(world: World, uuid: str) -> None:
    """With QEMU its recorder: nothing is on disk about this end."""
    world.host.run("systemctl", "kill", "--signal=KILL", f"vm-{uuid}")


def given_up(world: World) -> str:
    uuid = world.vm(restart="no")
    kill(world, uuid)
    world.wait_status(uuid, "FAILED")
    return uuid


def deaf(world: World) -> str:
    """Its stop takes a second, and the next agent is there before it is over."""
    uuid = world.vm(stop_timeout=1)
    world.type(uuid, "h")
    return uuid


def with_old_claim(world: World) -> str:
    """The claim is this machine's, of before its last boot."""
    uuid = new(world)
    machine = world.host.pull("/etc/machine-id").decode().strip()
    claim = {"host": world.name, "machine_id": machine, "boot_id": "old", "id": "old", "entry": 1, "since": ""}
    world.etcd.run("etcdctl", "put", f"/v1/claim/{uuid}", json.dumps(claim))
    return uuid


def lose(world: World, uuid: str) -> None:
    """Entry and claim vanish in one revision, as when etcd has lost its data."""
    world.etcd.run("etcdctl", "txn", input=f"\ndel /v1/vm/{uuid}\ndel /v1/claim/{uuid}\n\n\n")


def rob(world: World, uuid: str) -> None:
    world.etcd.run("etcdctl", "del", f"/v1/claim/{uuid}")


def limit(world: World, uuid: str) -> None:
    world.ask(uuid, limits={"cpu_weight": 50})


def asking(**fields: str) -> Callable[[World, str], None]:
    return lambda world, uuid: world.ask(uuid, **fields)


SCENARIOS = {
    "start": Scenario(new, put, "RUNNING", ON, 1, "started"),
    "start after a reboot": Scenario(with_old_claim, put, "RUNNING", ON, 1, "started"),
    "stop": Scenario(World.vm, asking(status="TO_STOP"), "STOP", OFF, 1, "started stopped"),
    "slow stop": Scenario(deaf, asking(status="TO_STOP"), "STOP", OFF, 1, "started stopped"),
    "delete": Scenario(World.vm, World.delete, None, OFF, 1, "started stopped"),
    "move": Scenario(World.vm, asking(host="vmhost9"), "RUNNING", OFF, 1, "started moved"),
    "restart": Scenario(World.vm, asking(status="TO_RESTART"), "RUNNING", ON, 2, "started stopped started"),
    "slow restart": Scenario(deaf, asking(status="TO_RESTART"), "RUNNING", ON, 2, "started stopped started"),
    "crash": Scenario(World.vm, kill, "RUNNING", ON, 2, "started killed restarted"),
    "crash without a record": Scenario(World.vm, kill_all, "RUNNING", ON, 2, "started killed restarted"),
    "stop by hand": Scenario(
        World.vm, lambda world, uuid: world.host.run("systemctl", "stop", f"vm-{uuid}"),
        "STOP", OFF, 1, "started stopped-by-hand", "stopped by hand",
    ),
    "guest off": Scenario(
        lambda world: world.vm(restart="on-failure"), lambda world, uuid: world.type(uuid, "p"),
        "STOP", OFF, 1, "started powered-off", "guest powered off",
    ),
    "no disk": Scenario(
        lambda _: str(uuids.uuid4()), put, "FAILED", OFF, 0, "could-not-start", "No such file",
    ),
    "given up": Scenario(
        lambda world: world.vm(restart="no"), kill, "FAILED", GIVEN_UP, 1, "started killed gave-up", "restart is no",
    ),
    "retry": Scenario(given_up, asking(status="TO_START"), "RUNNING", ON, 2, "started killed gave-up started"),
    "invalid": Scenario(
        new, lambda world, uuid: world.put(uuid, memory="1G"), None, OFF, 0, "invalid", "invalid entry",
    ),
    "held": Scenario(World.vm, lose, None, ON, 1, "started held"),
    "robbed": Scenario(World.vm, rob, "RUNNING", ON, 1, "started"),
    "limits": Scenario(World.vm, limit, "RUNNING", ON, 1, "started"),
}  # fmt: skip

CLAIM, SECURE, RELEASE, STATUS, LOG = (
    f"uncloud_host.store:Store.{name}" for name in ("claim", "secure", "release", "set_status", "log")
)
START, STOP, RESET, LIMIT = (
    f"uncloud_host.systemd:Systemd.{name}" for name in ("start", "stop", "reset_failed", "set_properties")
)
ADD, TOLD = (f"uncloud_host.spool:Spool.{name}" for name in ("add", "told"))
INTENT, NO_INTENT = (f"uncloud_host.spool:{name}_intent" for name in ("write", "remove"))
MARK = "uncloud_host.spool:write_limits"
RUN, RUNS, RUN_TOLD = "uncloud_host.spool:replace", "uncloud_host.store:Store.write_runs", "uncloud_host.runs:Runs.told"
BATCH = "uncloud_host.outbox:Outbox._write"
MAIL, WRITE, UNLINK = "uncloud_host.mail:send", "uncloud_host.spool:write", "pathlib:Path.unlink"

# scenario: {what has just been written -> what would be written next: (when, in which function, ABOUT)}
# ABOUT: what else the arguments of that call contain, beside the VM's uuid.
BOUNDARIES = {
    "start": {
        "nothing -> claim": ("before", CLAIM, ""),
        "claim -> unit": ("after", CLAIM, ""),
        "unit -> event": ("after", START, ""),
        "half an event -> event": ("after", WRITE, "/events/"),
        "event -> RUNNING": ("after", ADD, ""),
        "RUNNING -> nothing": ("after", STATUS, ""),
        "event -> log": ("before", LOG, ""),
        "log -> its mark": ("after", LOG, ""),
        "mark of the log -> nothing": ("after", TOLD, "log"),
        "event -> mail, decided": ("before", BATCH, ""),
        "mail, decided -> mail": ("before", MAIL, ""),
        "mail -> sent": ("after", MAIL, ""),
        "sent -> mark of the mail": ("before", TOLD, "mail"),
        "mark of the mail -> nothing": ("after", TOLD, "mail"),
        "event -> run": ("before", RUN, "/runs/"),
        "half a run -> run": ("after", WRITE, "/runs/"),
        "run -> its record": ("before", RUNS, ""),
        "its record -> known to be there": ("after", RUNS, ""),
    },
    "start after a reboot": {"claim, replaced -> unit": ("after", CLAIM, "")},
    "stop": {
        "nothing -> intent": ("before", INTENT, ""),
        "half an intent -> intent": ("after", WRITE, "/intents/"),
        "intent -> stop": ("after", INTENT, ""),
        "stop -> record": ("after", STOP, ""),
        "record -> event": ("before", ADD, "stopped"),
        "event -> record removed": ("after", ADD, "stopped"),
        "record removed -> intent removed": ("after", UNLINK, "/ends/"),
        "intent removed -> release": ("before", RELEASE, ""),
        "release -> STOP": ("after", RELEASE, ""),
        "STOP -> nothing": ("after", STATUS, "STOP"),
    },
    "slow stop": {"stop -> record": ("after", STOP, "")},
    "delete": {
        "intent -> stop": ("after", INTENT, ""),
        "stop -> record": ("after", STOP, ""),
        "event -> record removed": ("after", ADD, "stopped"),
        "intent removed -> release": ("after", NO_INTENT, ""),
        "release -> nothing": ("after", RELEASE, ""),
    },
    "move": {
        "intent -> stop": ("after", INTENT, ""),
        "stop -> record": ("after", STOP, ""),
        "event -> record removed": ("after", ADD, "moved"),
        "intent removed -> release": ("before", RELEASE, ""),
        "release -> nothing": ("after", RELEASE, ""),
    },
    "restart": {
        "intent -> stop": ("after", INTENT, ""),
        "stop -> record": ("after", STOP, ""),
        "event -> record removed": ("after", ADD, "stopped"),
        "intent removed -> claim": ("before", CLAIM, ""),
        "claim, the old one -> unit": ("after", CLAIM, ""),
        "unit -> event": ("after", START, ""),
        "event -> RUNNING": ("after", ADD, "started"),
        "RUNNING -> nothing": ("after", STATUS, "RUNNING"),
    },
    "slow restart": {"stop -> record": ("after", STOP, "")},
    "crash": {
        "record -> event": ("before", ADD, "killed"),
        "event -> record removed": ("after", ADD, "killed"),
        "record removed -> event of the restart": ("after", UNLINK, "/ends/"),
        "event of the restart -> nothing": ("after", ADD, "restarted"),
        "log -> its mark": ("after", LOG, "killed"),
        "mail -> sent": ("after", MAIL, "killed"),
        "event -> run closed": ("before", RUN, "killed"),
        "run closed -> record removed": ("after", RUN, "killed"),
        "run closed -> its record closed": ("before", RUNS, "killed"),
        "its record closed -> its mark": ("after", RUNS, "killed"),
        "mark of the run -> nothing": ("after", RUN_TOLD, "killed"),
    },
    "crash without a record": {
        "event -> event of the restart": ("after", ADD, "killed"),
        "event -> run closed": ("before", RUN, "killed"),
        "run closed -> event of the restart": ("after", RUN, "killed"),
    },
    "stop by hand": {
        "record -> event": ("before", ADD, "stopped-by-hand"),
        "event -> STOP": ("before", STATUS, "STOP"),
        "STOP -> record removed": ("after", STATUS, "STOP"),
        "record removed -> release": ("after", UNLINK, "/ends/"),
        "release -> nothing": ("after", RELEASE, ""),
    },
    "guest off": {
        "STOP -> intent": ("after", STATUS, "STOP"),
        "intent -> stop": ("after", INTENT, ""),
        "stop -> record": ("after", STOP, ""),
        "event -> record removed": ("after", ADD, "powered-off"),
        "intent removed -> release": ("before", RELEASE, ""),
    },
    "no disk": {
        "event -> FAILED": ("after", ADD, "could-not-start"),
        "FAILED -> nothing": ("after", STATUS, "FAILED"),
    },
    "given up": {
        "event -> FAILED": ("after", ADD, "gave-up"),
        "FAILED -> nothing": ("after", STATUS, "FAILED"),
    },
    "retry": {
        "nothing -> failure forgotten": ("before", RESET, ""),
        "failure forgotten -> claim": ("after", RESET, ""),
        "claim -> unit": ("after", CLAIM, ""),
        "unit -> event": ("after", START, ""),
    },
    "invalid": {
        "event -> reason": ("after", ADD, "invalid"),
        "reason -> nothing": ("after", STATUS, ""),
    },
    "held": {
        "nothing -> claim, held": ("before", SECURE, ""),
        "claim, held -> event": ("after", SECURE, ""),
        "event -> nothing": ("after", ADD, "held"),
    },
    "robbed": {
        "nothing -> claim": ("before", SECURE, ""),
        "claim -> nothing": ("after", SECURE, ""),
    },
    "limits": {
        "nothing -> limits": ("before", LIMIT, ""),
        "limits -> mark": ("after", LIMIT, ""),
        "mark -> nothing": ("after", MARK, ""),
    },
}  # fmt: skip
CASES = [(scenario, boundary) for scenario, boundaries in BOUNDARIES.items() for boundary in boundaries]
CALLS = sorted({call for boundaries in BOUNDARIES.values() for _, call, _ in boundaries.values()})
