"""Several VM hosts with one etcd, which is on hosts of its own: so that any VM host may be lost."""

import uuid as uuids
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab import Lab
from system.etcds import Etcds
from system.witness import Witness
from system.world import IMAGES, World
from waiting import eventually

COUNTER = slice(512, 514)  # where the tiny guest counts its boots, on its disk


class Cluster:
    """VM hosts, their etcd, and a witness of everything that runs on them."""

    def __init__(
        self, lab: Lab, names: Sequence[str] = ("vmhost1", "vmhost2"), members: Sequence[str] = ("etcd1",)
    ) -> None:
        self.etcd = Etcds(lab, members)
        self.worlds = [World(lab.host(name), self.etcd) for name in names]
        self.witness = Witness(lab)

    def install(self, package: Path, **variables: str) -> None:
        """Set up all hosts, as an administrator would."""
        self.etcd.install()

        def install(world: World) -> None:
            world.host.boot()
            world.install(package, **variables)

        with ThreadPoolExecutor() as together:
            list(together.map(install, self.worlds))

    def destroy(self) -> None:
        for world in self.worlds:
            world.host.destroy()
        self.etcd.destroy()

    def mend(self) -> None:
        """Put right whatever a test broke: power, cables, agents."""
        for world in self.worlds:
            world.host.heal()
            if not world.host.process:
                self.boot(world)
            world.host.run("systemctl", "start", "uncloud-host")

    def boot(self, world: World) -> None:
        """Switch a host on again."""
        world.host.boot()
        world.serve()

    # VMs

    def new(self, world: World, **fields: Any) -> str:
        """Put a VM on a host. Each host has a disk for it, at the same path, with boots of its own on it."""
        uuid = str(uuids.uuid4())
        disks = [one.disk(uuid) for one in self.worlds]
        return world.put(uuid, {"disks": disks[:1]} | fields)

    def vm(self, world: World, **fields: Any) -> str:
        """Put a VM with the tiny guest on a host and wait until the guest has said that it is up."""
        uuid = self.new(world, **fields)
        world.wait_status(uuid, "RUNNING")
        world.wait_boots(uuid, 1)
        return uuid

    def move(self, uuid: str, there: World, **fields: Any) -> None:
        """Edit `host`: that is all that a user does to move a VM."""
        there.ask(uuid, host=there.name, **fields)

    def boots(self, uuid: str) -> list[int]:
        """How often the guest has booted, on each host: it counts on its own disk."""
        disks = [world.host.pull(f"{IMAGES}/{uuid}.img") for world in self.worlds]
        return [int.from_bytes(disk[COUNTER], "little") for disk in disks]

    def wait_runs(self, uuid: str, there: World, *, within: float = 60) -> None:
        """Wait until a VM runs on a host and nowhere else, and etcd and systemd say so, too."""
        eventually(lambda: self.runs(uuid, there), within=within, what=lambda: self.told(uuid))

    def wait_rests(self, uuid: str, *, within: float = 60) -> None:
        """Wait until a VM runs nowhere, has no unit and is claimed by nobody."""
        eventually(lambda: self.rests(uuid), within=within, what=lambda: self.told(uuid))

    def runs(self, uuid: str, there: World) -> bool:
        """Whether a VM runs on a host and nowhere else, by its claim."""
        entry, claim = there.entry(uuid), there.claim(uuid)
        return (
            (entry.get("host"), entry.get("status"), claim.get("host")) == (there.name, "RUNNING", there.name)
            and all(_has_unit(world, uuid) == (world is there) for world in self.worlds)
            and f"UNCLOUD_CLAIM={claim['id']}" in there.show(uuid, "Environment")["Environment"]
            and len(there.qemus(uuid)) == 1
        )

    def rests(self, uuid: str) -> bool:
        """Whether nothing is left of a VM but its entry, if it has one."""
        return self.worlds[0].claim(uuid) == {} and not any(_has_unit(world, uuid) for world in self.worlds)

    def told(self, uuid: str) -> str:
        """All that is known of a VM, for the reader of a failed test."""
        first = self.worlds[0]
        lines = [f"entry: {first.raw(f'/v1/vm/{uuid}')}", f"claim: {first.raw(f'/v1/claim/{uuid}')}"]
        lines += [f"run: {run}" for run in self.witness.runs(uuid)]
        for world in self.worlds:
            lines += [f"record of {world.name}: {record}" for record in world.records(uuid)]
            if world.host.process:
                lines += [f"unit on {world.name}: {world.state(uuid)}, QEMU: {world.qemus(uuid)}"]
                lines += [f"{world.name}: {line}" for line in world.dated_journal(uuid).splitlines()]
        return "\n".join(lines)


def _has_unit(world: World, uuid: str) -> bool:
    """Whether a host has any trace of a VM; one that is off has none."""
    return world.host.process is not None and (world.state(uuid) != "inactive/dead" or bool(world.qemus(uuid)))
