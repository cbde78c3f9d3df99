"""The records of runs in a real etcd, which may lose them."""

import json
import time
from pathlib import Path

from uncloud_host.endings import End, ended
from uncloud_host.etcd import Connection, Delete
from uncloud_host.facts import Me, Observed
from uncloud_host.registering import Register
from uncloud_host.runs import Boots
from uncloud_host.store import Store
from uncloud_host.unit import Evidence, State

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
NOW = time.time()  # records of 1970 would be deleted: they are old
END = End(UUID, "i1", "itself", exit_code="killed", exit_status="KILL", started=NOW - 20, ended=NOW - 10)
RUNNING = Observed(State.RUNNING, Evidence("vmhost1", "c1", 1, "f", "web-1", ""), "i2", since=NOW)


def records(connection: Connection) -> dict[str, bool]:
    """List the runs that etcd knows, and whether they are over."""
    entries = [entry for page in connection.pages("/v1/runtime/") for entry in page.entries]
    return {entry.key.rpartition("-")[2]: json.loads(entry.value)["stopped"] is not None for entry in entries}


def test_what_an_etcd_has_lost_is_written_again(connection: Connection, tmp_path: Path) -> None:
    register = Register(
        Me("vmhost1", "m1", "b1"), Boots(lambda: 5000.0), Store(connection, "/v1"), lambda: True, tmp_path
    )
    runs = register.runs
    runs.over(END, ended(END, "vmhost1", "web-1"))
    runs.began(UUID, RUNNING)
    opened = [run for run in runs.pending() if run.stopped is None]
    both = {"i1": True, "i2": False}
    register.write()
    assert (records(connection), runs.pending()) == (both, [])

    deleted = [Delete(f"/v1/runtime/{run.path}") for run in (*runs.closed_lately(), *opened)]
    connection.txn([], deleted)
    register.repeat()
    register.write()
    assert (records(connection), runs.pending()) == (both, [])
