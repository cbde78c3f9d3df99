"""The lab: Debian 13 hosts in Linux namespaces, on any Debian machine (12 or later) with root.

A host is a pid, mount, uts, ipc, network and cgroup namespace around a systemd of its own. Its disk is an overlay on a
cached Debian tree, its cable a veth to the lab's own bridge. It boots in about a second and keeps its disk over a power
failure (`crash`). What is not real: the kernel, its clock and its load are shared, and where the
machine binds memory and cpu to cgroup v1 the hosts' limits are accepted but not enforced.

    with Lab("example", [tree.base()]) as lab:
        host = lab.host("vmhost1")
        host.boot()
        host.run("systemctl", "is-system-running")

Nothing of a lab outlives the process that made it, not even when that process is killed, unless it was made with
`keep=True`; then `python3 tests/lab down NAME` ends it.
"""

from . import deb, guests, tree
from .ceph import Ceph
from .host import CommandFailed, Host
from .lab import Lab
from .machine import LabError, wait_until

__all__ = ["Ceph", "CommandFailed", "Host", "Lab", "LabError", "deb", "guests", "tree", "wait_until"]
