"""What the host gives a VM at most: changed while it runs, kept over restarts, and reset.

The test hosts have no controllers for memory, cpu and io: that systemd was told is tested, not that the kernel obeys.
"""

from collections.abc import Callable

from system.world import World
from waiting import eventually

LIMITS = ("CPUWeight", "CPUQuotaPerSecUSec", "IOWeight", "IOReadBandwidthMax", "MemoryMax")


def _wait(world: World, uuid: str, **wanted: str) -> None:
    def reached() -> bool:
        shown = world.show(uuid, *wanted)
        return {name: shown.get(name, "") for name in wanted} == wanted  # systemctl leaves out what is empty

    eventually(reached, what=lambda: f"{wanted}, not {world.show(uuid, *LIMITS)}\n{world.journal(uuid)}")


def test_limits_change_while_the_vm_runs_and_nothing_else_does(world: World) -> None:
    uuid = world.vm(limits={"cpu_weight": 200})
    device = f"/var/lib/uncloud-host/images/{uuid}.img"
    _wait(world, uuid, CPUWeight="200", CPUQuotaPerSecUSec="infinity")
    before = world.show(uuid, "MainPID", "InvocationID", "MemoryMax")
    world.ask(uuid, limits={"cpu_quota": 150, "io_weight": 50, "io_read_bandwidth_max": 5000000, "memory_max": 900})
    _wait(
        world, uuid, CPUWeight="[not set]", CPUQuotaPerSecUSec="1.500000s", IOWeight="50",
        IOReadBandwidthMax=f"{device} 5000000", MemoryMax=str(900 << 20),
    )  # fmt: skip
    world.ask(uuid, limits={})
    _wait(world, uuid, CPUQuotaPerSecUSec="infinity", IOWeight="[not set]", IOReadBandwidthMax="")
    assert world.show(uuid, "MainPID", "InvocationID", "MemoryMax") == before
    assert "pending" not in world.host.run("uncloud-host", "ls").stdout


def test_what_depends_on_a_pending_entry_waits_for_it(world: World) -> None:
    uuid = world.vm()
    most = world.show(uuid, "MemoryMax")
    world.ask(uuid, memory=24, limits={"memory_max": 2000, "cpu_weight": 7})
    _wait(world, uuid, CPUWeight="7", **most)
    world.ask(uuid, status="TO_RESTART")
    _wait(world, uuid, CPUWeight="7", MemoryMax=str(2000 << 20))


def test_limits_outlast_a_crash_a_reload_and_the_agent(world: World) -> None:
    uuid = world.vm()
    world.ask(uuid, limits={"cpu_weight": 7})
    _wait(world, uuid, CPUWeight="7")
    world.host.run("systemctl", "daemon-reload")
    world.host.run("systemctl", "restart", "uncloud-host")
    pid = world.pid(uuid)
    world.host.run("kill", "-9", str(pid))
    eventually(lambda: world.pid(uuid) not in (0, pid), what="systemd restarts it")
    _wait(world, uuid, CPUWeight="7")
    world.wait_status(uuid, "RUNNING")
    assert world.journal(uuid).count("changing its limits") == 1
    assert "limit" not in world.host.run("uncloud-host", "plan").stdout


def test_a_run_that_is_full_costs_the_agent_nothing(new_world: Callable[..., World]) -> None:
    """What was set cannot be written down: it is set, nothing else is concluded, and the agent lives."""
    world = new_world()
    uuid = world.vm()
    world.shell("rm -rf /run/uncloud-host/limits && touch /run/uncloud-host/limits")
    world.ask(uuid, limits={"cpu_weight": 7})
    _wait(world, uuid, CPUWeight="7")
    other = world.vm()
    world.host.run("systemctl", "restart", "uncloud-host")
    world.ask(other, status="TO_STOP")
    world.wait_status(other, "STOP")
    assert world.agent_is_well()
