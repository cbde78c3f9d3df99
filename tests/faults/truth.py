"""What is so, on all hosts and in etcd at one time, and what of it is not as was asked: that is decided purely."""

import base64
import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from faults.clients import Wish
from system.cluster import Cluster
from system.witness import Run
from system.world import World

UUID = slice(3, 39)  # of a unit's name
BEGINNINGS = {"started", "restarted"}
ENDS = {
    "stopped", "moved", "killed", "crashed", "panicked", "powered-off", "stopped-by-hand", "could-not-start",
}  # fmt: skip
EXACT, AFTER_POWER_FAILURE = 2.0, 62.0  # seconds by which a record of runtime may differ from what we saw
LOOK = """
systemctl show 'vm-*.service' -p Id,ActiveState,SubState,InvocationID,Environment
echo ===; ls -d /run/uncloud-vm/*-*-*-*-* 2>/dev/null
echo ===; ls -d /sys/class/net/*/tun_flags 2>/dev/null | wc -l
echo ===; ls /run/systemd/transient | grep ^vm-
true
"""
MAILED = """
import email.parser, glob
for name in glob.glob("/var/mail/sre/new/*"):
    with open(name, "rb") as file:
        mail = email.parser.BytesHeaderParser().parse(file)
    print(*str(mail["X-Uncloud-Events"] or "").split(), sep="\\n")
"""


@dataclass(frozen=True, slots=True)
class There:
    """One host: its units of VMs by uuid, each with its properties, and what VMs leave behind when they are gone."""

    units: Mapping[str, Mapping[str, str]]
    directories: frozenset[str]
    taps: int
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class Truth:
    """All that can be seen from outside."""

    entries: Mapping[str, Mapping[str, Any]]
    claims: Mapping[str, Mapping[str, Any]]
    runtimes: Sequence[Mapping[str, Any]]
    records: Sequence[Mapping[str, Any]]  # of the log
    hosts: Mapping[str, There]
    runs: Sequence[Run]
    mailed: frozenset[str]


def look(cluster: Cluster) -> Truth:
    """Ask etcd, systemd, the kernel and the mailboxes."""
    cluster.witness.look_again()
    runs = cluster.witness.runs()
    told = json.loads(cluster.etcd.run("etcdctl", "get", "--prefix", "/v1/", "--write-out=json").stdout)
    values = {_text(kv["key"]): json.loads(_text(kv["value"])) for kv in told.get("kvs", [])}

    def below(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}

    with ThreadPoolExecutor() as together:
        hosts = dict(zip([world.name for world in cluster.worlds], together.map(_there, cluster.worlds), strict=True))
        mailed = frozenset().union(*together.map(_mailed, cluster.worlds))
    logs, runtimes = below("/v1/log/"), below("/v1/runtime/")
    return Truth(
        below("/v1/vm/"), below("/v1/claim/"), list(runtimes.values()), list(logs.values()), hosts, runs, mailed
    )


def complaints(truth: Truth, wishes: Sequence[Wish], since: datetime, unknowable: Container[str]) -> list[str]:
    """Say all that is not as was asked.

    since: when etcd began to keep what is told. unknowable: invocations of which nobody had time to write anything.
    """
    found = [line for wish in wishes for line in _of_a_vm(truth, wish)]
    found += [line for name in truth.hosts for line in _left_over(truth, wishes, name)]
    runs = [run for run in truth.runs if run.seen >= since and run.invocation not in unknowable]
    return found + _not_told(truth, runs) + _not_registered(truth, runs)


def _of_a_vm(truth: Truth, wish: Wish) -> list[str]:
    entry, claim = truth.entries.get(wish.uuid), truth.claims.get(wish.uuid, {})
    runs = [run for run in truth.runs if run.uuid == wish.uuid and run.gone is None]
    units = {name: there.units[wish.uuid] for name, there in truth.hosts.items() if wish.uuid in there.units}
    status = {"on": "RUNNING", "off": "STOP", "gone": None}[wish.asked]
    if (entry or {}).get("status") != status or (wish.asked == "gone" and entry is not None):
        return [f"{wish}: its entry is {entry}"]
    if wish.asked != "on":
        return [f"{wish}: {what}" for what in (*runs, units and f"units {units}", claim and f"claim {claim}") if what]
    if [run.host for run in runs] != [wish.host] or list(units) != [wish.host]:
        return [f"{wish}: runs {[*map(str, runs)]}, units {units}"]
    unit = units[wish.host]
    if (unit["ActiveState"], unit["SubState"], unit["InvocationID"]) != ("active", "running", runs[0].invocation):
        return [f"{wish}: {unit} is not {runs[0]}"]
    if claim.get("host") != wish.host or f"UNCLOUD_CLAIM={claim['id']}" not in unit["Environment"]:
        return [f"{wish}: claim {claim}, and the unit has {unit['Environment']}"]
    return []


def _left_over(truth: Truth, wishes: Sequence[Wish], name: str) -> list[str]:
    there = truth.hosts[name]
    here = [wish for wish in wishes if (wish.asked, wish.host) == ("on", name)]
    uuids = {wish.uuid for wish in here}
    taps = sum(len(wish.nics) for wish in here)
    found = [f"{name}: unit vm-{uuid}" for uuid in there.units.keys() - uuids]
    found += [f"{name}: /run/uncloud-vm/{uuid}" for uuid in there.directories - uuids]
    found += [f"{name}: {file}" for file in there.files if file[UUID] not in uuids]
    return found + ([f"{name}: {there.taps} taps and not {taps}"] if there.taps != taps else [])


def _not_told(truth: Truth, runs: Sequence[Run]) -> list[str]:
    """Each run has one beginning and, if it is over, one end in the log."""
    began = Counter(record["invocation"] for record in truth.records if record["event"] in BEGINNINGS)
    ended = Counter(record["invocation"] for record in truth.records if record["event"] in ENDS)
    twice = [which for which, times in (began + ended).items() if which and times > 2]
    found = [f"twice in the log: {[one for one in truth.records if one['invocation'] == which]}" for which in twice]
    for run in runs:
        if began[run.invocation] != 1:
            found.append(f"its beginning is {began[run.invocation]} times in the log: {run}")
        if ended[run.invocation] != (run.gone is not None):
            found.append(f"its end is {ended[run.invocation]} times in the log: {run}")
    return found


def not_mailed(truth: Truth) -> list[str]:
    """Say which records no mail tells."""
    return [f"not mailed: {record}" for record in truth.records if record["id"] not in truth.mailed]


def _not_registered(truth: Truth, runs: Sequence[Run]) -> list[str]:
    """Each run has one record of how long it was, which is right."""
    by_invocation: dict[str, list[Mapping[str, Any]]] = {}
    for record in truth.runtimes:
        by_invocation.setdefault(record["invocation"], []).append(record)
    live = {run.invocation for run in truth.runs if run.gone is None}
    found = [
        f"open, and it does not run: {record}"
        for record in truth.runtimes
        if not record["stopped"] and record["invocation"] not in live
    ]
    for run in runs:
        records = by_invocation.get(run.invocation, [])
        if len(records) != 1:
            found.append(f"has {len(records)} records of runtime: {run}")
        elif run.gone is not None and not _is_right(run, records[0]):
            found.append(f"ran for {run.last - run.first:.1f} s and not as in {records[0]}: {run}")
    return found


def _is_right(run: Run, record: Mapping[str, Any]) -> bool:
    """An observer sees a run begin late and end early, by less than a second."""
    if not record["stopped"]:
        return False
    began, ended = (datetime.fromisoformat(record[name]) for name in ("started", "stopped"))
    lost_power = "went down" in str(record.get("reason", ""))
    off = (ended - began).total_seconds() - (run.last - run.first)
    return abs(off) <= (AFTER_POWER_FAILURE if lost_power else EXACT)


def _there(world: World) -> There:
    units, directories, taps, files = world.shell(LOOK).split("===\n")
    shown = [dict(line.partition("=")[::2] for line in unit.splitlines()) for unit in units.split("\n\n")]
    return There(
        {unit["Id"][UUID]: unit for unit in shown if unit and unit["ActiveState"] != "inactive"},
        frozenset(path.rpartition("/")[2] for path in directories.split()),
        int(taps),
        frozenset(files.split()),
    )


def _mailed(world: World) -> frozenset[str]:
    return frozenset(world.host.run("python3", "-c", MAILED).stdout.split())


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
