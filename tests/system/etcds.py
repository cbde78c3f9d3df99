"""An etcd of several members, each on a host of its own: any of them may be restarted, frozen, killed or lost."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from lab import Host, Lab
from waiting import eventually

ALL = "http://0.0.0.0"
QUOTA = 48  # MiB: it can be filled within a second or two


class Etcds:
    """The members of one etcd, and etcdctl for whoever wants to know what it holds.

    To a World it is what a host with an etcd is: `World(host, etcds)`.
    """

    def __init__(self, lab: Lab, names: Sequence[str] = ("etcd1", "etcd2", "etcd3")) -> None:
        self.hosts = [lab.host(name) for name in names]

    @property
    def urls(self) -> str:
        """All members, as UNCLOUD_ETCD and etcdctl want them told."""
        return " ".join(f"http://{host.address}:2379" for host in self.hosts)

    @property
    def members(self) -> str:
        """All members, as they know each other."""
        return ",".join(f"{host.name}={self.peer(host)}" for host in self.hosts)

    def peer(self, host: Host) -> str:
        """Where the other members reach one."""
        return f"http://{host.address}:2380"

    def install(self, **variables: str) -> None:
        """Boot the hosts and start their etcds, which are one; `variables` are more of etcd's, like ETCD_QUOTA_..."""

        def start(host: Host) -> None:
            host.boot()
            known = {
                "ETCD_NAME": host.name,
                "ETCD_LISTEN_CLIENT_URLS": f"{ALL}:2379",
                "ETCD_ADVERTISE_CLIENT_URLS": f"http://{host.address}:2379",
                "ETCD_LISTEN_PEER_URLS": f"{ALL}:2380",
                "ETCD_INITIAL_ADVERTISE_PEER_URLS": self.peer(host),
                "ETCD_INITIAL_CLUSTER": self.members,
                "ETCD_QUOTA_BACKEND_BYTES": str(QUOTA * 2**20),
            }
            lines = [f'{name}="{value}"\n' for name, value in (known | variables).items()]
            host.push("".join(lines), "/etc/default/etcd")
            # It is up when most of them are.
            host.run("systemctl", "enable", "--quiet", "--now", "etcd.service", timeout=90)

        self._together(start)
        self.wait_well()

    def destroy(self) -> None:
        """Throw the hosts away."""
        self._together(Host.destroy)

    def run(self, *command: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command, etcdctl that is, on a host that is on and has its cable; it asks whichever member answers."""
        return self._desk().run(*self._asking(), *command, **how)

    def popen(self, *command: str, **how: Any) -> "subprocess.Popen[str]":
        """Start a command, as `run` does, and return at once."""
        return self._desk().popen(*self._asking(), *command, **how)

    def well(self) -> list[Host]:
        """The members that answer and know a leader: each is asked by itself."""
        return [host for host in self.hosts if host.process and _does(host, "etcdctl", "get", "/none")]

    def wait_well(self) -> None:
        """Wait until all members are."""
        eventually(lambda: self.well() == self.hosts, within=60, what="all members of etcd are well")

    def leader(self) -> Host:
        """The member that leads; waits until there is one."""
        return eventually(self._leader, what="etcd has a leader")

    def restart(self, host: Host) -> None:
        """Restart a member in order, and wait until it is back."""
        host.run("systemctl", "restart", "etcd.service", timeout=90)
        self.wait_well()

    def kill(self, host: Host) -> None:
        """Kill -9 a member. Debian's unit starts it again."""
        host.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "etcd.service")

    @contextmanager
    def frozen(self, *hosts: Host) -> Iterator[None]:
        """Have members that do nothing and yet hold their connections open, as in a machine that swaps."""
        for host in hosts:
            host.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "etcd.service")
        yield
        for host in hosts:
            host.run("systemctl", "kill", "--kill-whom=main", "--signal=CONT", "etcd.service")

    def mend(self) -> None:
        """Put right whatever a test broke: power, cables, frozen and stopped members."""

        def mend(host: Host) -> None:
            host.heal()
            if not host.process:
                host.boot()
            _does(host, "systemctl", "kill", "--kill-whom=main", "--signal=CONT", "etcd.service")
            host.run("systemctl", "start", "etcd.service", timeout=90)

        self._together(mend)
        self.wait_well()

    def _desk(self) -> Host:
        return next(host for host in self.hosts if host.process and not host.is_cut)

    def _asking(self) -> list[str]:
        return ["env", f"ETCDCTL_ENDPOINTS={self.urls.replace(' ', ',')}"]

    def _leader(self) -> Host | None:
        for host in self.hosts:
            if host.process and (told := _does(host, "etcdctl", "endpoint", "status", "--write-out=json")):
                status = json.loads(told)[0]["Status"]
                if status.get("leader") == status["header"]["member_id"]:
                    return host
        return None

    def _together(self, do: Callable[[Host], None]) -> None:
        with ThreadPoolExecutor() as together:
            list(together.map(do, self.hosts))


def _does(host: Host, *command: str) -> str:
    """What a command says if it works; a space if it works and says nothing."""
    done = host.run(*command, check=False)
    return done.stdout or " " if done.returncode == 0 else ""
