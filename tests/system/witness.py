"""An observer beside the hosts: which VM ran where and when, as the kernel shows it, whatever the hosts believe."""

import os
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import Lab
from lab.machine import LabError, Process

EVERY = 0.02  # seconds between two looks
YOUNG = 3.0  # seconds in which a process may still become a QEMU: PID 1's child executes it after it has set all up
SWEEP = 1.0  # seconds between two looks at all the others, whose pids may be somebody else's by now
QEMU = b"/usr/bin/qemu-system-x86_64"


@dataclass(slots=True)
class Run:
    """One QEMU. It was there from `first` to `last` and not any more at `gone`, on time.monotonic's clock."""

    uuid: str
    host: str
    invocation: str  # which run that is, for systemd and in our records
    revision: int  # the entry's mod_revision that it was started by
    process: Process
    first: float
    last: float
    gone: float | None = None
    seen: datetime = field(default_factory=lambda: datetime.now(UTC))  # `first` by the wall clock

    def __str__(self) -> str:
        end = "now" if self.gone is None else f"{self.last:.3f}"
        which = f"pid {self.process.pid}, invocation {self.invocation}"
        return f"{self.uuid} on {self.host}, {which}: from {self.first:.3f} to {end}"


class Witness:
    """Looks at every process of a lab's hosts, all the time. As a context manager: within the `with` block.

    It sees a run begin late and never too early, and end early and never too late: two runs that overlap here did.
    """

    def __init__(self, lab: Lab) -> None:
        self._cgroup = f"/{lab.cgroup.name}/"
        self._runs: list[Run] = []
        self._others: dict[int, float] = {}  # pids of what is no QEMU of ours, and when they were first seen
        self._swept = 0.0
        self._looks = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def runs(self, uuid: str = "") -> list[Run]:
        """All runs of a VM, or of all VMs, in the order in which they began."""
        return [run for run in list(self._runs) if not uuid or run.uuid == uuid]

    def hosts(self, uuid: str) -> list[str]:
        """Where a VM ran, one name for each run."""
        return [run.host for run in self.runs(uuid)]

    def doubles(self, since: float = 0.0) -> list[str]:
        """Who ran twice at the same moment, on two hosts or on one; empty if all is well. `since`: begun after that."""
        assert self._thread.is_alive(), "the witness has looked away"
        found: list[str] = []
        for uuid in sorted({run.uuid for run in self.runs()}):
            # By beginning: if any two overlap, so do two neighbours, unless one between them ended sooner.
            latest: Run | None = None
            for run in self.runs(uuid):
                if latest and since <= run.first <= latest.last:
                    found.append(f"{latest}\n{run}")
                latest = run if latest is None or run.last > latest.last else latest
        return found

    def gaps(self, uuid: str) -> list[float]:
        """Seconds between the end of each run of a VM and the beginning of the next."""
        return [after.first - before.last for before, after in pairwise(self.runs(uuid))]

    def look_again(self) -> None:
        """Return when everything has been looked at once more."""
        seen, deadline = self._looks, time.monotonic() + 10
        while self._looks < seen + 2:
            assert self._thread.is_alive(), "the witness has looked away"
            assert time.monotonic() < deadline, "the witness has fallen asleep"
            time.sleep(EVERY)

    def _watch(self) -> None:
        while not self._is_over.is_set():
            self._look()
            self._looks += 1
            self._is_over.wait(EVERY)

    def _look(self) -> None:
        running = {run.process.pid: run for run in self._runs if run.gone is None}
        for run in running.values():
            now = time.monotonic()
            if _words(run.process.pid, "cmdline") and run.process.alive():
                run.last = now
            else:
                run.gone = time.monotonic()
        now = time.monotonic()
        sweeps = now >= self._swept + SWEEP
        self._swept = now if sweeps else self._swept
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._others = {pid: since for pid, since in self._others.items() if pid in pids}
        for pid in pids - {pid for pid, run in running.items() if run.gone is None}:
            if sweeps or now < self._others.setdefault(pid, now) + YOUNG:
                self._examine(pid)

    def _examine(self, pid: int) -> None:
        argv = _words(pid, "cmdline")
        if argv[:1] != [QEMU] or b"-uuid" not in argv or not (host := self._host(pid)):
            return
        try:
            process = Process.of(pid)
        except LabError:  # it was there a moment ago
            return
        environment = dict(word.partition(b"=")[::2] for word in _words(pid, "environ"))
        uuid, invocation = argv[argv.index(b"-uuid") + 1], environment.get(b"INVOCATION_ID", b"")
        revision = int(environment.get(b"UNCLOUD_REVISION", b"0"))
        now = time.monotonic()
        self._runs.append(Run(uuid.decode(), host, invocation.decode(), revision, process, now, now))
        self._others.pop(pid, None)

    def _host(self, pid: int) -> str:
        """The host that a process runs on; nothing if that is none of this lab."""
        try:
            path = Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return path.partition(self._cgroup)[2].partition("/")[0]


def _words(pid: int, name: str) -> list[bytes]:
    """The command line or the environment of a process; empty if it is gone, a zombie or the kernel's own."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []
