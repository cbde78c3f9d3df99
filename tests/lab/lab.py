"""One lab: a switch, a disk for its hosts, and the process that ends it all together."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from . import tree
from .holder import cgroup_name, sweep
from .host import Host
from .machine import ENVIRONMENT, RUN, LabError, Process, cgroup_root, enter, locked, requirements, run, wait_until

NETWORK = "10.199.0"  # every lab has its own, so that they all can use the same; .1 is the machine, hosts begin at .2


class Lab:
    """A lab and its hosts. As a context manager it exists within the `with` block.

    layers: trees that the hosts' disks are overlays of, uppermost first.
    binds: {path on the machine: path in each host}, read-only.
    uplink: the machine gets 10.199.0.1 in the lab's network; one lab at a time can have that.
    keep: the lab outlives its owner; Lab.attach(name) finds it again.
    size: limit of all disks together, in mount's words; they are kept in memory.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[Path] | None = None,
        *,
        binds: Mapping[Path, str] | None = None,
        uplink: bool = False,
        keep: bool = False,
        size: str = "4g",
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,11}", name):
            raise LabError(f"bad lab name {name!r}: a letter, then up to 11 letters, digits or dashes")
        self.name = name
        self.layers = list(layers) if layers is not None else []
        self.binds = dict(binds or {})
        self.uplink, self.keep, self.size = uplink, keep, size
        self.directory = RUN / name
        self.cgroup = cgroup_root() / cgroup_name(name)
        self._hosts: dict[str, Host] = {}
        self._keeper: subprocess.Popen[str] | None = None
        self._trees: list[int] = []  # descriptors that keep the hosts' own layers from being pruned

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Make the switch and the disk; no host yet."""
        requirements()
        self.layers = self.layers or [tree.base()]
        with locked(RUN / "lock"):
            if self._noted("keeper"):
                raise LabError(f"lab {self.name} exists; `python3 tests/lab down {self.name}` ends it")
            sweep(self.name)
            (self.directory / "disk").mkdir(parents=True)
            (self.directory / "hosts").mkdir()
            self._make_cgroup()
            self._write()
            self._hold()
        if self.uplink:
            self._plug_machine()

    def close(self) -> None:
        """End the lab at once: hosts, disks, network."""
        if keeper := self._noted("keeper"):
            keeper.signal(signal.SIGTERM)
        if self._keeper:
            self._keeper.wait(timeout=30)
        wait_until(lambda: not self.directory.exists(), 30, f"lab {self.name} gone")
        for host in self._hosts.values():
            host.reap()
        self._hosts.clear()
        while self._trees:
            os.close(self._trees.pop())

    @classmethod
    def attach(cls, name: str) -> "Lab":
        """The lab of this name that runs already."""
        try:
            state = json.loads((RUN / name / "lab.json").read_text())
        except FileNotFoundError:
            raise LabError(f"there is no lab {name}") from None
        binds = {Path(outside): inside for outside, inside in state["binds"].items()}
        lab = cls(name, [Path(layer) for layer in state["layers"]], binds=binds, keep=True)
        lab.holder()
        return lab

    @staticmethod
    def names() -> list[str]:
        """Names of the labs on this machine, also of dead ones whose files are left."""
        return sorted(path.parent.name for path in RUN.glob("*/lab.json"))

    def host(self, name: str, layers: Sequence[Path] | None = None) -> Host:
        """The host of this name; made, but not booted, when there is none. Its disk is an overlay of the lab's layers,
        or of its own."""
        if name not in self._hosts:
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,11}", name):
                raise LabError(f"bad host name {name!r}: a letter, then up to 11 letters, digits or dashes")
            self._trees += [used for layer in layers or () if (used := tree.in_use(layer)) is not None]
            self._hosts[name] = Host(self, name, layers or self.layers)
        return self._hosts[name]

    def hosts(self) -> Iterator[Host]:
        """All hosts, by name."""
        for path in sorted((self.directory / "hosts").glob("*.json")):
            yield self.host(path.stem)

    def forget(self, name: str) -> None:
        """Drop a host that was destroyed."""
        self._hosts.pop(name, None)

    def holder(self) -> Process:
        """The lab's init, in whose mount and network namespaces disks and switch are."""
        if holder := self._noted("holder"):
            return holder
        raise LabError(f"lab {self.name} is dead")

    def in_holder(self, *command: str) -> str:
        """Run a command of the machine where the lab's mounts and its switch are."""
        return run([*enter(self.holder(), "mount", "net"), *command])

    def _noted(self, what: str) -> Process | None:
        """One of the lab's own processes, if it lives."""
        with contextlib.suppress(FileNotFoundError):
            process = Process.parse((self.directory / what).read_text())
            return process if process.alive() else None
        return None

    def _make_cgroup(self) -> None:
        """Pass on to the hosts whatever controllers the machine gives its services; on some it is none."""
        self.cgroup.mkdir()
        controllers = (self.cgroup / "cgroup.controllers").read_text().split()
        (self.cgroup / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))

    def _write(self) -> None:
        binds = {str(outside): inside for outside, inside in self.binds.items()}
        state = {"layers": [str(layer) for layer in self.layers], "binds": binds}
        (self.directory / "lab.json").write_text(json.dumps(state))

    def _hold(self) -> None:
        """Start the process that ends the lab with its owner; it keeps the trees from being pruned."""
        owner = Process.of(os.getpid())
        words = [sys.executable, str(Path(__file__).parent), "hold", self.name, self.size]
        words += [] if self.keep else [str(owner.pid), str(owner.start)]
        trees = [descriptor for layer in self.layers if (descriptor := tree.in_use(layer)) is not None]
        with tempfile.TemporaryFile() as log:
            self._keeper = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, pass_fds=trees,
                start_new_session=True, env=ENVIRONMENT, cwd="/",
            )  # fmt: skip
            for descriptor in trees:
                os.close(descriptor)
            assert self._keeper.stdout
            with self._keeper.stdout as out:
                pid = out.readline()
            if not pid:
                said = os.pread(log.fileno(), 4096, 0).decode(errors="replace")
                raise LabError(f"lab {self.name} did not start:\n{said}")
        (self.directory / "keeper").write_text(str(Process.of(self._keeper.pid)))
        (self.directory / "holder").write_text(str(Process.of(int(pid))))

    def _plug_machine(self) -> None:
        """Connect the machine to the switch; the cable vanishes with the lab's network namespace."""
        device = f"lab-{self.name[:11]}"
        run(["ip", "link", "add", device, "type", "veth", "peer", "name", "up0", "netns", str(self.holder().pid)])
        self.in_holder("ip", "link", "set", "up0", "master", "sw0", "up")
        run(["ip", "address", "add", f"{NETWORK}.1/24", "dev", device])
        run(["ip", "link", "set", device, "up"])
