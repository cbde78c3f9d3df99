"""Two machines that say they are the same host start nothing; clones with one machine id do not mix up their VMs."""

from collections.abc import Callable

import pytest

from system.cluster import Cluster
from system.world import IMAGES, World
from waiting import eventually


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    return new_cluster()


def doubles(world: World) -> list[str]:
    """What this machine's agent said of the other one."""
    return [line for line in world.agent_lines() if "neither of the two starts anything" in line]


def test_two_machines_with_one_name_start_nothing(cluster: Cluster) -> None:
    first, second = cluster.worlds
    runs = cluster.vm(first)
    pid = first.pid(runs)
    second.configure(UNCLOUD_HOST_NAME=first.name)
    second.host.run("systemctl", "restart", "uncloud-host")
    for world in cluster.worlds:
        eventually(lambda world=world: doubles(world), within=90, what="it has noticed")
    new = cluster.new(first)
    for world in cluster.worlds:
        world.wait_journal(new, "not starting: another machine is also called vmhost1")
    assert first.qemus(runs) == [pid]
    assert [world.qemus(new) for world in cluster.worlds] == [[], []]
    assert second.qemus(runs) == []
    first.wait_mail("", "shares its name with another machine")

    def revision() -> str:
        return cluster.etcd.run("etcdctl", "get", "--write-out=fields", f"/v1/vm/{runs}").stdout

    before = revision().split('"Revision"')[1].split()[1]
    second.host.run("systemctl", "stop", "uncloud-host")
    first.hurry("standing.ALONE = 1.0")
    first.wait_status(new, "RUNNING", within=150)
    after = revision().split('"Revision"')[1].split()[1]
    assert int(after) - int(before) < 50, "the two did not write in turns"
    assert first.qemus(runs) == [pid]
    remove(first, runs, new)


def remove(world: World, *uuids: str) -> None:
    """Delete VMs, one after the other: many at once would be held."""
    for uuid in uuids:
        world.delete(uuid)
        world.wait_gone(uuid)


def clone(cluster: Cluster, first: World, second: World) -> None:
    """Make the second host a copy of the first one's installation, with a name of its own."""
    second.configure()
    second.host.shutdown()
    eventually(lambda: not first.raw("/v1/host/vmhost2"), within=90, what="its presence in etcd is over")
    (second.host.root / "etc/machine-id").write_bytes(first.host.pull("/etc/machine-id"))
    cluster.boot(second)
    second.wait_ready()


def test_a_clone_does_not_take_the_vms_of_the_other_for_its_own(cluster: Cluster) -> None:
    first, second = cluster.worlds
    uuid = cluster.vm(first)
    claim, pid = first.claim(uuid), first.pid(uuid)
    clone(cluster, first, second)
    first.host.run("systemctl", "stop", "uncloud-host")
    cluster.move(uuid, second)
    second.wait_reason(uuid, "waits for vmhost1, which has its claim")
    assert (first.qemus(uuid), second.qemus(uuid), first.claim(uuid)) == ([pid], [], claim)
    first.host.run("systemctl", "start", "uncloud-host")
    second.wait_boots(uuid, 1)
    assert first.qemus(uuid) == []
    assert cluster.witness.hosts(uuid) == [first.name, second.name]
    remove(second, uuid)


def test_a_clone_with_the_same_name_starts_nothing_once_it_has_noticed(cluster: Cluster) -> None:
    first, second = cluster.worlds
    clone(cluster, first, second)
    runs = cluster.vm(first)
    second.host.run("rm", f"{IMAGES}/{runs}.img")  # in its first pass it knows nothing of the other one
    second.configure(UNCLOUD_HOST_NAME=first.name)
    second.host.run("systemctl", "restart", "uncloud-host")
    for world in cluster.worlds:
        eventually(lambda world=world: "a clone of this machine" in str(doubles(world)), within=90)
    new = cluster.new(first)
    for world in cluster.worlds:
        world.wait_journal(new, "not starting: another machine is also called vmhost1")
    assert [world.qemus(new) for world in cluster.worlds] == [[], []]

    first.host.run("systemctl", "stop", "uncloud-host")
    claim = first.claim(runs)
    first.ask(runs, status="TO_STOP")
    later = cluster.new(first)
    second.wait_journal(later, "not starting: another machine is also called vmhost1")
    assert (first.entry(runs)["status"], first.claim(runs)) == ("TO_STOP", claim), "the clone knows of no such VM"
    first.host.run("systemctl", "start", "uncloud-host")
    first.wait_status(runs, "STOP")
