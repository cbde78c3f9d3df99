"""Hosts with the installed package. One for all the tests of a file; those that break hosts make their own."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import Lab, deb, tree
from system.cluster import Cluster
from system.world import World

SOURCE = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """See faults/test_storm.py."""
    parser.addoption("--minutes", type=float, help="how long the storm rages")
    parser.addoption("--seed", type=int, help="what chooses who asks for what, and what fails when")


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

        def make(
            names: Sequence[str] = ("vmhost1", "vmhost2"), members: Sequence[str] = ("etcd1",), **variables: str
        ) -> Cluster:
            cluster = Cluster(lab, names, members)
            clusters.callback(cluster.destroy)
            clusters.enter_context(cluster.witness)
            cluster.install(package, **variables)
            return cluster

        yield make
