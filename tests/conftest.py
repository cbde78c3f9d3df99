"""Hosts with the installed package. One for all the tests of a file; those that break hosts make their own."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import Lab, deb, tree
from system.cluster import Cluster
from system.world import World

SOURCE = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb of this checkout."""
    return deb.build(SOURCE)


@pytest.fixture(scope="session")
def lab(package: Path) -> Iterator[Lab]:
    # Named after this process, so that several people can run tests on one machine.
    with Lab(f"tests-{os.getpid() % 100000}", [tree.host(package), tree.base()]) as made:
        yield made


@pytest.fixture
def new_world(lab: Lab, package: Path) -> Iterator[Callable[..., World]]:
    """Makes hosts of a test's own."""
    made: list[World] = []

    def make(name: str = "", **variables: str) -> World:
        world = World(lab.host(name or f"host{len(made) + 1}"))
        made.append(world)
        world.host.boot()
        world.install(package, **variables)
        return world

    yield make
    for world in made:
        world.host.destroy()


@pytest.fixture(scope="module")
def world(lab: Lab, package: Path) -> Iterator[World]:
    """A host for all tests of a file."""
    made = World(lab.host("vmhost1"))
    made.host.boot()
    made.install(package)
    yield made
    made.host.destroy()


@pytest.fixture(scope="module")
def new_cluster(lab: Lab, package: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes VM hosts that share an etcd, with a witness; for all tests of a file."""
    with ExitStack() as clusters:

        def make(**variables: str) -> Cluster:
            cluster = Cluster(lab)
            clusters.callback(cluster.destroy)
            clusters.enter_context(cluster.witness)
            cluster.install(package, **variables)
            return cluster

        yield make
