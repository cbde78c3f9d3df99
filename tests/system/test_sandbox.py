"""A guest that broke out of QEMU gets nothing but what was its own: tried, as that uid, in that unit's namespaces."""

import json
import re
from pathlib import Path

import pytest

from system import intruder
from system.world import World
from waiting import eventually

INTRUDER = Path(__file__).with_name("intruder.py")
# What one gets who may not, who cannot see it, or whom nothing answers. EBUSY or EINVAL would be no refusal.
REFUSED = {"EACCES", "EPERM", "ENOENT", "ESRCH", "ENETUNREACH", "ECONNREFUSED", "EROFS", "ETIMEDOUT"}
VMS = {
    "without a network": {},
    "with a nic": {"nics": [{"bridge": "br0"}]},
    "with VNC over TCP": {"vnc": {"tcp": True}, "nics": [{"bridge": "br0"}]},
}
# On the loopback, where its screen is: what else listens there must know whom it talks to, as etcd does by password.
ALLOWED = {("with VNC over TCP", "talk to etcd")}


def address(world: World, pid: str) -> str:
    """Where something can be read in the memory of a process."""
    return world.shell(f"head -1 /proc/{pid}/maps").partition("-")[0]


def facts(world: World, own: str, other: str) -> dict[str, str]:
    directory = "/run/uncloud-vm"
    pids = {
        "own": str(world.pid(own)), "other": str(world.pid(other)), "init": "1",
        "agent": world.host.run("systemctl", "show", "uncloud-host", "-p", "MainPID", "--value").stdout.strip(),
    }  # fmt: skip
    return {
        "host": world.name, "own_directory": f"{directory}/{own}", "other_directory": f"{directory}/{other}",
        "other_image": world.image(other)["file"], "other_unit": f"vm-{other}.service",
        "other_tap": world.shell("ls /sys/class/net/br1/brif").strip(),
        "other_cgroup": f"/sys/fs/cgroup{world.show(other, 'ControlGroup')['ControlGroup']}",
        **{f"{who}_pid": pid for who, pid in pids.items()},
        **{f"{who}_address": address(world, pid) for who, pid in pids.items()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(world: World) -> dict[str, dict[str, str]]:
    """What came of every attempt of every intruder, and of root's."""
    world.shell(
        "mkdir -p /etc/uncloud-host; umask 077; for f in /etc/uncloud-host/etcd.password /etc/etcd.password; "
        "do echo secret > $f; done; mknod -m 666 /usr/local/fuse c 10 229"
    )
    secret = ["-p", "DynamicUser=yes", "-p", "LoadCredential=etcd:/etc/etcd.password", "sleep", "infinity"]
    world.host.run("systemd-run", "--quiet", "--unit=lab-secret", *secret)
    for bridge in ("br0", "br1"):
        world.shell(f"ip link add {bridge} type bridge && ip link set {bridge} up")
    world.host.push(INTRUDER, "/root/intruder.py")
    other = world.vm(nics=[{"bridge": "br1"}])
    found = {}
    for kind, fields in VMS.items():
        own = world.vm(**fields)
        known = facts(world, own, other)
        for who, pid in ((kind, known["own_pid"]), ("root", "0")):
            said = world.host.run("python3", "-I", "/root/intruder.py", pid, input=json.dumps(known)).stdout
            found[who] = json.loads(said)
    assert world.state(other) == "active/running"
    return found


@pytest.mark.parametrize("kind", VMS)
@pytest.mark.parametrize("attempt", intruder.ATTEMPTS)
def test_it_is_refused(outcomes: dict[str, dict[str, str]], attempt: str, kind: str) -> None:
    assert outcomes["root"][attempt] == "", "the attempt itself is wrong"
    assert outcomes[kind][attempt] in ({""} if (kind, attempt) in ALLOWED else REFUSED)


@pytest.mark.parametrize("kind", VMS)
@pytest.mark.parametrize("attempt", intruder.OWN)
def test_it_has_what_is_its_own(outcomes: dict[str, dict[str, str]], attempt: str, kind: str) -> None:
    assert outcomes[kind][attempt] == ""


@pytest.mark.parametrize("kind", VMS)
def test_it_has_no_capabilities(outcomes: dict[str, dict[str, str]], kind: str) -> None:
    assert {key: int(outcomes[kind][key], 16) for key in ("CapEff", "CapBnd")} == {"CapEff": 0, "CapBnd": 0}


def test_every_vm_has_a_uid_of_its_own_and_no_rights(world: World) -> None:
    vms = [world.vm() for _ in range(3)]
    statuses = [world.host.pull(f"/proc/{world.pid(uuid)}/status").decode() for uuid in vms]
    uids = [re.findall(r"^[UG]id:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$", status, re.MULTILINE) for status in statuses]
    assert len({ids for pair in uids for ids in pair}) == len(vms)
    assert all(61184 <= int(one) <= 65519 for pair in uids for ids in pair for one in ids)  # systemd's for DynamicUser=
    for status in statuses:
        assert set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
        assert re.search(r"^NoNewPrivs:\t1\nSeccomp:\t2$", status, re.MULTILINE)
        assert re.search(r"^Groups:\t\d* ?$", status, re.MULTILINE), status


def test_after_a_crash_all_that_is_its_own_belongs_to_its_uid(world: World) -> None:
    """Mostly that is the one of before; systemd takes another one if that one's lock is held at the moment."""
    uuid = world.vm()
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_boots(uuid, 2)
    uid = world.shell(f"stat -c %u /proc/{world.pid(uuid)}").strip()
    assert set(world.shell(f"find /run/uncloud-vm/{uuid} -printf '%U\\n'").split()) == {uid}


def test_nothing_of_a_vm_is_left_when_it_is_off(world: World) -> None:
    uuid = world.vm()
    uid = world.shell(f"stat -c %u /proc/{world.pid(uuid)}").strip()
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    world.wait_gone(uuid)
    left = f"ls -d /run/uncloud-vm/{uuid} /run/credentials/vm-{uuid}* 2>/dev/null; pgrep -u {uid}"
    eventually(lambda: world.shell(left, check=False) == "", what="directory, credentials and processes are gone")


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()
