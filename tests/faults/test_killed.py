"""The agent is killed between any two of its writes, and the next one finishes the job as if nothing had been.

Only the moment of death is chosen, see dies.py; agent, etcd, systemd, QEMU and mail are real.
"""

import email
import email.policy
import json
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import dies
from faults.boundaries import BOUNDARIES, CALLS, CASES, OFF, ON, SCENARIOS, START, Scenario
from lab import Lab
from system.cluster import COUNTER, Cluster
from system.witness import Witness
from system.world import IMAGES, MAILBOX, World
from waiting import eventually

PROGRAM = "/usr/local/lib/dies.py"
DROP_IN = """
[Service]
ExecStart=
ExecStart=/usr/bin/python3 {words}
# Or the delay would grow to a minute.
RestartSec=100ms
RestartSteps=0
"""


@pytest.fixture(scope="module", autouse=True)
def mortal(world: World) -> None:
    """The agent of this file's host dies when it is told to."""
    make_mortal(world)


def make_mortal(world: World) -> None:
    world.host.push(Path(dies.__file__), PROGRAM)
    drop_in = DROP_IN.format(words=" ".join([PROGRAM, *CALLS]))
    world.host.push(drop_in, "/etc/systemd/system/uncloud-host.service.d/dies.conf")
    world.shell("systemctl daemon-reload && systemctl restart uncloud-host")


@pytest.fixture(scope="module")
def witness(lab: Lab) -> Iterator[Witness]:
    with Witness(lab) as watching:
        yield watching


@pytest.fixture(scope="module")
def done() -> dict[str, Scenario]:
    """The VMs of all tests of this file so far."""
    return {}


@pytest.mark.parametrize(("name", "boundary"), CASES, ids=lambda word: word)
def test_killed_between(world: World, witness: Witness, done: dict[str, Scenario], name: str, boundary: str) -> None:
    scenario = SCENARIOS[name]
    uuid = scenario.begin(world)
    before = agent(world)
    plan(world, uuid, *BOUNDARIES[name][boundary])
    scenario.ask(world, uuid)
    eventually((world.host.root / str(dies.DONE)[1:]).exists, what="its death")
    eventually(lambda: agent(world) not in {before, ""}, what="the next agent has looked at everything")
    eventually(lambda: is_so(world, uuid, scenario), what=lambda: told(world, witness, uuid, scenario))
    ids = {record["id"] for record in world.records(uuid)}
    eventually(lambda: ids <= mailed(world), what=lambda: f"mails about {ids - mailed(world)}")
    witness.look_again()
    assert len(witness.runs(uuid)) == scenario.boots, told(world, witness, uuid, scenario)
    assert witness.doubles() == []
    world.delete(uuid)
    done[uuid] = scenario


def test_an_end_without_a_record_while_nobody_looked_is_told(world: World) -> None:
    """The recorder was killed together with QEMU: PID 1's words in the journal are what is left."""
    uuid = world.vm()
    world.shell(f"systemctl stop uncloud-host && systemctl kill --signal=KILL vm-{uuid}")
    world.wait_boots(uuid, 2)
    world.host.run("systemctl", "start", "uncloud-host")
    world.wait_events(uuid, "started", "killed", "restarted")


def test_nothing_came_later(world: World, witness: Witness, done: dict[str, Scenario]) -> None:
    world.vm()
    for uuid, scenario in done.items():
        assert len(witness.runs(uuid)) == scenario.boots, told(world, witness, uuid, scenario)
    assert not [line for line in world.agent_lines() if "Traceback" in line]


def test_a_host_that_goes_down_while_a_vm_is_to_be_started(new_cluster: Callable[..., Cluster]) -> None:
    """PID 1 refuses it then, which says nothing of the VM: it was FAILED, and started five minutes after the boot."""
    cluster = new_cluster(names=["vmhost9"])
    (world,) = cluster.worlds
    make_mortal(world)
    world.wait_ready()
    uuid = str(uuids.uuid4())
    plan(world, uuid, "before", START, "", signal="SIGSTOP")
    world.put(uuid, disks=[world.disk(uuid)])
    eventually((world.host.root / str(dies.DONE)[1:]).exists, what="it is about to start the VM")
    world.host.shutdown()  # PID 1 wakes it to end it
    assert world.entry(uuid).get("status") is None
    cluster.boot(world)
    world.wait_status(uuid, "RUNNING")


def agent(world: World) -> str:
    """The agent that has made its first full pass; nothing while there is none."""
    pid, state = world.shell("systemctl show --value -p MainPID,ActiveState uncloud-host").split()
    return pid if state == "active" else ""


def plan(world: World, uuid: str, moment: str, call: str, about: str, *, signal: str = "SIGKILL") -> None:
    """Tell the agent where to die, or where to fall asleep."""
    root = world.host.root
    (root / str(dies.DONE)[1:]).unlink(missing_ok=True)
    new_ = root / f"{dies.PLAN}.new"[1:]
    new_.write_text(json.dumps({"call": call, "moment": moment, "about": [uuid, about], "nth": 1, "signal": signal}))
    new_.rename(root / str(dies.PLAN)[1:])


def is_so(world: World, uuid: str, scenario: Scenario) -> bool:
    """Whether all is as it was asked for."""
    entry, claim = world.entry(uuid), world.claim(uuid)
    is_claimed = scenario.unit != OFF if scenario.is_claimed is None else scenario.is_claimed
    return (
        entry.get("status") == scenario.status
        and (scenario.reason or "None") in str(entry.get("status_reason"))
        and world.events(uuid) == scenario.events.split()
        and world.state(uuid) == scenario.unit
        and len(world.qemus(uuid)) == (scenario.unit == ON)
        and bool(claim) == is_claimed
        and boots(world, uuid) == scenario.boots
        and [run["stopped"] is None for run in world.runs(uuid)] == are_open(scenario)
    )


def are_open(scenario: Scenario) -> list[bool]:
    """Which of the runs go on, in the records of how long VMs ran: each run has one, and only the last may be open."""
    return [False] * (scenario.boots - 1) + [scenario.unit == ON] * (scenario.boots > 0)


def boots(world: World, uuid: str) -> int:
    disk = world.host.root / f"{IMAGES}/{uuid}.img"[1:]
    return int.from_bytes(disk.read_bytes()[COUNTER], "little") if disk.exists() else 0


def mailed(world: World) -> set[str]:
    """The events that mails came about, at least one each; from the files, of which there are hundreds."""
    found: set[str] = set()
    for path in (world.host.root / f"{MAILBOX}/new"[1:]).iterdir():
        header = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        found |= set(str(header["X-Uncloud-Events"]).split())
    return found


def told(world: World, witness: Witness, uuid: str, scenario: Scenario) -> str:
    lines = [f"wanted: {scenario}", f"entry: {world.entry(uuid)}", f"claim: {world.claim(uuid)}"]
    lines += [f"unit {world.state(uuid)}, QEMU {world.qemus(uuid)}, boots {boots(world, uuid)}"]
    lines += [
        *map(str, witness.runs(uuid)),
        *map(str, world.records(uuid)),
        *map(str, world.runs(uuid)),
        world.dated_journal(uuid),
    ]
    return "\n".join([*lines, *world.agent_lines()[-20:]])
