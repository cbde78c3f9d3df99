"""Etcd loses its data, or gets those of an old backup: nothing that runs may end for it; users then ask again."""

from collections.abc import Mapping

from faults.storm import SETTLED, Storm
from lab import Host
from waiting import eventually

DATA = "/var/lib/etcd/default"
BACKUP = "/root/backup"
RESERVE = 60  # seconds in which agents start nothing, when etcd went backwards


def back_up(storm: Storm) -> None:
    """Keep what etcd holds now."""
    host = storm.cluster.etcd.hosts[0]
    host.run("rm", "-f", BACKUP)
    host.run("etcdctl", "snapshot", "save", BACKUP)
    for other in storm.cluster.etcd.hosts[1:]:
        other.push(host.pull(BACKUP), BACKUP)


def wipe(storm: Storm) -> None:
    """Lose all of etcd's data."""
    _begin_again(storm, dict.fromkeys(storm.cluster.etcd.hosts, f"rm -rf {DATA}"))


def restore(storm: Storm) -> None:
    """Go back to the backup, as etcd's own instructions say."""
    etcd = storm.cluster.etcd
    words = f"--data-dir {DATA} --initial-cluster {etcd.members}"
    scripts = {
        host: f"rm -rf {DATA}; etcdutl snapshot restore {BACKUP} {words} --name {host.name}"
        f" --initial-advertise-peer-urls {etcd.peer(host)}; chown -R etcd: {DATA}"
        for host in etcd.hosts
    }
    _begin_again(storm, scripts)


def _begin_again(storm: Storm, scripts: Mapping[Host, str]) -> None:
    etcd = storm.cluster.etcd
    before = running(storm)
    for host in etcd.hosts:
        host.run("systemctl", "stop", "etcd.service", timeout=90)
    for host, script in scripts.items():
        host.run("sh", "-ec", script)
    for host in etcd.hosts:
        host.run("systemctl", "start", "--no-block", "etcd.service")
    etcd.wait_well()
    storm.begin_again()
    # Each host that runs a VM writes its claim again, and then it is known that etcd has been read.
    uuids = {uuid for uuid, _ in before}
    eventually(
        lambda: {uuid for uuid in uuids if storm.cluster.worlds[0].claim(uuid).get("since")} == uuids,
        within=60, what=lambda: storm.report([f"claims after etcd began again: {uuids}"]),
    )  # fmt: skip
    assert running(storm) == before, storm.report([f"ended: {before - running(storm)}"])


def running(storm: Storm) -> set[tuple[str, str]]:
    return {(run.uuid, run.invocation) for run in storm.cluster.witness.runs() if run.gone is None}


def wait_over(storm: Storm) -> None:
    """Until each host starts new VMs again: an agent that starts anew before that, waits anew."""
    cluster = storm.cluster
    uuids = [cluster.new(world) for world in cluster.worlds]
    for uuid in uuids:
        cluster.worlds[0].wait_status(uuid, "RUNNING", within=SETTLED + RESERVE)
        cluster.worlds[0].delete(uuid)
    for uuid in uuids:
        cluster.wait_rests(uuid)
