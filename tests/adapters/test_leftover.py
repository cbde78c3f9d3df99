"""Claims that nothing leads to, listed from a real etcd."""

import queue
import threading

from tests.adapters.conftest import Etcd
from uncloud_host.etcd import Connection, Put
from uncloud_host.facts import Me
from uncloud_host.leftover import Leftovers
from uncloud_host.models import VM, parse
from uncloud_host.store import Store

OURS, THEIRS = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e12"
ME, ANOTHER = Me("vmhost1", "1" * 32, "boot1"), Me("vmhost2", "2" * 32, "boot2")


def claim(connection: Connection, uuid: str, me: Me) -> None:
    """Put an entry, and claim its VM for a machine."""
    store, entry = Store(connection, "/v1"), b'{"host": "%s"}' % me.host.encode()
    revision = connection.txn([], [Put(store.vms + uuid, entry)]).revision
    store.claim(VM(uuid, parse(entry), revision, revision), me)


def test_they_are_found_when_an_etcd_that_was_away_is_back(etcd: Etcd, connection: Connection) -> None:
    claim(connection, OURS, ME)
    claim(connection, THEIRS, ANOTHER)
    found: queue.SimpleQueue[set[str]] = queue.SimpleQueue()
    leftovers = Leftovers(Store(connection, "/v1"), ME, found.put)
    etcd.kill()
    leftovers.look()
    threading.Thread(target=leftovers.run, daemon=True).start()
    etcd.start()
    assert found.get(timeout=30) == {OURS}
