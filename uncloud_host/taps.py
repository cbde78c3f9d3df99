"""Taps that no VM has any more: found by their names, removed by a program in a unit of its own.

A VM's recorder removes its taps. Where it could not run (`systemctl kill --signal=KILL` kills it, too, and PID 1 starts
nothing for a unit that is stopped while it waits to be restarted) they are left, and found here.
"""

import logging
import os
import re
import subprocess
from collections.abc import Iterable

from uncloud_host import names, unit
from uncloud_host.systemd import Systemd

logger = logging.getLogger(__name__)

INTERFACES = "/sys/class/net"
ANSWER = 10.0  # seconds for the program
_NAME = re.compile(r"t(?P<vm>[0-9a-f]{12})[0-9]{1,2}")  # as names.tap() names them


def left_over(interfaces: Iterable[str], units: Iterable[str]) -> list[str]:
    """Choose those whose name says that they are a VM's and whose VM has no unit, in whatever state. Pure."""
    uuids = filter(None, map(unit.uuid_of, units))
    known = {names.short(uuid) for uuid in uuids}
    return sorted(name for name in interfaces if (found := _NAME.fullmatch(name)) and found["vm"] not in known)


class Sweeper:
    """Looks after taps at each full pass."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._said: set[str] = set()  # at the last look

    def sweep(self) -> None:
        """Remove what is left over. Raises SystemdError.

        Interfaces are listed before units: a tap is made after its unit, so that of a unit that is new is never taken
        for left over. Waits for the program: no VM is started meanwhile that would use the same tap.
        """
        ours = [name for name in os.listdir(INTERFACES) if _NAME.fullmatch(name)]
        left = left_over(ours, [listed.name for listed in self._systemd.units()]) if ours else []
        said = _remove([name for name in left if os.path.exists(f"{INTERFACES}/{name}/tun_flags")])  # noqa: PTH110
        for line in sorted(said - self._said):
            logger.info("%s", line)
        self._said = said


def _remove(taps: list[str]) -> set[str]:
    """Let the program remove them; return what it, or whoever could not start it, says."""
    if not taps:
        return set()
    words = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--pipe",
        "--wait",
        "--property=CapabilityBoundingSet=CAP_NET_ADMIN",
    ]
    words += [f"{unit.PROGRAMS}/sweep", *taps]
    try:
        done = subprocess.run(words, capture_output=True, timeout=ANSWER, check=False, text=True, errors="replace")  # noqa: S603 - our words
    except (OSError, subprocess.TimeoutExpired) as error:
        return {f"cannot remove taps: {error}"}
    return set((done.stdout if done.returncode == 0 else f"cannot remove taps: {done.stderr}").splitlines())
