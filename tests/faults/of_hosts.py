"""What may happen to a VM host: its power, cable, disk, systemd, and to the agent on it."""

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from faults.of_etcd import compact, mark
from faults.weather import Cause, Kind, Sky
from lab.machine import LabError
from system.world import World

BOOT = 150  # seconds: a host is up when its agent has seen etcd, and that may be away meanwhile
AGENT = "pid=$(systemctl show -P MainPID uncloud-host); [ $pid != 0 ] && "
# Again if somebody has filled the rest meanwhile; what still fails after that is shown.
RUN_FULL = (
    'full() { mount -o "remount,size=$(($(df --output=used /run | tail -1) + 4))k" /run; }; '
    "for _ in $(seq 50); do full 2>/dev/null && exit; done; full"
)


@contextmanager
def the_cable_is_out(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.cluster.worlds)
    world.host.cut()
    yield world.name
    world.host.heal()


@contextmanager
def revisions_are_compacted_while_the_cable_is_out(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.cluster.worlds)
    world.host.cut()
    revision = mark(sky)
    compact(sky, revision)
    yield f"{world.name}, up to {revision}"
    world.host.heal()


@contextmanager
def nothing_gets_out(sky: Sky, chance: random.Random) -> Iterator[str]:
    """To some members of etcd, or to all; what they say still comes in."""
    world = chance.choice(sky.cluster.worlds)
    members = chance.sample(sky.cluster.etcd.hosts, chance.randint(1, len(sky.cluster.etcd.hosts)))
    for member in members:
        world.host.run("ip", "route", "add", "blackhole", member.address)
    yield f"{world.name} to {', '.join(member.name for member in members)}"
    for member in members:
        world.host.run("ip", "route", "delete", "blackhole", member.address)


@contextmanager
def the_line_is_slow(sky: Sky, chance: random.Random) -> Iterator[str]:
    """Late, and what does not fit is lost."""
    world = chance.choice(sky.cluster.worlds)
    words = "rate 48kbit burst 1600 limit 6000"
    world.host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *words.split())
    yield f"{world.name}, {words}"
    world.host.run("tc", "qdisc", "delete", "dev", "eth0", "root")


@contextmanager
def power_fails(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.mortal)
    with _down(sky, world, "power failure"):
        world.host.crash()
        yield world.name
        _boot(world)


@contextmanager
def power_fails_and_etcd_cannot_be_reached(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.mortal)
    with _down(sky, world, "power failure"):
        world.host.crash()
        world.host.cut()
        boot = threading.Thread(target=_boot, args=[world])
        boot.start()
        yield world.name
        world.host.heal()
        boot.join()
        assert world.host.process


@contextmanager
def it_reboots(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.mortal)
    with _down(sky, world, "reboot"):
        world.host.shutdown()
        yield world.name
        _boot(world)


@contextmanager
def run_is_full(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.cluster.worlds)) as world:
        sky.excused.add(world.name)
        world.shell(RUN_FULL)
        yield world.name
        world.shell("mount -o remount,size=1g /run")


@contextmanager
def the_agent_has_no_file_descriptors(sky: Sky, chance: random.Random) -> Iterator[str]:
    """What it cannot read it takes for missing, and tries again in five minutes; gRPC may abort it."""
    with _is_on(sky, chance.choice(sky.mortal)) as world:
        sky.excused.add(world.name)
        sky.starved.add(world.name)
        done = world.shell(f"{AGENT} prlimit --pid $pid --nofile=8: && echo $pid", check=False)
        yield f"{world.name}, {done}" if done else ""
        world.shell(f"{AGENT} prlimit --pid $pid --nofile=1024:", check=False)


@contextmanager
def the_agent_is_killed(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.mortal)) as world:
        world.shell(f"{AGENT} kill -9 $pid", check=False)
        yield world.name


@contextmanager
def the_agent_is_frozen(sky: Sky, chance: random.Random) -> Iterator[str]:
    """Not for as long as its watchdog waits, 75 seconds; see system/test_agent_restarts for that."""
    with _is_on(sky, chance.choice(sky.cluster.worlds)) as world:
        world.shell(f"{AGENT} kill -STOP $pid", check=False)
        yield world.name
        world.shell(f"{AGENT} kill -CONT $pid", check=False)


@contextmanager
def the_agent_is_restarted(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.mortal)) as world:
        world.host.run("systemctl", "restart", "--no-block", "uncloud-host")
        yield world.name


@contextmanager
def a_second_agent_is_started(sky: Sky, _chance: random.Random) -> Iterator[str]:
    """On the host whose agent lives: the other's lock must keep it from doing anything."""
    with _is_on(sky, sky.cluster.worlds[0]) as world:
        words = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "EnvironmentFile=/etc/default/uncloud-host"]
        done = world.host.run(*words, "uncloud-host", "run", check=False, timeout=60)
        assert done.returncode, done
        assert "another" in done.stderr + done.stdout, done
        yield world.name


@contextmanager
def the_package_is_upgraded(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.mortal)) as world:
        world.shell("apt-get install --reinstall --yes --quiet /root/*.deb", timeout=120)
        yield world.name


@contextmanager
def the_package_is_removed(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.mortal)) as world:
        world.shell("apt-get remove --yes --quiet uncloud-host", timeout=120)
        yield world.name
        world.shell("apt-get install --yes --quiet /root/*.deb", timeout=120)


@contextmanager
def systemd_reloads(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.cluster.worlds)) as world:
        world.host.run("systemctl", "daemon-reload")
        yield world.name


@contextmanager
def systemd_executes_itself_again(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.cluster.worlds)) as world:
        world.host.run("systemctl", "daemon-reexec")
        yield world.name


@contextmanager
def dbus_is_restarted(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.cluster.worlds)) as world:
        world.host.run("systemctl", "restart", "dbus.service", check=False)
        yield world.name


@contextmanager
def journald_is_restarted(sky: Sky, chance: random.Random) -> Iterator[str]:
    with _is_on(sky, chance.choice(sky.cluster.worlds)) as world:
        world.host.run("systemctl", "restart", "systemd-journald.service")
        yield world.name


@contextmanager
def _down(sky: Sky, world: World, what: str) -> Iterator[None]:
    """All that runs on a host may end, until it is up again."""
    began = time.monotonic()
    with sky.power[world.name]:
        try:
            yield
        finally:
            sky.causes.append(Cause(began, what, host=world.name, until=time.monotonic()))


@contextmanager
def _is_on(sky: Sky, world: World) -> Iterator[World]:
    with sky.power[world.name]:
        yield world


def _boot(world: World) -> None:
    try:
        world.host.boot(timeout=BOOT)
    except (LabError, subprocess.TimeoutExpired) as error:
        if "is degraded" not in str(error):  # a VM that does not come up is looked for later
            raise


KINDS = (
    Kind(the_cable_is_out, 0.5, 15),
    Kind(revisions_are_compacted_while_the_cable_is_out, 1, 10),
    Kind(nothing_gets_out, 1, 15),
    Kind(the_line_is_slow, 2, 12),
    Kind(power_fails, 0, 8),
    Kind(power_fails_and_etcd_cannot_be_reached, 5, 12),
    Kind(it_reboots),
    Kind(run_is_full, 1, 6),
    Kind(the_agent_has_no_file_descriptors, 1, 8),
    *(Kind(the_agent_is_killed) for _ in range(4)),  # often
    Kind(the_agent_is_frozen, 1, 15),
    Kind(the_agent_is_restarted),
    Kind(a_second_agent_is_started),
    Kind(the_package_is_upgraded),
    Kind(the_package_is_removed, 0, 6),
    Kind(systemd_reloads),
    Kind(systemd_executes_itself_again),
    Kind(dbus_is_restarted, 0, 2),
    Kind(journald_is_restarted),
)
