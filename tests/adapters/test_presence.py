"""The sign of life of a host in a real etcd."""

from tests.adapters.conftest import Etcd
from tests.waiting import eventually
from uncloud_host.etcd import Connection
from uncloud_host.facts import Me
from uncloud_host.presence import LEASE, Presence


def left(etcd: Etcd) -> int:
    """How many seconds the key will stay."""
    (lease,) = etcd.ctl("lease", "list").splitlines()[1:]
    return int(etcd.ctl("lease", "timetolive", lease).partition("remaining(")[2].partition("s")[0])


def test_it_lasts_through_a_pass_that_takes_longer_than_its_lease(etcd: Etcd, connection: Connection) -> None:
    presence = Presence(connection, "/v1", Me("vmhost1", "1" * 32, "boot1"), "1.0")
    presence.show(3)
    eventually(lambda: left(etcd) < LEASE - 1, what="some of its time is over")
    presence.stay()
    assert left(etcd) >= LEASE - 1
