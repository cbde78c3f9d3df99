"""Two machines that say they are the same host: neither starts anything, and what runs is left alone."""

from collections.abc import Callable

from system.cluster import Cluster
from system.world import World
from waiting import eventually


def doubles(world: World) -> list[str]:
    """What this machine's agent said of the other one."""
    return [line for line in world.agent_lines() if "neither of the two starts anything" in line]


def test_two_machines_with_one_name_start_nothing(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster()
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
