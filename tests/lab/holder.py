"""The process that holds a lab together, and ends it.

A lab is a pid namespace: its init owns the mounts (a tmpfs with the hosts' disks) and the network (the bridge), and the
hosts' pid namespaces are nested in it. When that init is killed the kernel ends all of it at once. What the kernel does
not remove, cgroup directories and state files, is removed by `hold`, which runs outside and watches the lab's owner.
"""

import os
import select
import shutil
import signal
import subprocess
import sys

from .machine import ENVIRONMENT, RUN, Process, cgroup_root, remove_cgroup

# An init that ignores SIGCHLD leaves no zombies. Not with trap: dash does not pass that on.
INIT = """
mount -t tmpfs -o "size=$2,mode=755" lab "$1/disk"
ip link set lo up
ip link add sw0 type bridge
ip link set sw0 up
read -r pid _ < /proc/self/stat
echo "$pid"
exec >&2
exec env --ignore-signal=CHLD sleep infinity
"""


def hold(name: str, size: str, owner: Process | None) -> None:
    """Start the lab's init, wait until it dies or its owner does or SIGTERM comes, then clean up.

    The init prints its pid on our stdout.
    """
    # --pdeathsig, --kill-child: whoever kills us kills the lab, too.
    words = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    words += ["--propagation=private", "--", "/bin/sh", "-euc", INIT, "lab", str(RUN / name), size]
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the wakeup is all it does
    init = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=ENVIRONMENT, cwd="/")
    try:
        watched = [ended, os.pidfd_open(init.pid)]
        if owner:
            watched.append(os.pidfd_open(owner.pid))
        if not owner or owner.alive():
            select.select(watched, [], [])
    except ProcessLookupError:
        pass  # the owner died before we looked
    finally:
        init.kill()
        init.wait()
        sweep(name)


def sweep(name: str) -> None:
    """Remove what a dead lab left: its cgroups, which kills whoever is still in them, and its state files.

    With the hosts' cgroups their PIDs 1 die, if the lab's init, being killed, did not get that far yet.
    """
    if (cgroup := cgroup_root() / cgroup_name(name)).exists():
        remove_cgroup(cgroup)
    shutil.rmtree(RUN / name, ignore_errors=True)


def cgroup_name(name: str) -> str:
    """The directory of a lab's cgroups, below the root of cgroup2."""
    return f"uncloud-lab-{name}"


def main(words: list[str]) -> None:
    """`hold NAME SIZE [PID START]`, as Lab.start calls it."""
    name, size, *owner = words
    sys.stdin.close()
    hold(name, size, Process(int(owner[0]), int(owner[1])) if owner else None)
