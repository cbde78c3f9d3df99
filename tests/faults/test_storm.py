"""Everything at once: users who ask for this and that, and faults of all that VMs depend on, for minutes or hours.

`tests/run faults --minutes 20 --seed N` runs only this, for so long, and prints what was done. A seed gives the same
choices in the same order; how they meet depends on the machine.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from faults import disasters
from faults.storm import SETTLED, Storm, stormy
from lab import Ceph, Lab, tree
from system.cluster import Cluster

ROUND = 60  # seconds of a storm, before everything is looked at
EVERY = 4  # storms
DISASTERS = {1: disasters.restore, 3: disasters.wipe}
FIXED = 2  # the seed that is always tried, and then one that nobody knows: an odd one, which ends in a disaster


@pytest.fixture(scope="module")
def storm(new_cluster: Callable[..., Cluster], lab: Lab) -> Iterator[Storm]:
    names, members = ["vmhost1", "vmhost2", "vmhost3"], ["etcd1", "etcd2", "etcd3"]
    variables = {"UNCLOUD_RESTART_LIMIT": "10000", "UNCLOUD_STOP_TIMEOUT": "5"}
    cluster = new_cluster(names=names, members=members, **variables)
    ceph = Ceph(lab.host("ceph1", [tree.ceph()]))
    ceph.boot()
    with stormy(cluster, ceph) as made:
        yield made
    ceph.destroy()


def test_nothing_is_lost_and_nothing_runs_twice(storm: Storm, request: pytest.FixtureRequest) -> None:
    minutes, seed = request.config.getoption("--minutes"), request.config.getoption("--seed")
    end = time.monotonic() + 60 * (minutes or 0)
    is_long = minutes is not None or seed is not None
    first = secrets.randbelow(10**6) | 1 if seed is None else seed
    try:
        for number in count(first) if is_long else [FIXED, first]:
            print(f"SEED={number}", flush=True)
            _storm(storm, number)
            if is_long and time.monotonic() > end:
                break
    finally:
        print(storm.tally)


def _storm(storm: Storm, seed: int) -> None:
    disasters.back_up(storm)
    storm.rage(seed, ROUND)
    storm.wait_settled()
    if disaster := DISASTERS.get(seed % EVERY):
        disaster(storm)
        storm.wait_settled(SETTLED + disasters.RESERVE)
        disasters.wait_over(storm)
        storm.tally.faults[f"etcd: {disaster.__name__}"] += 1
