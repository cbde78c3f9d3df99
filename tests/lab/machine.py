"""The machine that carries the lab: what it has, what it lacks, and where processes on it are.

Nothing here knows about hosts or trees.
"""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Chroots and hosts must not see the caller's: a pyenv or venv in front of /usr/bin breaks Debian's own tools.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}

CACHE = Path(os.environ.get("UNCLOUD_LAB_CACHE", "/var/cache/uncloud-host-lab"))
RUN = Path("/run/uncloud-host-lab")
POLL = 0.01  # seconds between two looks at a condition

# Program that proves the package is there -> package.
REQUIREMENTS = {
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "/usr/bin/unshare": "util-linux",
    "/usr/bin/git": "git",
    "/usr/bin/ip": "iproute2",
    "/usr/bin/as": "binutils",
    "/usr/bin/xorriso": "xorriso",
    "/usr/lib/ISOLINUX/isolinux.bin": "isolinux",
    "/usr/lib/syslinux/modules/bios/ldlinux.c32": "syslinux-common",
    "/usr/bin/cpio": "cpio",
    "/usr/bin/mformat": "mtools",
    "/usr/bin/xz": "xz-utils",
}


class LabError(Exception):
    """The lab could not do what was asked; the text says why."""


def say(message: str) -> None:
    """Tell the person who waits."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Announce a long step, then say how long it took."""
    say(f"{what} ...")
    start = time.monotonic()
    yield
    say(f"{what}: done after {time.monotonic() - start:.0f} s")


def run(command: Sequence[str | os.PathLike[str]]) -> str:
    """Run a command of the machine with a clean environment; returns its output, raises LabError with all it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True, errors="replace",
        env=ENVIRONMENT, cwd="/",
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise LabError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{tail}")
    return done.stdout


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as the condition holds; raise LabError saying `what` did not happen within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL)


def requirements() -> None:
    """Install what the lab needs on the machine and does not find there."""
    if os.geteuid():
        raise LabError("the lab needs root")
    missing = sorted({package for proof, package in REQUIREMENTS.items() if not Path(proof).exists()})
    if not missing:
        return
    with told(f"installing {' '.join(missing)} on this machine"):
        environment = ENVIRONMENT | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", "--quiet", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                stdin=subprocess.DEVNULL, text=True, env=environment,
            )  # fmt: skip
            if done.returncode:
                raise LabError(f"apt-get {words[0]} failed:\n{done.stdout}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock: two runs at the same time make a thing once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cgroup_root() -> Path:
    """Where cgroup2 is mounted: /sys/fs/cgroup, or a directory below it where cgroup v1 is mounted too."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if (fields := line.split())[2] == "cgroup2":
            return Path(fields[1])
    raise LabError("no cgroup2 is mounted on this machine")


def remove_cgroup(path: Path, seconds: float = 5) -> None:
    """Kill what is in a cgroup and remove it with all below it."""

    def gone() -> bool:
        for directory, _, _ in os.walk(path, topdown=False):
            try:
                Path(directory).rmdir()
            except OSError:  # the kernel lets go of a dying cgroup only when its last process is reaped
                break
        return not path.exists()

    if (kill := path / "cgroup.kill").exists():
        kill.write_text("1")
    wait_until(gone, seconds, f"cgroup {path} gone")


@dataclasses.dataclass(frozen=True)
class Process:
    """A process of the machine. Its start time tells it from a later one with the same pid."""

    pid: int
    start: int  # clock ticks since boot

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has this pid now."""
        if (start := _start(pid)) is None:
            raise LabError(f"process {pid} is gone")
        return cls(pid, start)

    @classmethod
    def parse(cls, text: str) -> "Process":
        """The process that `str` wrote down."""
        pid, start = text.split()
        return cls(int(pid), int(start))

    def __str__(self) -> str:
        return f"{self.pid} {self.start}"

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return _start(self.pid) == self.start

    def signal(self, number: signal.Signals | int) -> None:
        """Send a signal, if it is still there."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def _start(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def enter(process: Process, *kinds: str) -> list[str]:
    """The command's beginning that puts it into a process's namespaces: mount, net, pid, ... or all."""
    return ["nsenter", f"--target={process.pid}", *(f"--{kind}" for kind in kinds), "--"]
