"""Metrics follow what happens, and those who ask for them badly hold up nobody."""

import re
import subprocess

import pytest

from lab import Lab
from system.world import World
from waiting import eventually

LISTEN = "[::1]:9477"
GET = """
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
"""
HANG = """
import signal, socket
many = [socket.create_connection(("::1", 9477)) for _ in range(100)]
for one in many[::3]:
    one.sendall(b"GET /metrics HTTP/1.1\\r\\n")
for one in many[1::3]:
    one.sendall(b"\\x16\\x03\\x01nonsense\\n")
print("hanging", flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def world(lab: Lab, package) -> World:
    made = World(lab.host("vmhost1"))
    made.host.boot()
    made.install(package, UNCLOUD_METRICS_LISTEN=LISTEN)
    made.wait_ready()
    yield made
    made.host.destroy()


def scrape(world: World, address: str = LISTEN) -> str:
    return world.host.run("python3", "-c", GET, f"http://{address}/metrics", check=False).stdout


def figure(world: World, name: str, /, **labels: str) -> float | None:
    """The value of the one sample with these labels, among others that it may have."""
    for line in scrape(world).splitlines():
        found = re.fullmatch(r"(\w+)(?:{(.*)})? (\S+)", line)
        if found and found[1] == name and all(f'{key}="{value}"' in (found[2] or "") for key, value in labels.items()):
            return float(found[3])
    return None


def follows(world: World, name: str, value: float | None, /, **labels: str) -> None:
    eventually(lambda: figure(world, name, **labels) == value, what=lambda: f"{name} is {value}:\n{scrape(world)}")


@pytest.fixture(scope="module")
def vm(world: World) -> str:
    return world.vm(name='we"b\\1')


@pytest.mark.usefixtures("vm")
def test_promtool_finds_nothing_wrong(world: World) -> None:
    eventually(lambda: "uncloud_vms" in scrape(world), what="it listens")
    done = world.host.run("promtool", "check", "metrics", input=scrape(world), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_figures_follow_a_vm_through_its_life(world: World, vm: str) -> None:
    starts, killed, restarts, took, written = (
        figure(world, name, **labels) or 0.0
        for name, labels in (
            ("uncloud_starts_total", {}), ("uncloud_ends_total", {"event": "killed"}), ("uncloud_restarts_total", {}),
            ("uncloud_put_to_start_seconds_count", {}), ("uncloud_start_step_seconds_count", {"step": "written"}),
        )
    )  # fmt: skip
    running = figure(world, "uncloud_vms", state="running") or 0.0
    uuid = world.vm(name="db-1")
    follows(world, "uncloud_vms", running + 1, state="running")
    follows(world, "uncloud_starts_total", starts + 1)
    follows(world, "uncloud_put_to_start_seconds_count", took + 1)
    follows(world, "uncloud_start_step_seconds_count", written + 1, step="written")
    follows(world, "uncloud_vm_info", 1.0, uuid=uuid, name="db-1")
    assert (figure(world, "uncloud_vm_cpu_seconds_total", uuid=uuid) or 0.0) > 0.0
    since = figure(world, "uncloud_vm_start_time_seconds", uuid=uuid)
    assert since == pytest.approx(float(world.shell("date +%s")), abs=120)
    world.shell(f"kill -9 {world.pid(uuid)}")
    world.wait_boots(uuid, 2)
    follows(world, "uncloud_ends_total", killed + 1, event="killed")
    follows(world, "uncloud_restarts_total", restarts + 1)
    assert (figure(world, "uncloud_vm_start_time_seconds", uuid=uuid) or 0.0) > (since or 0.0)
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    follows(world, "uncloud_vms", running, state="running")
    follows(world, "uncloud_vm_info", None, uuid=uuid)
    assert uuid not in scrape(world)
    assert figure(world, "uncloud_put_to_start_seconds_count") == took + 1
    assert figure(world, "uncloud_vm_info", uuid=vm) == 1.0


def test_what_this_kernel_does_not_count_is_left_out(world: World, vm: str) -> None:
    cgroup = f"/sys/fs/cgroup/uncloud.slice/uncloud-vm.slice/vm-{vm}.service"
    for file, name in (("memory.current", "uncloud_vm_memory_bytes"), ("io.stat", "uncloud_vm_io_read_bytes_total"),
                       ("cpu.stat", "uncloud_vm_cpu_seconds_total")):  # fmt: skip
        is_counted = world.host.run("test", "-e", f"{cgroup}/{file}", check=False).returncode == 0
        assert (figure(world, name, uuid=vm) is not None) == is_counted
    assert figure(world, "uncloud_vm_cpu_seconds_total", uuid=vm) is not None


def test_etcd_and_the_bus_go_and_come(world: World, vm: str) -> None:
    times, buses = figure(world, "uncloud_etcd_reconnects_total"), figure(world, "uncloud_dbus_reconnects_total")
    assert figure(world, "uncloud_etcd_connected") == 1.0
    world.host.run("systemctl", "stop", "etcd")
    follows(world, "uncloud_etcd_connected", 0.0)
    world.shell(f"kill -9 {world.pid(vm)}")
    eventually(lambda: (figure(world, "uncloud_log_waiting") or 0.0) >= 1.0, what="a record waits")
    world.host.run("systemctl", "start", "etcd")
    follows(world, "uncloud_etcd_connected", 1.0)
    follows(world, "uncloud_log_waiting", 0.0)
    follows(world, "uncloud_etcd_reconnects_total", (times or 0.0) + 1)
    world.host.run("systemctl", "restart", "dbus")
    follows(world, "uncloud_dbus_reconnects_total", (buses or 0.0) + 1)
    assert world.agent_is_well()


def test_what_lasts_is_shown_until_it_is_over(world: World) -> None:
    uuid = world.put("00000000-0000-4000-8000-0000000000ee", memory="1G")
    follows(world, "uncloud_troubles", 1.0, kind="invalid")
    world.delete(uuid)
    follows(world, "uncloud_troubles", 0.0, kind="invalid")


def test_those_who_hang_hold_up_neither_the_agent_nor_others(world: World) -> None:
    with world.host.popen("python3", "-c", HANG, stdout=subprocess.PIPE) as hanging:
        try:
            assert hanging.stdout
            assert hanging.stdout.readline() == "hanging\n"
            assert "uncloud_vms" in scrape(world)
            world.vm()
            assert "uncloud_vms" in scrape(world)
        finally:
            hanging.kill()
    assert world.agent_is_well()


def test_a_port_that_is_taken_is_a_line_in_the_journal(new_world) -> None:
    world = new_world(UNCLOUD_METRICS_LISTEN="127.0.0.1:2379")
    uuid = world.vm()
    world.wait_events(uuid, "started")
    lines = [line for line in world.agent_lines() if "UNCLOUD_METRICS_LISTEN" in line]
    assert lines == ["UNCLOUD_METRICS_LISTEN: 127.0.0.1:2379: Address already in use; it is tried again"]
    assert world.agent_is_well()


def test_without_an_address_prometheus_client_is_not_even_loaded(new_world) -> None:
    world = new_world()
    world.vm()
    pid = world.shell("systemctl show --value -p MainPID uncloud-host").strip()
    assert "9477" not in world.shell("ss -ltn")
    assert "metrics" not in world.shell(f"cat /proc/{pid}/task/*/comm").split()
    loaded = "import sys, uncloud_host.agent; print([name for name in sys.modules if name.startswith('prometheus')])"
    assert world.host.run("python3", "-c", loaded).stdout == "[]\n"
