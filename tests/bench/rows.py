"""What is measured: one function for each row, on hosts of a lab, with the installed package."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from figures import Figure, Goal, seconds

from lab import Host, Lab, LabError, guests, tree
from system.cluster import Cluster
from system.world import World

PROGRAMS = Path(__file__).with_name("programs")
LONG = 1800.0  # seconds for a program, on the slowest machine that one would measure on
IMAGE = "/var/lib/uncloud-host/images/bench.img"
CLOCK = 0.02  # seconds between two looks of the witness


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    starts: int = 30
    at_once: int = 300
    rounds: int = 2
    reboot: int = 100
    kills: int = 60
    moves: int = 20
    idle: int = 300
    entries: int = 100_000
    seconds: int = 60
    listed: int = 30
    growth: tuple[int, ...] = (10, 100, 300, 1000)


SMALL = Sizes(
    starts=5, at_once=20, rounds=3, reboot=10, kills=10, moves=3, idle=10, entries=2000, seconds=10, listed=5,
    growth=(5, 10),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """A lab and the package that is installed on its hosts."""

    lab: Lab
    package: Path
    sizes: Sizes

    def world(self, **variables: str) -> World:
        """A host with the agent. Mails would be sent while others are measured: only where they are asked for."""
        world = World(self.lab.host("vmhost1"))
        world.host.boot()
        world.install(self.package, **{"UNCLOUD_MAIL_TO": "", **variables})
        world.wait_ready()
        push(world.host)
        return world


def push(host: Host) -> None:
    """Bring the programs."""
    host.run("mkdir", "-p", "/root/bench", str(Path(IMAGE).parent))
    for program in PROGRAMS.glob("*.py"):
        host.push(program, f"/root/bench/{program.name}")


def measured(host: Host, program: str, *words: object) -> Any:
    """Run a program on a host; what it says on stderr is progress."""
    command = ["python3", f"/root/bench/{program}.py", *map(str, words)]
    with host.popen(*command, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=LONG)
    if process.returncode:
        raise LabError(f"{program}.py: exit status {process.returncode}")
    return json.loads(out or "null")


def systemd_run(bench: Bench) -> list[Figure]:
    """One VM: etcdctl put -> QEMU executing, beside `systemd-run` of the same unit."""
    world = bench.world(UNCLOUD_METRICS_LISTEN="127.0.0.1:9477")
    world.host.run("install", "-m600", "/root/tiny.img", IMAGE)
    found = measured(world.host, "starts", world.name, bench.sizes.starts, IMAGE)
    ours, theirs = found["etcd"], [one["typed"] for one in found["systemd-run"]]
    world.host.destroy()
    return [
        seconds("systemd-run typed -> QEMU executing", theirs, theirs),
        seconds("etcdctl put acknowledged -> QEMU executing", _each(ours, "acknowledged"), theirs, Goal(1.0)),
        seconds("etcdctl put typed -> QEMU executing", _each(ours, "typed"), theirs),
        *(seconds(f"  of the agent: {step} (mean)", [mean]) for step, mean in found["steps"].items()),
    ]


def libvirt(bench: Bench) -> list[Figure]:
    """A paused VM by virsh and others, on a host of their own, beside a start of ours; lists of VMs, and memory."""
    host = bench.lab.host("peer1", [tree.libvirt()])
    host.boot()
    push(host)
    host.push(guests.tiny(), IMAGE)
    vms = bench.sizes.listed
    found = measured(host, "peers", bench.sizes.starts, vms)
    host.destroy()
    ours = next(one for one in systemd_run(bench) if one.goal)
    virsh = seconds("virsh create --paused", found["virsh"], found["virsh"])
    world = bench.world()
    measured(world.host, "fleet", "put", world.name, vms)
    looked = measured(world.host, "fleet", "look", bench.sizes.starts)
    world.host.destroy()
    return [
        virsh,
        replace(ours, what=f"{ours.what} (beside virsh)", beside=virsh.median, goal=Goal(0.1)),
        seconds("systemd-run of a bare QEMU", found["systemd-run"], found["virsh"]),
        seconds("a bare QEMU from a shell, until it has become a daemon", found["shell"], found["virsh"]),
        seconds(f"virsh list, {vms} VMs", found["list"], found["list"]),
        seconds(f"uncloud-host ls, {vms} VMs", looked["list"], found["list"]),
        Figure(f"memory of libvirtd (PSS), {vms} VMs", (found["libvirtd"],), "MiB"),
        Figure(f"memory of the agent (PSS), {vms} VMs", (looked["memory"],), "MiB", found["libvirtd"]),
    ]


def at_once(bench: Bench) -> list[Figure]:
    """Many VMs in one go, beside a bare loop of StartTransientUnit."""
    world, count = bench.world(), bench.sizes.at_once
    found = measured(world.host, "burst", world.name, count, bench.sizes.rounds)
    loop = _each(found["loop"], "active")
    world.host.destroy()
    return [
        seconds(f"StartTransientUnit x {count} in a loop -> all executing", loop, loop),
        seconds(f"put x {count} -> all executing", _each(found["etcd"], "active"), loop, Goal(1.3)),
        seconds(f"put x {count} -> all RUNNING in etcd", _each(found["etcd"], "told"), loop),
        seconds("  longest wait for `systemctl list-units` meanwhile", _each(found["etcd"], "answer")),
    ]


def reboot(bench: Bench) -> list[Figure]:
    """A host boots that is to run many VMs, beside the same loop."""
    world, count = bench.world(), bench.sizes.reboot
    loop = _each(measured(world.host, "burst", world.name, count, bench.sizes.rounds)["loop"], "active")
    measured(world.host, "fleet", "put", world.name, count)
    ours = []
    for _ in range(bench.sizes.rounds):
        world.host.reboot()
        ours.append(measured(world.host, "fleet", "up", count)["active"])
    world.host.destroy()
    return [seconds(f"reboot with {count} VMs: agent executed -> all executing", ours, loop, Goal(1.3))]


def ends(bench: Bench) -> list[Figure]:
    """A VM is killed -> that is in the log; -> a mail server has a mail about it."""
    world = bench.world(UNCLOUD_MAIL_TO="sre@example.org")
    found = measured(world.host, "ends", world.name, bench.sizes.kills)
    world.host.destroy()
    return [
        seconds("killed -> record in /v1/log", _each(found, "log"), goal=Goal(50, "p99")),
        seconds("  killed -> PID 1 forks the recorder", _each(found, "begun")),
        seconds("  killed -> PID 1 knows that it has ended", _each(found, "recorded")),
        seconds("killed -> mail accepted", _each(found, "mail"), goal=Goal(2000, "p99")),
    ]


def moves(bench: Bench) -> list[Figure]:
    """The old QEMU has ended -> the new one is executing, on another host."""
    cluster = Cluster(bench.lab, ["vmhost1", "vmhost2"], ["etcd1"])
    with cluster.witness:
        cluster.install(bench.package, UNCLOUD_MAIL_TO="")
        here, there = cluster.worlds
        uuid = cluster.vm(here)
        for _ in range(bench.sizes.moves):
            cluster.move(uuid, there)
            cluster.wait_runs(uuid, there)
            here, there = there, here
        gaps = cluster.witness.gaps(uuid)
    cluster.destroy()
    return [seconds(f"move: nobody runs it for (+- {1000 * CLOCK:g} ms)", gaps)]


def idle(bench: Bench) -> list[Figure]:
    """What the agent costs on a full host of a large cluster."""
    world, sizes = bench.world(), bench.sizes
    told = measured(world.host, "idle", world.name, sizes.idle, sizes.entries, sizes.seconds)
    world.host.destroy()
    where = f"{sizes.idle} VMs, {sizes.entries} entries of others"
    with_, without = told["idle"], told["idle_without"]
    return [
        Figure(f"memory (PSS), {sizes.idle} VMs", (told["memory_before"],), "MiB"),
        Figure(f"memory (PSS), {where}", (told["memory"],), "MiB", goal=Goal(60, "median")),
        Figure("  after its restart", (told["memory_after_restart"],), "MiB"),
        Figure(
            f"CPU of the agent with nothing to do, {sizes.idle} VMs", (with_["agent"],), "%", goal=Goal(0.1, "median")
        ),
        Figure("  of PID 1", (with_["pid1"],), "%"),
        Figure("  of PID 1 without the agent", (without["pid1"],), "%"),
        Figure("  of the bus", (with_["bus"],), "%"),
        Figure("  of the bus without the agent", (without["bus"],), "%"),
        Figure(
            "changes of others digested, by a core",
            (told["digested"],),
            "/s",
            goal=Goal(50_000, "median", at_least=True),
        ),
        seconds(f"agent's restart -> first full pass, {where}", told["restart"], goal=Goal(4000, "median")),
    ]


def grow(bench: Bench) -> list[Figure]:
    """What a start, the agent, its list and an audit cost as the number of VMs grows, in a large cluster."""
    world, sizes = bench.world(UNCLOUD_STOP_TIMEOUT="2"), bench.sizes
    told = measured(world.host, "grow", world.name, sizes.entries, sizes.seconds, *sizes.growth)
    world.host.destroy()
    found: list[Figure] = []
    for count, one in told.items():
        goal = Goal(4.0) if (int(count), sizes.entries) == (1000, 100_000) else None
        found += [
            seconds(f"{count} VMs: put acknowledged -> one more executing", one["start"]),
            seconds(f"{count} VMs: uncloud-host ls", one["list"]),
            Figure(f"{count} VMs: CPU of the agent with nothing to do", (one["idle"],), "%"),
            Figure(f"{count} VMs: memory of the agent (PSS)", (one["memory"],), "MiB"),
            seconds(f"{count} VMs: etcdctl get --prefix /v1/vm/", one["get"], one["get"]),
            seconds(f"{count} VMs: audit, {sizes.entries} entries of others", one["audit"], one["get"], goal),
        ]
    return found


def _each(found: Sequence[dict[str, float]], name: str) -> list[float]:
    return [one[name] for one in found]


ROWS: dict[str, Callable[[Bench], list[Figure]]] = {
    "systemd-run": systemd_run, "libvirt": libvirt, "at-once": at_once, "reboot": reboot, "ends": ends, "moves": moves,
    "idle": idle, "grow": grow,
}  # fmt: skip
