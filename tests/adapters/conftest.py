"""A real etcd, that can be killed, frozen, compacted and wiped."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import eventually
from uncloud_host.etcd import Access, Connection, EtcdError


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Etcd:
    """One member, alone in its cluster."""

    def __init__(
        self,
        directory: Path,
        *flags: str,
        scheme: str = "http",
        access: Access | None = None,
        ready: Callable[[str], bool] = lambda error: False,  # noqa: ARG005
    ) -> None:
        self.directory = directory
        self.is_ready = ready
        self.port, self.peer_port = free_ports(2)
        self.endpoint = f"{scheme}://127.0.0.1:{self.port}"
        self.flags = flags
        self.access = access or Access((self.endpoint,))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        peer = f"http://127.0.0.1:{self.peer_port}"
        command = ["etcd", "--name=test", f"--data-dir={self.directory}/etcd", f"--initial-cluster=test={peer}"]
        command += [f"--listen-client-urls={self.endpoint}", f"--advertise-client-urls={self.endpoint}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command += ["--heartbeat-interval=20", "--election-timeout=200", *self.flags]
        with (self.directory / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self.ready, within=20)

    def ready(self) -> bool:
        """Tell whether it answers, with whatever."""
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "etcd.log").read_text()[-2000:]
        connection = self.connect()
        try:
            connection.position("/")
        except EtcdError as error:
            return error.problem == "denied" or self.is_ready(str(error))
        else:
            return True
        finally:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Freeze: its sockets stay open and silent."""
        self.signal(signal.SIGSTOP)
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task")
        eventually(lambda: all((thread / "stat").read_text().split()[2] == "T" for thread in threads.iterdir()))

    def cont(self) -> None:
        """Thaw."""
        self.signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Lose all that was stored, and start again with the same flags."""
        self.kill()
        shutil.rmtree(self.directory / "etcd")
        self.start()

    @contextlib.contextmanager
    def hidden(self, *, wiped: bool = False) -> Iterator[Connection]:
        """Be down for those who know the endpoint, while a hidden connection still changes things."""
        self.kill()
        if wiped:
            shutil.rmtree(self.directory / "etcd")
        visible, self.endpoint = self.endpoint, self.endpoint.replace("127.0.0.1", "127.0.0.2")
        self.start()
        connection = self.connect()
        yield connection
        connection.close()
        self.kill()
        self.endpoint = visible
        self.start()

    def ctl(self, *words: str) -> str:
        """Do something as a sysadmin does it."""
        done = subprocess.run(
            ["etcdctl", f"--endpoints={self.endpoint}", *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.stdout

    def compact(self) -> None:
        """Throw all history away."""
        connection = self.connect()
        revision = connection.get("/")[0]
        connection.close()
        self.ctl("compact", str(revision))

    def connect(self, **how: Any) -> Connection:
        """Return a new connection."""
        fields = {name: getattr(self.access, name) for name in ("ca", "cert", "key", "user", "password_file")}
        return Connection(Access(endpoints=(self.endpoint,), **{**fields, **how}), timeout=3.0)


@pytest.fixture
def new_etcd(tmp_path: Path) -> Iterator[Callable[..., Etcd]]:
    """Make etcds that are gone after the test."""
    assert shutil.which("etcd"), "etcd is not installed"
    assert shutil.which("etcdctl"), "etcdctl is not installed"
    made: list[Etcd] = []

    def make(*flags: str, **how: Any) -> Etcd:
        directory = tmp_path / f"etcd{len(made)}"
        directory.mkdir()
        made.append(Etcd(directory, *flags, **how))
        made[-1].start()
        return made[-1]

    yield make
    for etcd in made:
        etcd.kill()


@pytest.fixture
def etcd(new_etcd: Callable[..., Etcd]) -> Etcd:
    """One fresh etcd."""
    return new_etcd()


@pytest.fixture
def connection(etcd: Etcd) -> Iterator[Connection]:
    """A connection to it."""
    made = etcd.connect()
    yield made
    made.close()
