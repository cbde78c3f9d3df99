"""What systemd says about this host's VMs, read with as few calls as possible.

A list of all units is one call; what only changes with a new run is read when a signal or the list says that the unit
has changed, and kept until then.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from uncloud_host import spool, unit
from uncloud_host.facts import Observed
from uncloud_host.systemd import Listed, Systemd
from uncloud_host.unit import Evidence, State

ABSENT = Observed(State.ABSENT)


class Units:
    """The vm-* units as they were when they were last looked at."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._listed: dict[str, Listed] = {}
        self._doubted: set[str] = set()
        self._again: set[str] = set()  # to be doubted at the next look, too
        self.observed: dict[str, Observed] = {}

    def look(self, changed: Iterable[str | None]) -> dict[str, tuple[Observed, Observed]]:
        """Look again; return before and after of each VM whose run or state is another one now.

        `changed`: names of units that must be read anew; None means all. Raises SystemdError; what was to be read
        anew still is, next time.
        """
        self._doubted |= {name for name in changed if name is not None}
        if None in changed:
            self._doubted |= self._listed.keys()
        listed = {one.name: one for one in self._systemd.units() if self._is_there(one)}
        now = {uuid: self._read(uuid, one) for name, one in listed.items() if (uuid := unit.uuid_of(name))}
        before, self.observed = self.observed, {uuid: observed for uuid, observed in now.items() if observed}
        self._listed = listed
        self._doubted, self._again = self._again, set()
        both = {uuid: (before.get(uuid, ABSENT), self.get(uuid)) for uuid in before | self.observed}
        return {uuid: (old, new) for uuid, (old, new) in both.items() if old != new}

    def _read(self, uuid: str, listed: Listed) -> Observed | None:
        """Read one unit, or know that it has not changed; None if it has vanished since the list."""
        known = self.observed.get(uuid)
        if known and self._listed.get(listed.name) == listed and listed.name not in self._doubted:
            return known
        details = self._systemd.details(listed)
        evidence = unit.evidence(details.environment)
        if evidence and (limits := spool.limits(uuid, _start(evidence))) is not None:
            evidence = replace(evidence, limits=limits)  # its environment is still that of its start
        state = details.state
        if state != listed.state:  # it changes just now
            self._again.add(listed.name)
        if state == listed.state == State.ABSENT and listed.job:  # its start waits in the queue
            return Observed(State.STARTING, evidence) if evidence else None
        if state in (State.ABSENT, State.FAILED) and self._systemd.has_processes(listed.name):
            # PID 1 gave up waiting for a process that not even SIGKILL ends (it hangs in the kernel): it still runs.
            state = State.STOPPING
            self._again.add(listed.name)
        elif state == State.ABSENT != listed.state:  # between the two halves of a restart, or gone: a signal comes
            return known
        elif not details.invocation:
            return None
        return Observed(state, evidence, details.invocation, details.restarts, details.since)

    def limited(self, uuid: str, evidence: Evidence) -> None:
        """Remember that a unit has other limits now than it was started with."""
        self.observed[uuid] = replace(self.get(uuid), evidence=evidence)
        with suppress(OSError):  # /run is full: then the next agent sets them again, which changes nothing
            spool.write_limits(uuid, _start(evidence), evidence.limits)

    def _is_there(self, listed: Listed) -> bool:
        """Tell whether anything is left of a unit. `systemctl reset-failed` makes one inactive that has processes."""
        return listed.state != State.ABSENT or listed.job or self._systemd.has_processes(listed.name)

    def ours(self) -> set[str]:
        """List the VMs whose unit is here and was started by us."""
        return {uuid for uuid, observed in self.observed.items() if observed.evidence}

    def doubt(self, uuid: str) -> None:
        """Read this VM's unit anew next time."""
        self._doubted.add(unit.name(uuid))

    def invocation(self, uuid: str) -> str:
        """Read which run it is, now: the last look may have missed that systemd restarted it."""
        return self._systemd.invocation(unit.name(uuid))

    def __contains__(self, uuid: object) -> bool:
        """Tell whether there is a unit of this VM; may be asked by another thread."""
        return uuid in self.observed

    def get(self, uuid: str) -> Observed:
        """What is known of a VM's unit."""
        return self.observed.get(uuid, ABSENT)


def _start(evidence: Evidence) -> str:
    """Name the start of a unit; systemd's own restarts keep what was changed since."""
    return f"{evidence.claim} {evidence.mod_revision}"
