"""etcd has several members so that any one of them may be missing: a VM host does not notice which."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from system.etcds import Etcds
from system.world import World


@pytest.fixture(scope="module")
def made(lab: Lab, package: Path) -> Iterator[tuple[Etcds, World]]:
    etcds = Etcds(lab)
    etcds.install()
    world = World(lab.host("vmhost1"), etcds)
    world.host.boot()
    world.install(package)
    world.hurry("trust.LONG = 5.0")  # a mail says that etcd is away, and not after minutes only
    yield etcds, world
    world.host.destroy()
    etcds.destroy()


@pytest.fixture
def etcds(made: tuple[Etcds, World]) -> Etcds:
    made[0].mend()
    return made[0]


@pytest.fixture
def world(made: tuple[Etcds, World], etcds: Etcds) -> Iterator[World]:
    """A VM host that obeys; after each test: that nobody was troubled."""
    world = made[1]
    world.host.run("systemctl", "start", "uncloud-host")
    world.vm()
    yield world
    etcds.mend()
    obeys(world)
    assert world.agent_is_well()
    assert [mail["Subject"] for mail in world.mails("cannot be reached")] == []


def obeys(world: World, within: float = 3.0) -> None:
    """What is put is done, and told in etcd."""
    uuid = world.new()
    world.wait_status(uuid, "RUNNING", within=within)
    world.wait_events(uuid, "started")
    world.delete(uuid)
    world.wait_gone(uuid)


def test_a_rolling_restart_is_not_noticed(etcds: Etcds, world: World) -> None:
    stays = world.vm()
    pid = world.pid(stays)
    for host in etcds.hosts:
        etcds.restart(host)
        obeys(world)
    assert world.pid(stays) == pid
