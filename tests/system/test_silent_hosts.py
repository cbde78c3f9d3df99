"""A host that goes silent is reported by another one, once, and so is its return."""

from collections.abc import Callable

import pytest

from system.audits import HURRY, found, tell, told
from system.cluster import Cluster
from waiting import eventually


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    made = new_cluster(UNCLOUD_STOP_TIMEOUT="5")
    for world in made.worlds:
        world.hurry(*HURRY, "presence.LEASE = 10")
        world.wait_ready()
    return made


def test_a_host_that_loses_its_power_is_reported_by_the_first_of_the_others(cluster: Cluster) -> None:
    first, second = cluster.worlds
    uuid = cluster.vm(second)
    tell(first)
    tell(second)
    assert found(first) == found(second) == []
    second.host.crash()
    eventually(lambda: not first.raw(f"/v1/host/{second.name}"), what="its presence has run out")
    assert found(first) == [("host-silent", second.name)]
    for _ in range(2):
        tell(first)
    told(first, f"{second.name} is silent", "host-silent")
    # Moved away from it, it waits for the claim.
    cluster.move(uuid, first)
    first.wait_reason(uuid, "waits for")
    assert sorted(found(first)) == [("host-silent", second.name), ("missing", uuid)]
    cluster.boot(second)
    second.wait_ready()
    cluster.wait_runs(uuid, first)
    eventually(lambda: found(first) == [], what="all is well")
    tell(first)
    told(first, f"{second.name} is silent", "host-silent", "resolved")
