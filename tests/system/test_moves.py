"""A VM moves by an edit of `host`: the old host stops it and lets go, then the new one starts it; never both."""

import time
from collections.abc import Callable, Iterator

import pytest

from system.cluster import Cluster
from system.world import World
from waiting import eventually


@pytest.fixture(scope="module")
def hosts(new_cluster: Callable[..., Cluster]) -> Cluster:
    return new_cluster(UNCLOUD_STOP_TIMEOUT="5")


@pytest.fixture
def cluster(hosts: Cluster) -> Iterator[Cluster]:
    """The hosts, all well, and after each test the question that matters most."""
    hosts.mend()
    began = time.monotonic()
    yield hosts
    assert hosts.witness.doubles(began) == []


def works(world: World) -> None:
    """Prove that a host has seen all that was written before: it does what is written now."""
    world.vm()


def waits_for(there: World, here: World, uuid: str) -> None:
    """The entry says for whom the VM waits, and nothing of it is on the new host."""
    there.wait_reason(uuid, f"waits for {here.name}")
    works(there)
    assert there.state(uuid) == "inactive/dead"
    assert there.qemus(uuid) == []
    assert there.claim(uuid)["host"] == here.name


def test_an_edit_of_host_moves_a_vm(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here, name="web-1")
    claim = here.claim(uuid)
    cluster.move(uuid, there)
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]
    assert "powerbutton" in here.journal(uuid)
    eventually(lambda: cluster.boots(uuid) == [1, 1], what="it has booted on the new host's disk")
    assert there.claim(uuid)["id"] != claim["id"]
    eventually(lambda: "status_reason" not in there.entry(uuid), what="it waits no more")
    began, ended = eventually(lambda: here.records(uuid)[1:] and here.records(uuid))
    assert (began["event"], there.name in ended["reason"]) == ("started", True)
    there.wait_events(uuid, "started")
    here.wait_mail(uuid, there.name)
    there.wait_mail(uuid, "[vmhost2] web-1 started")
    print(f"nobody ran it for {cluster.witness.gaps(uuid)[0] * 1000:.0f} ms")


def test_it_moves_back_again(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    for target in (there, here, there, here):
        cluster.move(uuid, target)
        cluster.wait_runs(uuid, target)
    assert cluster.witness.hosts(uuid) == [here.name, there.name, here.name, there.name, here.name]
    eventually(lambda: cluster.boots(uuid) == [3, 2], what=lambda: f"boots {cluster.boots(uuid)}")
    downtimes = ", ".join(f"{gap * 1000:.0f}" for gap in cluster.witness.gaps(uuid))
    print(f"nobody ran it for {downtimes} ms")


def test_a_guest_that_is_deaf_to_its_button_moves_when_it_is_ended(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here, stop_timeout=1)
    here.type(uuid, "h")
    cluster.move(uuid, there)
    cluster.wait_runs(uuid, there)
    assert "did not power off within 1 s" in here.journal(uuid)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]


def test_a_vm_that_is_off_moves_without_running(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    here.ask(uuid, status="TO_STOP")
    here.wait_status(uuid, "STOP")
    cluster.move(uuid, there)
    works(there)
    assert cluster.witness.hosts(uuid) == [here.name]
    there.ask(uuid, status="TO_START")
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]


def test_a_vm_whose_host_is_dead_waits_for_it(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    here.host.crash()
    cluster.move(uuid, there)
    waits_for(there, here, uuid)
    cluster.boot(here)
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]
    eventually(lambda: "status_reason" not in there.entry(uuid), what="it waits no more")


def test_a_vm_whose_host_died_is_not_started_there_again_but_goes_on_to_a_third_wish(cluster: Cluster) -> None:
    """Away, to a host that waits, and home again before home was back: it is started where it was."""
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    here.host.crash()
    cluster.move(uuid, there)
    works(there)
    cluster.move(uuid, here)
    cluster.boot(here)
    cluster.wait_runs(uuid, here)
    assert cluster.witness.hosts(uuid) == [here.name, here.name]


def test_host_and_to_stop_in_one_write_end_as_stop_and_nowhere(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    cluster.move(uuid, there, status="TO_STOP")
    there.wait_status(uuid, "STOP")
    cluster.wait_rests(uuid)
    assert there.entry(uuid)["host"] == there.name
    works(there)
    assert cluster.witness.hosts(uuid) == [here.name]
    assert there.events(uuid) == []


def test_to_stop_with_a_dead_host_stays_until_that_is_back(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    here.host.crash()
    cluster.move(uuid, there, status="TO_STOP")
    works(there)
    assert there.entry(uuid)["status"] == "TO_STOP"
    cluster.boot(here)
    there.wait_status(uuid, "STOP", within=60)
    cluster.wait_rests(uuid)
    assert cluster.witness.hosts(uuid) == [here.name]


def test_a_vm_waits_for_the_agent_of_its_old_host(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    pid = here.pid(uuid)
    here.host.run("systemctl", "stop", "uncloud-host")
    cluster.move(uuid, there)
    waits_for(there, here, uuid)
    assert here.pid(uuid) == pid
    here.host.run("systemctl", "start", "uncloud-host")
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]


def test_a_vm_that_stopped_while_nobody_looked_is_let_go(cluster: Cluster) -> None:
    """Nothing of it is left on the old host but the claim."""
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    here.shell(f"systemctl stop uncloud-host && systemctl stop vm-{uuid}")
    cluster.move(uuid, there)
    waits_for(there, here, uuid)
    here.host.run("systemctl", "start", "uncloud-host")
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]


@pytest.mark.parametrize("times", [1, 4])
def test_away_and_back_before_anybody_could_do_it(cluster: Cluster, times: int) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    for _ in range(times):
        cluster.move(uuid, there)
        cluster.move(uuid, here)
    cluster.wait_runs(uuid, here)
    for world in cluster.worlds:
        works(world)
    cluster.wait_runs(uuid, here)  # still
    runs = cluster.witness.hosts(uuid)
    assert len(runs) <= 1 + 2 * times, runs


def test_a_host_that_is_cut_off_keeps_its_vm(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    pid = here.pid(uuid)
    here.host.cut()
    cluster.move(uuid, there)
    waits_for(there, here, uuid)
    assert here.pid(uuid) == pid
    here.host.heal()
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]


def test_a_cable_pulled_in_the_middle_of_a_move(cluster: Cluster) -> None:
    """The old host has stopped the VM and cannot say so: the claim stays and the new host waits."""
    here, there = cluster.worlds
    uuid = cluster.vm(here, stop_timeout=3)
    here.type(uuid, "h")  # the stop takes its time
    cluster.move(uuid, there)
    here.wait_journal(uuid, "stopping")
    here.host.cut()
    here.wait_gone(uuid)
    waits_for(there, here, uuid)
    here.host.heal()
    cluster.wait_runs(uuid, there)
    assert cluster.witness.hosts(uuid) == [here.name, there.name]


def test_a_new_host_that_cannot_run_it_says_so_and_home_takes_it_back(cluster: Cluster) -> None:
    here, there = cluster.worlds
    uuid = cluster.vm(here)
    there.host.run("rm", there.entry(uuid)["disks"][0]["file"])
    cluster.move(uuid, there)
    assert "No such file" in there.wait_status(uuid, "FAILED")["status_reason"]
    cluster.wait_rests(uuid)
    cluster.move(uuid, here, status="TO_START")
    cluster.wait_runs(uuid, here)
    assert cluster.witness.hosts(uuid) == [here.name, here.name]


def test_the_agents_were_well_all_the_time(cluster: Cluster) -> None:
    for world in cluster.worlds:
        assert not [line for line in world.agent_lines() if "Traceback" in line]
