"""What may happen to etcd and to the network between it and its hosts."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

from faults.weather import Kind, Sky, insist
from lab import CommandFailed, Host
from system.etcds import QUOTA

MARK = "/v1/vm-weather"  # History sees it, agents do not: it is not below /v1/vm/
JUNK = "/junk/"


@contextmanager
def a_member_is_killed(sky: Sky, chance: random.Random) -> Iterator[str]:
    host = chance.choice(sky.cluster.etcd.hosts)
    sky.cluster.etcd.kill(host)
    yield host.name
    sky.cluster.etcd.wait_well()


@contextmanager
def the_leader_is_killed(sky: Sky, _chance: random.Random) -> Iterator[str]:
    host = sky.cluster.etcd.leader()
    sky.cluster.etcd.kill(host)
    yield host.name
    sky.cluster.etcd.wait_well()


@contextmanager
def all_members_are_killed(sky: Sky, _chance: random.Random) -> Iterator[str]:
    for host in sky.cluster.etcd.hosts:
        sky.cluster.etcd.kill(host)
    yield "all"
    sky.cluster.etcd.wait_well()


@contextmanager
def a_member_is_frozen(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _frozen(sky, [chance.choice(sky.cluster.etcd.hosts)]) as name:
        yield name


@contextmanager
def the_leader_is_frozen(sky: Sky, _chance: random.Random) -> Iterator[str]:
    with _frozen(sky, [sky.cluster.etcd.leader()]) as name:
        yield name


@contextmanager
def all_members_are_frozen(sky: Sky, _chance: random.Random) -> Iterator[str]:
    with _frozen(sky, sky.cluster.etcd.hosts) as name:
        yield name


@contextmanager
def etcd_is_stopped(sky: Sky, _chance: random.Random) -> Iterator[str]:
    for host in sky.cluster.etcd.hosts:
        host.run("systemctl", "stop", "etcd.service", timeout=90)
    yield "all"
    for host in sky.cluster.etcd.hosts:
        host.run("systemctl", "start", "--no-block", "etcd.service")
    sky.cluster.etcd.wait_well()


@contextmanager
def a_member_loses_its_cable(sky: Sky, chance: random.Random) -> Iterator[str]:
    host = chance.choice(sky.cluster.etcd.hosts)
    host.cut()
    yield host.name
    host.heal()
    sky.cluster.etcd.wait_well()


@contextmanager
def members_are_restarted_in_turn(sky: Sky, _chance: random.Random) -> Iterator[str]:
    for host in sky.cluster.etcd.hosts:
        sky.cluster.etcd.restart(host)
    yield "all"


@contextmanager
def old_revisions_are_compacted(sky: Sky, _chance: random.Random) -> Iterator[str]:
    revision = mark(sky)
    compact(sky, revision)
    yield f"up to {revision}"


@contextmanager
def etcd_is_full(sky: Sky, _chance: random.Random) -> Iterator[str]:
    """As full as its quota lets it be: it takes nothing more, until somebody makes room and says so."""
    etcd = sky.cluster.etcd
    mark(sky)
    lump = "x" * 1_000_000
    for number in range(2 * QUOTA):
        done = etcd.run("etcdctl", "put", f"{JUNK}{number}", input=lump, check=False)
        if "database space exceeded" in done.stderr:
            break
    else:
        raise AssertionError(f"etcd took {2 * QUOTA} MB: {done.stderr}")
    yield f"after {number} MB"
    insist(lambda: etcd.run("etcdctl", "del", "--prefix", JUNK))
    compact(sky, mark(sky, "del"))  # it takes deletions only
    for host in etcd.hosts:
        insist(lambda host=host: host.run("etcdctl", "defrag"))
    insist(lambda: etcd.run("etcdctl", "alarm", "disarm"))


def mark(sky: Sky, verb: str = "put") -> int:
    """Write something, and return its revision when our own watch has come to it."""
    told = {}
    words = [verb, MARK, *(["0"] if verb == "put" else []), "--write-out=json"]
    insist(lambda: told.update(json.loads(sky.cluster.etcd.run("etcdctl", *words).stdout)))
    if verb == "del" and not told.get("deleted"):  # an earlier try was answered too late
        return sky.history.revision
    revision = int(told["header"]["revision"])
    sky.history.wait(revision)
    return revision


def compact(sky: Sky, revision: int) -> None:
    def is_done() -> None:
        try:
            sky.cluster.etcd.run("etcdctl", "compact", str(revision))
        except CommandFailed as failed:
            if "has been compacted" not in failed.stderr:  # by a try that was answered too late
                raise

    insist(is_done)


@contextmanager
def _frozen(sky: Sky, hosts: list[Host]) -> Iterator[str]:
    with sky.cluster.etcd.frozen(*hosts):
        yield ", ".join(host.name for host in hosts)
    sky.cluster.etcd.wait_well()


KINDS = (
    Kind(a_member_is_killed, 0, 3),
    Kind(the_leader_is_killed, 0, 3),
    Kind(all_members_are_killed, 0, 3),
    Kind(a_member_is_frozen, 1, 10),
    Kind(the_leader_is_frozen, 1, 10),
    Kind(all_members_are_frozen, 1, 12),
    Kind(etcd_is_stopped, 2, 15),
    Kind(a_member_loses_its_cable, 1, 10),
    Kind(members_are_restarted_in_turn),
    Kind(old_revisions_are_compacted),
    Kind(etcd_is_full, 1, 8),
)
