"""What VMs have used, as the kernel counts it in the cgroups of their units."""

import re
from contextlib import suppress
from pathlib import Path

from uncloud_host import unit
from uncloud_host.figures import Usage

CGROUP = Path("/sys/fs/cgroup/uncloud.slice") / unit.SLICE  # systemd nests slices by the dashes in their names


def usage(uuid: str, where: Path = CGROUP) -> Usage:
    """Read what a VM has used since its present run began."""
    cgroup = where / unit.name(uuid)
    cpu = re.search(r"(?m)^usage_usec (\d+)$", _text(cgroup / "cpu.stat") or "")
    memory, io = _text(cgroup / "memory.current"), _text(cgroup / "io.stat")
    return Usage(
        int(cpu[1]) / unit.SECOND if cpu else None,
        int(memory) if memory is not None else None,
        None if io is None else sum(map(int, re.findall(r"\brbytes=(\d+)", io))),
        None if io is None else sum(map(int, re.findall(r"\bwbytes=(\d+)", io))),
    )


def _text(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text()
    return None
