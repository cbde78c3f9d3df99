"""One host of a lab: its power button, its cable, its disk, and commands run in it."""

import json
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from . import files
from .machine import ENVIRONMENT, LabError, Process, enter, remove_cgroup, run, wait_until
from .tree import BOOT

if TYPE_CHECKING:
    from .lab import Lab

NAMESPACES = ["--pid", "--fork", "--kill-child", "--mount", "--propagation=private", "--uts", "--ipc", "--net"]
SYSTEMD = ["/usr/lib/systemd/systemd", "--unit=multi-user.target", "--log-target=journal", "--show-status=false"]
# How a command gets into a host; $1 is a cgroup of the host, $2 the lab's init, $3 the host's.
# It joins the cgroup because what runs elsewhere cannot be moved into a scope of the host's systemd. Whoever kills what
# `popen` returned kills the command. The step over the lab's pid namespace makes that one's init its heir, who leaves
# no zombie: systemd-shutdown waits 10 s for a zombie that the machine's init has not buried yet. Never --all here:
# nsenter 2.38 then compares namespaces by looking its own pid up in the wrong /proc, and may stay on the machine.
ENTER = """
echo 0 > "$1/cgroup.procs"; holder=$2; host=$3; shift 3; die_with_parent="setpriv --pdeathsig=KILL"
exec nsenter --target="$holder" --pid -- $die_with_parent \\
    nsenter --target="$host" --mount --uts --ipc --net --pid --cgroup -- $die_with_parent "$@"
"""


class CommandFailed(subprocess.CalledProcessError):
    """A command in a host ended with another status than 0."""

    def __str__(self) -> str:
        return f"{' '.join(self.cmd)}: exit status {self.returncode}\n{self.stdout or ''}{self.stderr or ''}"


class Host:
    """A host. Made by Lab.host; off until `boot`."""

    def __init__(self, lab: "Lab", name: str, layers: Sequence[Path]) -> None:
        self.lab, self.name = lab, name
        self._state = lab.directory / "hosts" / f"{name}.json"
        self._log = lab.directory / "hosts" / f"{name}.log"
        self._disk = lab.directory / "disk" / name
        self._cgroup = lab.cgroup / name
        self._chain: subprocess.Popen[str] | None = None
        if not self._state.exists():
            self._make(layers)

    @property
    def address(self) -> str:
        """Its address on eth0; the other hosts of the lab reach it there."""
        return f"10.199.0.{self._read()['number']}"

    @property
    def process(self) -> Process | None:
        """Its PID 1 as the machine sees it; None while it is off."""
        state = self._read()
        if not state["pid"]:
            return None
        process = Process(state["pid"], state["start"])
        return process if process.alive() else None

    @property
    def root(self) -> Path:
        """Where the machine sees its files; while it is off, its disk only. Absolute links lead astray there."""
        if process := self.process:
            return Path(f"/proc/{process.pid}/root")
        return Path(f"/proc/{self.lab.holder().pid}/root{self._disk}/root")

    def boot(self, timeout: float = 60) -> None:
        """Switch it on; returns when systemd says `running`. Anything else, also `degraded`, is an error."""
        if self.process:
            raise LabError(f"{self.name} is on already")
        self._power_off()  # what a host that ended by itself left
        (self._cgroup / "commands").mkdir(parents=True)
        with self._log.open("w") as log:
            words = [*enter(self.lab.holder(), "mount", "net", "pid"), "unshare", *NAMESPACES, "--"]
            self._chain = chain = subprocess.Popen(
                [*words, "/bin/sh", str(BOOT), "host", *SYSTEMD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, start_new_session=True, env=self._environment(), cwd="/",
            )  # fmt: skip
        assert chain.stdin
        assert chain.stdout
        with chain.stdin, chain.stdout:
            if not (pid := chain.stdout.readline()):
                raise LabError(f"{self.name} did not start:\n{self._log.read_text()}")
            process = Process.of(int(pid))
            self._write(pid=process.pid, start=process.start)
            self._plug(process)
            chain.stdin.write("\n")
        self._wait_booted(process, timeout)

    def run(
        self,
        *command: str,
        input: str | None = None,  # noqa: A002  # as subprocess.run calls it
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host as root; raises CommandFailed with all it said, unless not to `check`."""
        with self.popen(
            *command, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(input, timeout)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    error.cmd = command  # not how we got there
                raise
        if check and process.returncode:
            raise CommandFailed(process.returncode, list(command), out, err)
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def popen(
        self,
        *command: str,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a command in the host, in / and with an environment of root's, to which `env` is added."""
        if not (process := self.process):
            raise LabError(f"{self.name} is off")
        holder = self.lab.holder()
        words = ["/bin/sh", "-c", ENTER, "enter", str(self._cgroup / "commands"), str(holder.pid), str(process.pid)]
        environment = ENVIRONMENT | {"SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"} | (env or {})
        return subprocess.Popen(
            [*words, *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            env=environment,
            cwd="/",
        )

    def crash(self) -> None:
        """Power failure: everything is killed at once. The disk stays as it was."""
        if process := self.process:
            process.signal(signal.SIGKILL)
        self._power_off()

    def shutdown(self, timeout: float = 180) -> None:
        """Orderly power-off."""
        self._end(signal.SIGRTMIN + 4, timeout)

    def reboot(self, timeout: float = 180) -> None:
        """Orderly reboot; returns when it is up again."""
        self._end(signal.SIGRTMIN + 5, timeout)
        self.boot()

    def cut(self) -> None:
        """Pull the cable out; it stays out over a reboot."""
        self._write(cut=True)
        if self.process:
            self._cable("down")

    @property
    def is_cut(self) -> bool:
        """Whether its cable is out."""
        return bool(self._read()["cut"])

    def heal(self) -> None:
        """Plug the cable in again."""
        self._write(cut=False)
        if self.process:
            self._cable("up")

    def push(self, source: Path | str | bytes, destination: str, mode: int | None = None) -> None:
        """Copy to the host, also while it is off: a file or directory (Path), or contents (str, bytes).

        mode: of the file; that of the source, or 0644.
        """
        files.push(self.root, source, destination, mode)

    def pull(self, path: str) -> bytes:
        """The contents of a file of the host, also while it is off."""
        return files.pull(self.root, path)

    def destroy(self) -> None:
        """Power failure, and the disk is thrown away; the same name gives a new host."""
        self.crash()
        self.lab.in_holder("umount", str(self._disk / "root"))
        self.lab.in_holder("rm", "-rf", str(self._disk))
        self._state.unlink()
        self._log.unlink(missing_ok=True)
        self.lab.forget(self.name)

    def reap(self) -> None:
        """Wait for our own child process, once the host is dead."""
        if self._chain:
            self._chain.wait(timeout=30)
            self._chain = None

    def _make(self, layers: Sequence[Path]) -> None:
        """Give it a number and a disk."""
        taken = {json.loads(path.read_text())["number"] for path in self._state.parent.glob("*.json")}
        number = next(number for number in range(2, 255) if number not in taken)
        self._state.write_text(json.dumps({"number": number, "cut": False, "pid": 0, "start": 0}))
        root = self._disk / "root"
        self.lab.in_holder("mkdir", "-p", str(self._disk / "upper"), str(self._disk / "work"), str(root))
        lower = ":".join(map(str, layers))
        options = f"lowerdir={lower},upperdir={self._disk}/upper,workdir={self._disk}/work,xino=off"
        self.lab.in_holder("mount", "-t", "overlay", "-o", options, "overlay", str(root))
        files = {
            "hostname": f"{self.name}\n",
            "hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n",
            "machine-id": f"{uuid.uuid4().hex}\n",
        }
        for name, content in files.items():
            (self.root / "etc" / name).write_text(content)

    def _environment(self) -> dict[str, str]:
        binds = "\n".join(f"{outside}\t{inside}\tro" for outside, inside in self.lab.binds.items())
        return ENVIRONMENT | {
            "LAB_ROOT": str(self._disk / "root"), "LAB_HOST": self.name, "LAB_CGROUP": str(self._cgroup),
            "LAB_BINDS": binds,
        }  # fmt: skip

    def _plug(self, process: Process) -> None:
        state = self._read()
        number, cable = state["number"], f"v-{self.name}"
        # The address card stays the same over a reboot, as in a real host: others remember it.
        words = f"link add {cable} type veth peer name eth0 address 02:00:0a:c7:00:{number:02x} netns {process.pid}"
        self.lab.in_holder("ip", *words.split())
        self.lab.in_holder("ip", "link", "set", cable, "master", "sw0", "down" if state["cut"] else "up")
        inside = [*enter(process, "net"), "ip"]
        run([*inside, "address", "add", f"10.199.0.{number}/24", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])

    def _cable(self, state: str) -> None:
        self.lab.in_holder("ip", "link", "set", f"v-{self.name}", state)

    def _wait_booted(self, process: Process, timeout: float) -> None:
        states: list[str] = []

        def ready() -> bool:
            if not process.alive():
                raise LabError(f"{self.name} died while it booted:\n{self._log.read_text()}")
            if Path(f"/proc/{process.pid}/comm").read_text().strip() != "systemd":
                return False
            # Says nothing while systemd does not listen yet, and "offline" before it has made its /run.
            done = self.run("systemctl", "is-system-running", "--wait", check=False, timeout=timeout)
            states.append(done.stdout.strip())
            return states[-1] not in {"", "offline"}

        wait_until(ready, timeout, f"{self.name} up")
        if states[-1] != "running":
            failed = self.run("systemctl", "--failed", "--no-legend", check=False).stdout
            raise LabError(f"{self.name} is {states[-1]}, not running\n{failed}")

    def _end(self, number: int, timeout: float) -> None:
        if not (process := self.process):
            raise LabError(f"{self.name} is off")
        process.signal(number)
        wait_until(lambda: not process.alive(), timeout, f"{self.name} ends in order")
        self._power_off()

    def _power_off(self) -> None:
        """Wait until what was killed is gone, and remove what the kernel leaves."""
        wait_until(lambda: not self.process, 30, f"{self.name} dead")
        self.reap()
        if self._cgroup.exists():
            remove_cgroup(self._cgroup)
        # The kernel removes it, but some time after its namespace: the next boot may come sooner.
        delete = [*enter(self.lab.holder(), "net"), "ip", "link", "delete", f"v-{self.name}"]
        subprocess.run(delete, stderr=subprocess.DEVNULL, check=False)
        self._write(pid=0, start=0)

    def _read(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._state.read_text())
        return state

    def _write(self, **changes: object) -> None:
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps(self._read() | changes))
        new.replace(self._state)
