"""When systemd has given up a VM, and what is said of it."""

import subprocess
import sys

import pytest

from uncloud_host.endings import End
from uncloud_host.notifying import _end, given_up
from uncloud_host.shown import Shown
from uncloud_host.unit import State

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"


def found(state: State = State.FAILED, **changed: object) -> Shown:
    about: dict[str, object] = {
        "invocation": "i1", "result": "signal", "exit_code": "killed", "exit_status": "11", "restart": "always",
        "limit": 15, "started": 100.0, "ended": 200.0,
    }  # fmt: skip
    return Shown(UUID, "web-1", state, **about | changed)  # type: ignore[arg-type]


def recorded(by: str = "itself", **seen: object) -> End:
    return End(UUID, "i1", by, exit_code="exited", exit_status="1", started=1.0, ended=1.5, **seen)  # type: ignore[arg-type]


GAVE_UP = "15 starts in an hour, at last "
CASES = [
    (found(), None, f"{GAVE_UP}QEMU died of signal SEGV"),
    (found(exit_status="9"), None, f"{GAVE_UP}QEMU was killed by signal KILL from outside"),
    (found(), recorded(said='Failed to get "write" lock'), f'{GAVE_UP}QEMU exited with 1: Failed to get "write" lock'),
    (found(restart="no"), None, "its restart is no, and QEMU died of signal SEGV"),
    (found(State.RUNNING), None, ""),
    (found(State.ABSENT), None, ""),
    (found(result="timeout"), None, ""),
    *((found(), recorded(by), "") for by in ("agent", "operator", "many", "restart", "shutdown")),
]


@pytest.mark.parametrize(("unit", "end", "reason"), CASES)
def test_what_is_told(unit: Shown, end: End | None, reason: str) -> None:
    assert given_up(unit, end or _end(unit)) == reason


def test_it_needs_no_library_of_etcd() -> None:
    program = (
        "import sys, uncloud_host.notifying; sys.exit(bool({'etcd3', 'grpc', 'google.protobuf'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
