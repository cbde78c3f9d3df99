"""The log in a real etcd: what is kept of it, and for how long."""

import time

import pytest

from uncloud_host import retention
from uncloud_host.etcd import Connection, EtcdError, Put
from uncloud_host.store import Store

DAY = 86400 * 10**9


def write(connection: Connection, host: str, times: list[int]) -> None:
    Store(connection, "/v1").log(host, [(ns, {"id": f"id{ns}", "event": "started"}) for ns in times])


def kept(connection: Connection, host: str) -> list[int]:
    pages = connection.pages(f"/v1/log/{host}/")
    return [int(kv.key.split("/")[-1].split("-")[0]) for page in pages for kv in page.entries]


def test_keys_are_counted(connection):
    assert connection.count("/v1/log/a/") == 0
    write(connection, "a", list(range(250)))
    write(connection, "ab", [1])
    assert connection.count("/v1/log/a/") == 250


def test_old_records_are_deleted_and_the_oldest_beyond_so_many(connection):
    write(connection, "a", list(range(100, 400)))
    Store(connection, "/v1").prune("a", before=150, most=1000)
    assert kept(connection, "a") == list(range(150, 400))
    for most in (250, 249, 100, 1):
        Store(connection, "/v1").prune("a", before=0, most=most)
        assert kept(connection, "a") == list(range(400 - most, 400))
    Store(connection, "/v1").prune("a", before=401, most=1000)
    assert kept(connection, "a") == []
    Store(connection, "/v1").prune("a", before=401, most=1000)


def test_many_pages_too_many(connection):
    write(connection, "a", list(range(3500)))
    Store(connection, "/v1").prune("a", before=0, most=1000)
    assert kept(connection, "a") == list(range(2500, 3500))


def test_a_host_deletes_only_its_own(connection):
    for host in ("a", "aa", "b", "a."):
        write(connection, host, [1, 2, 3])
    Store(connection, "/v1").prune("a", before=3, most=1)
    assert [kept(connection, host) for host in ("a", "aa", "b", "a.")] == [[3], [1, 2, 3], [1, 2, 3], [1, 2, 3]]


def test_a_month_is_kept(connection):
    now = time.time_ns()
    write(connection, "a", [now - 31 * DAY, now - 29 * DAY, now])
    retention.Retention(Store(connection, "/v1"), "a", lambda: False).log([(now + 1, {"id": "new"})])
    assert len(kept(connection, "a")) == 4
    retention.Retention(Store(connection, "/v1"), "a", lambda: True).log([(now + 2, {"id": "newer"})])
    assert kept(connection, "a") == [now - 29 * DAY, now, now + 1, now + 2]


def test_a_full_etcd_still_lets_us_delete(new_etcd):
    etcd = new_etcd(f"--quota-backend-bytes={2 << 20}")
    connection = etcd.connect()
    write(connection, "a", list(range(10)))
    with pytest.raises(EtcdError) as caught:
        for number in range(2000):  # it counts what it has committed, every 100 ms
            connection.txn([], [Put(f"/filler/{number}", b"x" * 100_000)])
    assert caught.value.problem == "full"
    Store(connection, "/v1").prune("a", before=5, most=3)
    assert kept(connection, "a") == [7, 8, 9]
    with pytest.raises(EtcdError):
        write(connection, "a", [10])
    connection.close()
