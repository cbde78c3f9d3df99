"""What the programs share that measure on a host: commands, waiting, and entries of VMs."""

import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

DEADLINE = 300  # seconds for whatever is waited for
POLL = 0.02
ENVIRONMENT = os.environ | {"ETCDCTL_API": "3"}
IMAGES = Path("/var/lib/uncloud-host/images")
OTHERS = 100  # hosts
HALT = b"\xfa\xf4\xeb\xfd"  # cli, hlt, and again after an NMI
AT_ONCE = 120  # operations; etcd takes 128 in a transaction


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)[:300]}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait(condition: Callable[[], object], what: str, every: float = POLL) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {DEADLINE} s: {what}")
        time.sleep(every)


def show(unit: str, *names: str) -> list[dict[str, str]]:
    """Properties of one unit, or of all that a pattern finds."""
    found = run("systemctl", "show", unit, *(f"--property={name}" for name in names)).split("\n\n")
    return [dict(line.partition("=")[::2] for line in one.splitlines()) for one in found if one.strip()]


def value(unit: str, name: str) -> str:
    return show(unit, name)[0][name]


def active(pattern: str) -> list[float]:
    """When units became active that are, in seconds of the monotonic clock: for Type=exec their exec had succeeded."""
    found = show(pattern, "ActiveState", "ActiveEnterTimestampMonotonic")
    return [int(one["ActiveEnterTimestampMonotonic"]) / 1e6 for one in found if one["ActiveState"] == "active"]


def all_active(count: int) -> tuple[float, float]:
    """Wait until so many VMs are active; tell when the last became it, and how long systemctl took at most to answer.

    A list is one call. `systemctl show` of a pattern is one for each unit, and would keep PID 1 from starting them.
    """
    took = [0.0]

    def are_there() -> bool:
        began = time.monotonic()
        listed = run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "vm-*.service")
        took.append(time.monotonic() - began)
        return len(listed.splitlines()) == count

    wait(are_there, f"{count} are active", every=0.2)
    return max(active("vm-*.service")), max(took)


def uuids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def disk(name: str) -> str:
    """A disk of its own with a guest that does nothing: without KVM one that boots would take longer than what is
    measured, and of an empty disk SeaBIOS thinks again every minute, which is all that 300 of them let a machine do.
    """
    path = IMAGES / f"{name}.img"
    path.touch(mode=0o600)
    path.write_bytes(HALT.ljust(510, b"\0") + b"\x55\xaa")
    os.truncate(path, 1 << 20)
    return str(path)


def entry(host: str, me: str, **fields: object) -> str:
    made = {"host": host, "memory": 16, "stop_timeout": 2, "disks": [{"file": f"{IMAGES}/{me}.img"}]}
    return json.dumps(made | fields)


def put_all(entries: Iterable[tuple[str, str]]) -> None:
    """Write entries, a hundred in a transaction, as a scheduler does."""
    _txn([f"put {key} {json.dumps(text)}" for key, text in entries])


def delete_all(keys: Iterable[str]) -> None:
    _txn([f"del {key}" for key in keys])


def _txn(operations: Sequence[str]) -> None:
    for start in range(0, len(operations), AT_ONCE):
        lines = "\n".join(operations[start : start + AT_ONCE])
        run("etcdctl", "txn", text=f"\n{lines}\n\n\n")  # no condition, operations, nothing else


def statuses() -> list[str]:
    """The status of each entry."""
    values = run("etcdctl", "get", "--prefix", "--print-value-only", "/v1/vm/").splitlines()
    return [json.loads(text).get("status", "") for text in values if text]


def settled() -> None:
    """Wait until the agent has told all ends, so that nothing is measured while it still works on what was before."""
    ends = Path("/var/lib/uncloud-host/ends")
    wait(lambda: not any(ends.iterdir()), "the agent has dealt with all ends")


def usage(unit: str) -> float:
    """CPU seconds that a service has used."""
    return int(value(unit, "CPUUsageNSec")) / 1e9


def memory(unit: str) -> float:
    """MiB of a service's main process: its own, and its part of what is shared (PSS)."""
    rollup = Path(f"/proc/{value(unit, 'MainPID')}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def others(number: int, count: int) -> None:
    """Write entries of other hosts, as long as real ones."""
    for start in range(0, count, AT_ONCE):
        put_all(
            (f"/v1/vm/{_uuid(index)}", _entry(index, number)) for index in range(start, min(count, start + AT_ONCE))
        )


def claims(count: int) -> None:
    """Write the claims that the other hosts have on these."""
    for start in range(0, count, AT_ONCE):
        put_all((f"/v1/claim/{_uuid(index)}", _claim(index)) for index in range(start, min(count, start + AT_ONCE)))


def presence(host: str) -> None:
    """Make the others seem alive, and audited: else an audit reads all their entries, to say who is silent."""
    ours = json.loads(run("etcdctl", "get", "--print-value-only", f"/v1/host/{host}"))
    names = [f"other{number}.example.org" for number in range(OTHERS)]
    put_all(
        (f"/v1/host/{name}", json.dumps(ours | {"host": name, "machine_id": f"{index:032x}"}))
        for index, name in enumerate(names, 1)
    )
    put_all((f"/v1/audit/{name}", "{}") for name in names)


def _uuid(index: int) -> str:
    return f"00000000-0000-4000-8000-{index:012x}"


def _entry(index: int, number: int) -> str:
    disks = [{"rbd": f"one/one-{index}-0"}, {"rbd": f"one/one-{index}-1"}]
    mac = ":".join(f"{byte:02x}" for byte in (2 << 40 | index).to_bytes(6))
    nics = [{"bridge": "br-customers", "mac": mac}]
    made = {"host": f"other{index % OTHERS}.example.org", "name": f"customer-{index}", "memory": 4096, "disks": disks}
    return json.dumps(made | {"nics": nics, "cpu": {"cores": 4}, "status": "RUNNING", "x-change": number})


def _claim(index: int) -> str:
    number = index % OTHERS
    ids = {"machine_id": f"{number + 1:032x}", "boot_id": str(uuid.UUID(int=number)), "id": f"{index:032x}"}
    return json.dumps({"host": f"other{number}.example.org"} | ids | {"entry": index, "since": "2026-11-28T09:00:00Z"})


def timed(*command: str) -> float:
    began = time.monotonic()
    run(*command)
    return time.monotonic() - began
