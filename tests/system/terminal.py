"""A person at a terminal on a host: a window with `uncloud-host console` in it."""

import json
import re
import subprocess
import uuid as uuids
from typing import Any

from system.world import World
from waiting import eventually

WINDOW = r"""
import json, os, pty, select, sys, termios
name, words = sys.argv[1], sys.argv[2:]
pid, master = pty.fork()
if pid == 0:
    os.execvp(words[0], words)
slave = os.open(os.ptsname(master), os.O_RDWR | os.O_NOCTTY)  # it outlives the program, as a window does
before = termios.tcgetattr(slave)
os.set_blocking(master, False)
told, typed = None, b""
with open(f"{name}.out", "ab", 0) as output:
    while True:
        now = termios.tcgetattr(slave)
        state = {"pid": pid, "is_raw": not now[3] & termios.ICANON, "is_as_before": now == before}
        if state != told:
            told = state
            with open(f"{name}.new", "w") as file:
                json.dump(state, file)
            os.rename(f"{name}.new", f"{name}.json")
        ready = select.select([0, master], [master] if typed else [], [], 0.05)
        if 0 in ready[0]:
            typed += os.read(0, 1 << 20)
        if master in ready[0]:
            output.write(os.read(master, 65536))
        if master in ready[1]:
            typed = typed[os.write(master, typed[:1024]):]
"""


class Terminal:
    """One window. Closing it is what happens when an ssh dies: its program gets SIGHUP."""

    def __init__(self, world: World, *words: str) -> None:
        self._world, self._name = world, f"/root/window-{uuids.uuid4().hex[:8]}"
        script = f'{" ".join(words)}; echo "status $?"'
        world.host.push(WINDOW, "/root/window.py")
        self._process = world.host.popen(
            "python3", "/root/window.py", self._name, "sh", "-c", script, stdin=subprocess.PIPE
        )

    def close(self) -> None:
        assert self._process.stdin
        self._process.kill()
        self._process.wait(timeout=30)
        self._process.stdin.close()

    def type(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def text(self) -> str:
        """What stands in it; with ends of lines as Python has them."""
        return self._world.shell(f"cat {self._name}.out 2>/dev/null || true")

    def see(self, pattern: str, *, within: float = 30) -> str:
        eventually(
            lambda: re.search(pattern, self.text()), within=within, what=lambda: f"{pattern} in {self.text()[-2000:]!r}"
        )
        return self.text()

    def state(self) -> dict[str, Any]:
        text = self._world.shell(f"cat {self._name}.json 2>/dev/null || echo '{{}}'")
        found: dict[str, Any] = json.loads(text)
        return found

    def wait_raw(self) -> None:
        eventually(lambda: self.state().get("is_raw"), what=lambda: f"raw: {self.text()}")

    def signal(self, name: str) -> None:
        """To the console command itself."""
        parent = self.state()["pid"]
        self._world.shell(f"kill -{name} $(pgrep -P {parent} -f 'uncloud-host console')")

    def wait_status(self) -> int:
        found = re.search(r"(?m)^status (\d+)", self.see(r"(?m)^status \d+$"))
        assert found
        return int(found[1])
