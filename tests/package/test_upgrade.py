"""Installing, upgrading, removing, purging and installing again, while VMs run: they do not notice."""

from pathlib import Path

from package.debs import apt_install, run_of, untouched, wait_restarted

from system.world import World
from waiting import eventually


def ours(world: World) -> set[str]:
    """What lies on the host and has our name, or lies below what has it; less what the test and systemd brought."""
    names = "'*uncloud*'"
    script = (
        f"find / -xdev -path /root -prune -o -name {names} -print; find /run -name {names}; find /var/lib/uncloud-host"
    )
    found = world.shell(script, check=False).split()
    return {path for path in found if not path.startswith(("/run/systemd/", "/run/log/"))}


def test_an_upgrade_restarts_the_agent_and_leaves_vms_alone(new_world, package: Path, newer: Path) -> None:
    world = new_world()
    world.shell("ip link add br0 type bridge && ip link set br0 up")
    pids = {uuid: world.pid(uuid) for uuid in (world.vm(), world.vm(nics=[{"bridge": "br0"}]), world.vm())}
    conffile = world.host.pull("/etc/default/uncloud-host")
    old = run_of(world)
    apt_install(world, newer)
    wait_restarted(world, old)
    assert world.host.run("uncloud-host", "--version").stdout == "uncloud-host 99.0\n"
    assert world.shell("systemctl show uncloud-host -p Description --value").startswith("99.0 ")  # its new unit file
    assert world.host.pull("/etc/default/uncloud-host") == conffile
    untouched(world, pids)

    # What the older package started the newer one stops well, and restarts well.
    stopped, connected, killed = pids
    for uuid in (stopped, connected):
        world.ask(uuid, status="TO_STOP")
        world.wait_status(uuid, "STOP")
        assert "pressed the power button" in world.journal(uuid)
        assert "powerbutton" in world.journal(uuid)  # the guest's word
        world.wait_events(uuid, "started", "stopped")
    assert world.shell("ls /sys/class/net/br0/brif") == ""
    world.host.run("kill", "-9", str(pids[killed]))
    world.wait_boots(killed, 2)
    world.wait_events(killed, "started", "killed", "restarted")
    world.vm()
    assert world.agent_is_well()

    # And back again: somebody found that the newer one does not suit them.
    survivor = {killed: world.pid(killed)}
    old = run_of(world)
    apt_install(world, package, "--allow-downgrades")
    wait_restarted(world, old)
    untouched(world, survivor)
    world.ask(killed, status="TO_STOP")
    world.wait_status(killed, "STOP")
    assert "powerbutton" in world.journal(killed)


def test_a_reinstallation_leaves_vms_alone(world: World, package: Path) -> None:
    pids = {world.vm(): 0}
    pids = {uuid: world.pid(uuid) for uuid in pids}
    old = run_of(world)
    apt_install(world, package, "--reinstall")
    wait_restarted(world, old)
    untouched(world, pids)
    assert [world.events(uuid) for uuid in pids] == [["started"]]


def test_an_agent_that_was_switched_off_stays_off(new_world, newer: Path) -> None:
    world = new_world()
    world.host.run("systemctl", "disable", "--now", "uncloud-host")
    apt_install(world, newer)
    eventually(lambda: "99.0" in world.shell("uncloud-host --version"), what="the newer version")
    # Whoever would start it does so with a job, and jobs are done before this returns.
    world.host.run("systemctl", "is-system-running", "--wait")
    assert world.host.run("systemctl", "is-active", "uncloud-host", check=False).stdout == "inactive\n"


def test_without_the_package_vms_run_on_and_are_restarted(new_world, package: Path) -> None:
    world = new_world()
    stays, dies = world.vm(), world.vm()
    pids = {uuid: world.pid(uuid) for uuid in (stays, dies)}
    world.host.run("dpkg", "--remove", "uncloud-host")
    assert world.host.run("systemctl", "is-active", "uncloud-host", check=False).stdout == "inactive\n"
    assert world.shell("pgrep -f '[/ ]uncloud-host run'", check=False) == ""
    untouched(world, pids)
    assert world.host.pull("/etc/default/uncloud-host")

    world.host.run("kill", "-9", str(pids[dies]))
    world.wait_boots(dies, 2)
    pids[dies] = world.pid(dies)
    untouched(world, pids)

    apt_install(world, package)
    world.wait_ready()
    untouched(world, pids)
    # Its recorder was away, too; what is known is that it is another run.
    eventually(lambda: world.events(dies)[-1:] == ["restarted"], what=lambda: f"restarted is in {world.events(dies)}")
    for uuid in pids:
        world.ask(uuid, status="TO_STOP")
        world.wait_status(uuid, "STOP")
        assert "powerbutton" in world.journal(uuid)


def test_a_purge_leaves_images_and_running_vms_only(new_world, package: Path) -> None:
    world = new_world()
    uuid = world.vm()
    pids = {uuid: world.pid(uuid)}
    world.host.run("dpkg", "--purge", "uncloud-host")
    untouched(world, pids)
    image = f"/var/lib/uncloud-host/images/{uuid}.img"
    left = {path for path in ours(world) if not path.startswith("/run/uncloud-vm")}
    assert left == {"/var/lib/uncloud-host", "/var/lib/uncloud-host/images", image}

    apt_install(world, package)
    world.configure()
    world.host.run("systemctl", "restart", "uncloud-host")
    world.wait_ready()
    untouched(world, pids)
    assert world.entry(uuid)["status"] == "RUNNING"
    assert world.claim(uuid)["host"] == world.name
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    assert "powerbutton" in world.journal(uuid)
    world.wait_gone(uuid)
    world.host.run("dpkg", "--purge", "uncloud-host")
    world.host.run("test", "-e", image)


def test_a_purge_without_vms_and_images_leaves_nothing(new_world) -> None:
    world = new_world()
    uuid = world.vm()
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    world.wait_gone(uuid)
    world.host.run("rm", f"/var/lib/uncloud-host/images/{uuid}.img")
    world.host.run("dpkg", "--purge", "uncloud-host")
    assert ours(world) == set()
