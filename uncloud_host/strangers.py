"""Programs on this host that run a virtual machine and may not be ours: what people are told of them. Pure.

Whoever runs one wrote its command, and may have written there what he likes: it is shown, and nothing is told from it.
"""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from uncloud_host.events import clean, stamp

COMMAND = 300  # characters of it, or of a word in it, that are shown: etcd takes no more than 1.5 MB of an audit
_SECRET = re.compile(r"""((?:data|password)["']?[=:]\s*["']?)[^,"'\s]+""")


@dataclass(frozen=True, slots=True)
class Program:
    """A process with a QEMU in it, or with KVM open, as /proc shows it."""

    pid: int
    start: int  # clock ticks since the boot: with the pid it names one process
    since: float  # seconds since 1970
    program: str  # the path of the file that it executes
    user: str
    cgroup: str
    command: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name this very process."""
        return f"pid-{self.pid}-{self.start}"

    @property
    def unit(self) -> str:
        """The unit of this host's systemd that it is in; below that there may be those of a user's or a container's."""
        parts = (part for part in self.cgroup.split("/") if part.endswith((".service", ".scope")))
        return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), next(parts, ""))

    @property
    def name(self) -> str:
        """What its command calls the guest."""
        words = self._after("-name").split(",")
        return next((word.removeprefix("guest=") for word in words if word.startswith("guest=")), words[0])

    @property
    def uuid(self) -> str:
        """Which uuid its command gives the guest."""
        return self._after("-uuid")

    def _after(self, option: str) -> str:
        given = dict(zip(self.command, self.command[1:], strict=False))
        return (given.get(option) or given.get(f"-{option}", ""))[:COMMAND]


def describe(one: Program) -> str:
    """Say in a sentence what it is, whose, since when and where."""
    name = " ".join(filter(None, [one.name, f"({one.uuid})" if one.uuid else ""]))
    since = stamp(datetime.fromtimestamp(one.since, UTC))[:19] + "Z"
    told = f"{os.path.basename(one.program)} {name}".strip()  # noqa: PTH119 - a text
    return f"{told}, pid {one.pid} of user {one.user} since {since}, {_origin(one)}: {shown(one.command)}"


def _origin(one: Program) -> str:
    unit = one.unit or one.cgroup
    if unit.startswith("machine-qemu"):
        return f"{_one(one)}libvirt's {unit}"
    if one.cgroup.startswith("/user.slice"):
        return f"{_one(one)}started by hand in {unit}"
    return f"{_one(one)}in {unit}"


def _one(one: Program) -> str:
    return "OpenNebula's VM, " if re.fullmatch(r"one-[0-9]+", one.name) else ""


def shown(command: tuple[str, ...]) -> str:
    """Shorten a command, without what may be a secret in it."""
    text = clean(_SECRET.sub(r"\1...", " ".join(command)[: 2 * COMMAND]))
    return text if len(text) <= COMMAND else f"{text[:COMMAND]}..."
