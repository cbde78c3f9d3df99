"""The VMs of a dead host run on another one when a person says so, and the host that comes back obeys."""

import json
import subprocess
import time
from collections.abc import Callable

import pytest

from system.cluster import Cluster
from system.world import World
from waiting import eventually

LEASE = 60  # seconds that a host is believed to live after its last sign of life


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    return new_cluster(UNCLOUD_STOP_TIMEOUT="5")


@pytest.fixture
def here(cluster: Cluster) -> World:
    cluster.mend()
    eventually(lambda: is_alive(cluster.worlds[0]), what="the first host shows that it is alive")
    return cluster.worlds[0]


@pytest.fixture
def there(cluster: Cluster) -> World:
    return cluster.worlds[1]


def is_alive(world: World) -> bool:
    return bool(world.raw(f"/v1/host/{world.name}"))


def takeover(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return world.host.run("uncloud-host", "takeover", *words, check=False)


def test_a_host_that_is_alive_keeps_its_vms(cluster: Cluster, here: World, there: World) -> None:
    uuid = cluster.vm(here)
    done = takeover(there, uuid, "--host-is-off")
    assert (done.returncode, done.stderr) == (
        1, f"uncloud-host: {uuid}: {here.name} is alive: change its entry's host, and it moves\n"
    )  # fmt: skip
    done = takeover(there, "--host", here.name, "--host-is-off")
    told = f"--host: expected a dead host; {here.name} has shown a sign of life within the last minute"
    assert (done.returncode, done.stderr) == (2, f"uncloud-host: {told}\n")
    assert here.claim(uuid)["host"] == here.name
    cluster.wait_runs(uuid, here)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "expected either VMs or --host"),
        (["web-1", "--host", "vmhost1"], 2, "expected either VMs or --host"),
        (["--host", "nobody"], 1, "--host: nobody has claimed no VM"),
        (["web-1", "--to", "nobody"], 2, "--to: expected a host whose agent is alive; nobody shows no sign of life"),
        (["web-1"], 1, "'web-1': there is no such VM; expected a uuid, the beginning of one, or a name"),
    ],
)
def test_what_makes_no_sense(there: World, words: list[str], status: int, told: str) -> None:
    eventually(lambda: is_alive(there), what="the second host shows that it is alive")
    done = takeover(there, *words)
    assert (done.returncode, done.stderr, done.stdout) == (status, f"uncloud-host: {told}\n", "")


def test_after_a_power_failure(cluster: Cluster, here: World, there: World) -> None:
    """Nothing is taken over while it may be alive, and nothing that cannot be fenced without a person's word."""
    began = time.monotonic()
    first, *others = uuids = [cluster.vm(here, name=f"web-{n}") for n in range(3)]
    old = there.claim(first)
    here.host.crash()
    assert "is alive" in takeover(there, first).stderr
    eventually(lambda: not is_alive(here), within=LEASE + 15, what="its lease has expired")
    done = takeover(there, first)
    assert (done.returncode, "(disks[0] is no rbd image); if that host is off, say so" in done.stderr) == (1, True)
    assert there.claim(first) == old
    done = takeover(there, first, "--host-is-off")
    assert (done.returncode, done.stdout) == (0, f"{first} (web-0): is vmhost2's now, and was vmhost1's\n")
    assert (there.claim(first)["replaces"], there.entry(first)["host"]) == (old["id"], there.name)
    done = takeover(there, "--host", here.name, "--host-is-off", "--json")
    told = json.loads(done.stdout)
    assert (told["ok"], {one["uuid"] for one in told["vms"]} >= set(others)) == (True, True)
    for uuid in uuids:
        cluster.wait_runs(uuid, there)
        assert "; it was taken over" in there.records(uuid, "started")[0]["reason"]
    cluster.boot(here)
    here.wait_ready()
    for uuid in uuids:
        cluster.wait_runs(uuid, there)
        eventually(lambda uuid=uuid: all(run["stopped"] for run in here.runs(uuid) if run["host"] == here.name))
        assert cluster.witness.hosts(uuid) == [here.name, there.name]
    assert cluster.witness.doubles(began) == []


def test_a_host_that_was_only_cut_off_stops_its_vms_when_it_is_back(
    cluster: Cluster, here: World, there: World
) -> None:
    """Somebody has said that it is off, and it was not: until its cable is in again the VM runs twice. A reboot of the
    new host meanwhile makes no difference."""
    uuid, other = cluster.vm(here), cluster.vm(here)
    here.host.cut()
    there.etcd.run("etcdctl", "del", f"/v1/host/{here.name}")  # as its lease does after a minute
    assert takeover(there, uuid, "--host-is-off").returncode == 0
    eventually(lambda: len(there.qemus(uuid)) == 1, what="it runs on the other host")
    assert len(here.qemus(uuid)) == 1
    there.host.crash()
    cluster.boot(there)
    eventually(lambda: len(there.qemus(uuid)) == 1, what="it runs there again")
    (pid,) = there.qemus(uuid)
    here.host.heal()
    cluster.wait_runs(uuid, there)
    eventually(lambda: here.records(uuid)[-1]["event"] == "stopped", what=lambda: str(here.records(uuid)))
    assert here.records(uuid)[-1]["reason"] == f"it was taken over by {there.name}"
    assert there.qemus(uuid) == [pid]
    cluster.wait_runs(other, here)
    assert cluster.witness.hosts(other) == [here.name]
