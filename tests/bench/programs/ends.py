"""Runs on a host: kill each of N VMs once; print when PID 1 had begun and seen the end of the recorder, when it was in
the log, and when a mail server had taken the mail.

    python3 ends.py HOST N

The log is watched with etcdctl, whose own part counts. A mail has arrived when its file is there.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from here import ENVIRONMENT, active, delete_all, disk, entry, put_all, run, settled, statuses, uuids, value, wait

MAILS = Path("/var/mail/sre/new")
UNITS = "/org/freedesktop/systemd1/unit/vm_2d{}_2eservice"


class Log:
    """When each VM's first record of a kind came."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}
        words = ["etcdctl", "watch", "--prefix", "/v1/log/"]
        self._watch = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        threading.Thread(target=self._follow, daemon=True).start()

    def when(self, me: str, event: str) -> float:
        wait(lambda: (me, event) in self._seen, f"the log tells that {me} was {event}", every=0.002)
        return self._seen[me, event]

    def end(self) -> None:
        self._watch.kill()

    def _follow(self) -> None:
        assert self._watch.stdout
        for line in self._watch.stdout:
            now = time.time()
            if line.startswith("{"):
                told = json.loads(line)
                self._seen.setdefault((told["vm"], told["event"]), now)


class Pace:
    """Less than twenty kills a minute, and none in the first: of more mails the agent makes digests, which wait."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 60

    def wait(self) -> None:
        wait(lambda: time.monotonic() >= self._next, "the next kill is due")
        self._next = time.monotonic() + 60 / 19


def recorded(me: str) -> list[float]:
    """When the recorder was begun and when it had ended; until the unit starts again PID 1 knows."""
    words = ("org.freedesktop.systemd1", UNITS.format(me.replace("-", "_2d")), "org.freedesktop.systemd1.Service")
    times = [0.0, 0.0]

    def is_known() -> bool:
        told = json.loads(run("busctl", "--json=short", "get-property", *words, "ExecStopPost"))["data"][0]
        times[:] = told[3] / 1e6, told[5] / 1e6
        return 0 < times[0] < times[1]

    wait(is_known, f"the recorder of {me} has ended")
    return times


def mailed(me: str, since: float) -> float:
    """When a mail about this VM had arrived that is no older."""

    def found() -> list[float]:
        with os.scandir(MAILS) as there:
            new = [(one.path, one.stat().st_mtime) for one in there if one.stat().st_mtime >= since]
        return [at for path, at in new if me in Path(path).read_text(errors="replace")]

    wait(found, f"a mail about {me}", every=0.01)
    return min(found())


def main() -> None:
    host, count = sys.argv[1], int(sys.argv[2])
    vms = uuids(count)
    for me in vms:
        disk(me)
    put_all((f"/v1/vm/{me}", entry(host, me)) for me in vms)
    wait(lambda: statuses().count("RUNNING") == count, "all run", every=0.5)
    for me in vms:
        mailed(me, 0)
    log, pace, found = Log(), Pace(), []
    for me in vms:
        pace.wait()
        began = time.time()
        os.kill(int(value(f"vm-{me}.service", "MainPID")), signal.SIGKILL)
        killed = time.time()
        logged, recorder = log.when(me, "killed"), recorded(me)
        times = {"log": logged, "mail": mailed(me, began), "begun": recorder[0], "recorded": recorder[1]}
        found.append({step: at - killed for step, at in times.items()})
        wait(lambda me=me: active(f"vm-{me}.service"), f"{me} runs again", every=0.1)
        print(f"bench: killed {len(found)} of {count}", file=sys.stderr, flush=True)
    log.end()
    put_all((f"/v1/vm/{me}", entry(host, me, status="TO_STOP")) for me in vms)
    wait(lambda: statuses().count("STOP") == count, "all have stopped", every=0.5)
    delete_all(f"/v1/vm/{me}" for me in vms)
    settled()
    print(json.dumps(found))


main()
