"""What may happen to Ceph, where some of the VMs have their disks. None of it may end a VM that runs."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

from faults.weather import Kind, Sky, insist
from lab.ceph import OSD, USER

STRAY = "stray.service"


@contextmanager
def the_monitor_is_killed(sky: Sky, _chance: random.Random) -> Iterator[str]:
    sky.ceph.kill_monitor()
    yield sky.ceph.host.name
    sky.ceph.heal()


@contextmanager
def the_osd_is_frozen(sky: Sky, _chance: random.Random) -> Iterator[str]:
    sky.ceph.host.run("systemctl", "kill", "--signal=STOP", OSD)
    yield sky.ceph.host.name
    sky.ceph.host.run("systemctl", "kill", "--signal=CONT", OSD)


@contextmanager
def ceph_is_cut_off(sky: Sky, _chance: random.Random) -> Iterator[str]:
    sky.ceph.host.cut()
    yield sky.ceph.host.name
    sky.ceph.heal()


@contextmanager
def somebody_has_an_image_open(sky: Sky, chance: random.Random) -> Iterator[str]:
    """A QEMU started by hand: a VM that is to be started meanwhile waits for it."""
    image = chance.choice([wish.image for wish in sky.wishes if wish.image])
    world = chance.choice(sky.cluster.worlds)
    pool, name = image.split("/")
    disk = {"driver": "rbd", "node-name": "disk0", "pool": pool, "image": name, "user": USER}
    qemu = ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-m", "16"]
    qemu += ["-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk0"]
    with sky.power[world.name]:
        world.host.run("systemd-run", "--quiet", "--collect", f"--unit={STRAY}", *qemu)
        yield f"{image} on {world.name}"
        insist(lambda: world.host.run("systemctl", "kill", "--signal=KILL", STRAY))


KINDS = (
    Kind(the_monitor_is_killed, 0, 8),
    Kind(the_osd_is_frozen, 0, 8),
    Kind(ceph_is_cut_off, 0, 8),
    Kind(somebody_has_an_image_open, 1, 8),
    Kind(somebody_has_an_image_open, 1, 8),
)
