"""What a host has to be allowed in etcd, as commands for the administrator of etcd. Pure.

etcd grants keys and cannot look at values: each host may write all entries, claims and records of runs, because any VM
may be its own tomorrow. What is its own by the name of the key is its own: log, presence and audit.
"""

import shlex

SHARED = ("vm", "claim", "runtime")  # a VM's entry, who runs it, how long it ran: read and written by all hosts
OWN = ("log", "host", "audit")  # read by all: for `log --all`, for hosts that are silent


def commands(host: str, prefix: str, password_file: str = "") -> list[str]:
    """Give the lines of a shell script that makes a user with the host's name, and his role.

    Without a password he shows a certificate with that name as its common name (CN).
    """
    user = shlex.quote(host)
    role = shlex.quote(f"uncloud-host-{host}")
    grants = [("readwrite --prefix", f"{prefix}/{name}/") for name in SHARED]
    grants += [("read --prefix", f"{prefix}/{name}/") for name in OWN]
    grants += [("readwrite --prefix", f"{prefix}/log/{host}/")]
    grants += [("readwrite", f"{prefix}/{name}/{host}") for name in OWN if name != "log"]
    known = f'--new-user-password "$(cat {shlex.quote(password_file)})"' if password_file else "--no-password"
    return [
        f"etcdctl role add {role}",
        *(f"etcdctl role grant-permission {role} {how} {shlex.quote(key)}" for how, key in grants),
        f"etcdctl user add {user} {known}",
        f"etcdctl user grant-role {user} {role}",
    ]
