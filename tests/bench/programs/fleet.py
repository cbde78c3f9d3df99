"""Runs on a host: have N VMs, list them, and later tell how they came up again after a reboot.

python3 fleet.py put HOST N     entries, and wait until all run
python3 fleet.py look TIMES     list them so often; print one JSON object
python3 fleet.py up N           wait until all run again; print one JSON object
"""

import json
import sys

from here import all_active, disk, entry, memory, put_all, statuses, timed, uuids, value, wait

AGENT = "uncloud-host.service"


def put(host: str, count: int) -> None:
    vms = uuids(count)
    for me in vms:
        disk(me)
    put_all((f"/v1/vm/{me}", entry(host, me)) for me in vms)
    wait(lambda: statuses().count("RUNNING") == count, "all run", every=0.5)


def up(count: int) -> None:
    last, _ = all_active(count)
    began = int(value(AGENT, "ExecMainStartTimestampMonotonic")) / 1e6
    print(json.dumps({"active": last - began}))


def look(times: int) -> None:
    print(json.dumps({"list": [timed("uncloud-host", "ls") for _ in range(times)], "memory": memory(AGENT)}))


match sys.argv[1:]:
    case "put", host, count:
        put(host, int(count))
    case "look", times:
        look(int(times))
    case "up", count:
        up(int(count))
    case _:
        raise SystemExit(__doc__)
