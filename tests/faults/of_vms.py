"""What may happen to VMs themselves, and to the mails about them."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from faults.clients import Wish
from faults.weather import SAME, Cause, Kind, Sky
from system.witness import Run
from system.world import World

QEMU = "/usr/bin/qemu-system-x86_64"
MODE = "/run/postbox"  # see system/postbox.py
LETTERS = {"p": "power-off from within", "x": "panic"}


@contextmanager
def a_qemu_is_killed(sky: Sky, chance: random.Random) -> Iterator[str]:
    number = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM))
    yield _end(sky, chance, number.name, lambda _world, run: run.process.signal(number))


@contextmanager
def a_qemu_is_frozen(sky: Sky, chance: random.Random) -> Iterator[str]:
    if not (run := _one(sky, chance)):
        yield ""
        return
    run.process.signal(signal.SIGSTOP)
    yield str(run)
    if run.process.alive():
        run.process.signal(signal.SIGCONT)


@contextmanager
def a_guest_ends(sky: Sky, chance: random.Random) -> Iterator[str]:
    letter = chance.choice(sorted(LETTERS))
    yield _end(sky, chance, LETTERS[letter], lambda world, run: world.shell(_typing(run, letter), check=False))


@contextmanager
def a_guest_reboots(sky: Sky, chance: random.Random) -> Iterator[str]:
    """No run ends for that."""
    yield _type(sky, _one(sky, chance), "r")


@contextmanager
def a_guest_hangs(sky: Sky, chance: random.Random) -> Iterator[str]:
    """It runs on, deaf to everything: who wants its end waits for as long as it was to be given."""
    yield _type(sky, _one(sky, chance), "h")


@contextmanager
def a_guest_floods_its_console(sky: Sky, chance: random.Random) -> Iterator[str]:
    """It tells lines as fast as it can for seconds, deaf to everything."""
    if run := _one(sky, chance):
        sky.flooded.add(run.uuid)
    yield _type(sky, run, "f")


@contextmanager
def somebody_stops_a_unit(sky: Sky, chance: random.Random) -> Iterator[str]:
    """That is honoured: its user has to ask again."""
    yield _systemctl(sky, chance, "stop")


@contextmanager
def somebody_restarts_a_unit(sky: Sky, chance: random.Random) -> Iterator[str]:
    yield _systemctl(sky, chance, "restart")


@contextmanager
def somebody_kills_a_unit(sky: Sky, chance: random.Random) -> Iterator[str]:
    yield _systemctl(sky, chance, "kill", "--signal=KILL")


@contextmanager
def somebody_makes_a_unit_of_a_vms_name(sky: Sky, chance: random.Random) -> Iterator[str]:
    wish = chance.choice(sky.wishes)
    world = next(world for world in sky.cluster.worlds if world.name == wish.host)
    unit = f"vm-{wish.uuid}.service"
    with sky.power[world.name]:
        words = ["systemd-run", "--quiet", f"--unit={unit}", "--property=Description=by hand", "sleep", "300"]
        if wish.asked == "on" or world.host.run(*words, check=False).returncode:  # there is one
            yield ""
            return
        sky.excused.add(wish.uuid)
        yield f"{unit} on {world.name}"
        # Only that one: meanwhile it may have been ended by somebody else, and the VM been started.
        world.shell(f'[ "$(systemctl show -P Description {unit})" != "by hand" ] || systemctl stop {unit}', check=False)


@contextmanager
def qemu_is_missing(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.cluster.worlds)
    with sky.power[world.name]:
        sky.excused.add(world.name)
        world.shell(f"mv {QEMU} {QEMU}.away")
        yield world.name
        world.shell(f"mv {QEMU}.away {QEMU}")


@contextmanager
def the_mail_server_is_away(sky: Sky, chance: random.Random) -> Iterator[str]:
    world = chance.choice(sky.cluster.worlds)
    with sky.power[world.name]:
        world.host.run("systemctl", "stop", "lab-smtp")
        yield world.name
        world.host.run("systemctl", "start", "lab-smtp")


@contextmanager
def the_mail_server_misbehaves(sky: Sky, chance: random.Random) -> Iterator[str]:
    world, mode = chance.choice(sky.cluster.worlds), chance.choice(("closes", "hangs", "defers", "denies"))
    with sky.power[world.name]:
        world.shell(f"echo {mode} > {MODE}", check=False)  # /run may be full
        yield f"{world.name} {mode}"
        world.shell(f"rm -f {MODE}")


def _systemctl(sky: Sky, chance: random.Random, verb: str, *words: str) -> str:
    def act(world: World, run: Run) -> None:
        sky.excused.update({run.uuid} if verb == "stop" else ())
        # What the user does meanwhile may cancel it.
        world.host.run("systemctl", verb, *words, "--", f"vm-{run.uuid}.service", check=False)

    return _end(sky, chance, f"systemctl {verb}", act)


def _end(sky: Sky, chance: random.Random, what: str, act: Callable[[World, Run], object]) -> str:
    """Do something to a VM that ends its run, and give the reason beforehand to whoever sees it end."""
    run = _one(sky, chance)
    world = _host(sky, run)
    if not run or not world:
        return ""
    _wish(sky, run).kills += 1
    with sky.power[world.name]:
        # A unit may have been started again since we looked: whatever of this VM runs here before we are done.
        began = time.monotonic()
        act(world, run)
        for seen in sky.cluster.witness.runs(run.uuid):
            if seen.host == run.host and (seen.gone is None or seen.gone >= began):
                sky.causes.append(Cause(began, what, seen.invocation))
    return f"{what} {run}"


def _one(sky: Sky, chance: random.Random) -> Run | None:
    """A run of a VM that has not been ended too often."""
    runs = [run for run in sky.cluster.witness.runs() if run.gone is None and _wish(sky, run).kills < SAME]
    return chance.choice(runs) if runs else None


def _host(sky: Sky, run: Run | None) -> World | None:
    return next((world for world in sky.cluster.worlds if run and world.name == run.host), None)


def _wish(sky: Sky, run: Run) -> Wish:
    return next(wish for wish in sky.wishes if wish.uuid == run.uuid)


def _type(sky: Sky, run: Run | None, letter: str) -> str:
    """Type on a guest's console what ends no run; say which run's."""
    if not run or not (world := _host(sky, run)):
        return ""
    with sky.power[world.name]:
        world.shell(_typing(run, letter), check=False)
    return str(run)


def _typing(run: Run, letter: str) -> str:
    """Type on a guest's console, unless it is gone."""
    socket = f"/run/uncloud-vm/{run.uuid}/console.sock"
    return (
        "timeout 5 python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        f" s.sendall(sys.argv[2].encode())' {socket} {letter}"
    )


KINDS = (
    *(Kind(a_qemu_is_killed) for _ in range(4)),  # often
    Kind(a_qemu_is_frozen, 0.5, 4),
    Kind(a_guest_ends),
    Kind(a_guest_ends),
    Kind(a_guest_reboots),
    Kind(a_guest_hangs),
    Kind(a_guest_floods_its_console),
    Kind(somebody_stops_a_unit),
    Kind(somebody_restarts_a_unit),
    Kind(somebody_kills_a_unit),
    Kind(somebody_makes_a_unit_of_a_vms_name, 0.5, 4),
    Kind(qemu_is_missing, 0.5, 3),
)
MAIL = (Kind(the_mail_server_is_away, 1, 10), Kind(the_mail_server_misbehaves, 1, 12))
