"""apt does not wait for an etcd that is not there, or not configured yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from package.debs import apt_install, run_of, untouched

from lab import Lab
from system.world import World
from waiting import eventually

BLACK_HOLE = "http://10.199.0.250:2379"  # nobody answers there, not even with a refusal


@pytest.fixture
def bare(lab: Lab) -> Iterator[World]:
    """A host on which nothing is installed yet."""
    made = World(lab.host("bare"))
    made.host.boot()
    yield made
    made.host.destroy()


def state(world: World) -> str:
    return world.host.run("systemctl", "is-active", "uncloud-host", check=False).stdout.strip()


@pytest.mark.parametrize("etcd", ["", BLACK_HOLE], ids=["refuses", "is silent"])
def test_installing_and_upgrading_do_not_hang(bare: World, package: Path, newer: Path, etcd: str) -> None:
    if etcd:  # the file is there before the package: apt would ask what to do with it
        bare.configure(UNCLOUD_ETCD=etcd)
    apt_install(bare, package, "-oDpkg::Options::=--force-confold")
    eventually(lambda: state(bare) == "activating", what="the agent waits for etcd")
    old = run_of(bare)
    apt_install(bare, newer)
    eventually(lambda: run_of(bare) not in ("", old), what="the newer agent is there")
    eventually(lambda: state(bare) == "activating", what="the newer agent waits for etcd")
    bare.host.run("dpkg", "--purge", "uncloud-host", timeout=60)
    assert state(bare) == "inactive"


def test_an_upgrade_while_etcd_is_away_leaves_vms_alone(new_world, newer: Path) -> None:
    world = new_world()
    uuid = world.vm()
    pids = {uuid: world.pid(uuid)}
    old = run_of(world)
    world.host.run("systemctl", "stop", "etcd")
    apt_install(world, newer)
    eventually(lambda: run_of(world) not in ("", old), what="the newer agent is there")
    untouched(world, pids)
    world.host.run("systemctl", "start", "etcd")
    world.wait_ready()
    untouched(world, pids)
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    world.wait_events(uuid, "started", "stopped")
    assert world.agent_is_well()
