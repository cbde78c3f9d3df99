"""What QEMU says while a VM runs: the QMP events that its flight recorder keeps, a JSON object in a line. Pure.

A guest that took over its QEMU may write anything: these are hints for people, nothing is done about them.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

_NAMES = re.compile(b"RESET|WATCHDOG|BLOCK_IO_ERROR|RESUME")
AHEAD = 60.0  # seconds that a clock may be set back, and what was said before is still told


class Kind(StrEnum):
    """What is worth knowing of a VM that runs."""

    REBOOT = "reboot"
    WATCHDOG = "watchdog"
    DISK_ERROR = "disk-error"
    GOES_ON = "goes-on"


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that QEMU said. `time` in seconds since 1970."""

    kind: Kind
    time: float
    text: str


def of_interest(lines: Iterable[bytes]) -> list[bytes]:
    """Leave out most of what a guest can make QEMU say, 100,000 times a second if it likes, before any is parsed."""
    return [line for line in lines if _NAMES.search(line)]


def signs(lines: Iterable[str | bytes]) -> list[Sign]:
    """Read what there is; lines that say nothing of interest, or cannot be read, are left out."""
    return [sign for line in lines if (sign := _sign(line))]


def lately(said: Iterable[Sign], now: float, age: float) -> list[Sign]:
    """Leave out what is older than `age` (seconds), which may have been told and forgotten since, and what has not
    happened yet: a guest that has broken out may write any time, also one that no calendar has."""
    return [sign for sign in said if now - age < sign.time < now + AHEAD]


def _sign(line: str | bytes) -> Sign | None:
    try:
        said = json.loads(line)
        name, about, at = said["event"], said.get("data", {}), said["timestamp"]
        time = int(at["seconds"]) + int(at["microseconds"]) / 1e6
        datetime.fromtimestamp(time, UTC)  # ValueError or OverflowError
        found = _meaning(name, about)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return Sign(found[0], math.floor(time * 1e3) / 1e3, found[1]) if found else None


def _meaning(name: str, about: dict[str, object]) -> tuple[Kind, str] | None:
    match name:
        case "RESET" if about.get("guest") is True:
            return Kind.REBOOT, "the guest rebooted"
        case "WATCHDOG":
            return Kind.WATCHDOG, f"the guest did not answer its watchdog: {about['action']}"
        case "BLOCK_IO_ERROR" if about.get("action") == "stop":
            why = "there is no space left" if about.get("nospace") is True else about.get("reason") or "it failed"
            verb = "reading from" if about.get("operation") == "read" else "writing to"
            return Kind.DISK_ERROR, f"{verb} {_disk(str(about.get('node-name', '')))}: {why}; the guest is paused"
        case "RESUME":
            return Kind.GOES_ON, "the guest goes on"
    return None


def _disk(node: str) -> str:
    """Name a disk as its entry does; the nodes are named by drives.py."""
    found = re.match(r"(?:format|disk)([0-9]+)", node)
    return f"disks[{found[1]}]" if found else "a disk"
