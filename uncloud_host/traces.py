"""How runs ended, from what PID 1 wrote into the journal about their unit. Pure.

Needed where nothing else tells: whoever kills a cgroup as a whole (`systemctl kill --signal=KILL`, systemd-oomd) kills
the recorder, too, which is started in it; and while the package is removed there is none. The messages are systemd's
catalog (journalctl --catalog); each has the invocation that it is about, also where RestartMode=direct restarts a unit
(257).
"""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace

from uncloud_host.endings import End

STARTING, EXITED = "7d4958e842da4a758f6c1cdc7b36dcc5", "98e322203f7a4ed290d09fe03c09fe15"
FAILED, RESTART = "d9b373ed55a64feb8242e02dbe79a49c", "5eb03494b6584870a536b337290809b3"
SUCCEEDED, STOPPED = "7ad2d189f7e94e70a38c781354912448", "9d1aaa27d60140bd96365438aad20286"
FIELDS = (
    "MESSAGE", "MESSAGE_ID", "INVOCATION_ID", "EXIT_CODE", "EXIT_STATUS", "UNIT_RESULT", "N_RESTARTS", "JOB_TYPE",
    "_SOURCE_REALTIME_TIMESTAMP",
)  # fmt: skip

Record = Mapping[str, object]


def ends(uuid: str, since: str, records: Sequence[Record]) -> list[End]:
    """Conclude how runs ended, from the one with the invocation `since` on, or all; those that go on are left out."""
    runs, over = _runs(uuid, records)
    begun = list(runs)
    wanted = begun[begun.index(since) :] if since in begun else [] if since else begun
    # With a result: it comes after the recorder, which may still be writing.
    return [runs[invocation] for invocation in wanted if invocation in over and runs[invocation].result]


def left(uuid: str, records: Sequence[Record]) -> list[End]:
    """Conclude how runs ended of which the host went down; those that went on then ended with the host, at 0."""
    runs, over = _runs(uuid, records)
    return [run if invocation in over else replace(run, by="host", ended=0.0) for invocation, run in runs.items()]


def _runs(uuid: str, records: Sequence[Record]) -> tuple[dict[str, End], set[str]]:
    """Give all runs by invocation, as they began, and those that are over."""
    runs: dict[str, End] = {}
    over: set[str] = set()
    restarts = 0
    for record in records:
        invocation, time = str(record.get("INVOCATION_ID", "")), _time(record)
        run = runs.get(invocation, End(uuid, invocation, "itself", started=time, ended=time, restarts=restarts))
        match record.get("MESSAGE_ID"):
            case kind if kind == STARTING:
                runs[invocation] = run
            case kind if kind == EXITED:
                code = str(record.get("EXIT_CODE", ""))
                status = exit_status(code, str(record.get("EXIT_STATUS", "")))
                runs[invocation] = replace(run, exit_code=code, exit_status=status, ended=time)
                over.add(invocation)
            case kind if kind == FAILED:
                ended = run.ended if invocation in over else time
                runs[invocation] = replace(run, result=str(record.get("UNIT_RESULT", "")), ended=ended)
                over.add(invocation)
            case kind if kind == SUCCEEDED and invocation not in over:  # an exit with 0 is no line of its own
                runs[invocation] = replace(run, result="success", exit_code="exited", exit_status="0", ended=time)
                over.add(invocation)
            case kind if kind == STOPPED and run.result in ("success", "timeout"):
                runs[invocation] = replace(run, by="restart" if record.get("JOB_TYPE") == "restart" else "operator")
            case kind if kind == RESTART:
                restarts = _whole(record, "N_RESTARTS")
            case _ if "on client request" in str(record.get("MESSAGE", "")) and invocation in runs:
                runs[invocation] = replace(run, said="by systemctl kill")
    return runs, over


def _time(record: Record) -> float:
    return _whole(record, "_SOURCE_REALTIME_TIMESTAMP") / 1e6


def _whole(record: Record, name: str) -> int:
    """A number; 0 if it is none: journalctl gives null for what is too long, and a list for what stands twice."""
    found = str(record.get(name, ""))
    return int(found) if re.fullmatch("[0-9]{1,18}", found) else 0


def exit_status(code: str, status: str) -> str:
    """Write an exit status as systemd's $EXIT_STATUS does: signals by their names."""
    try:
        return signal.Signals(int(status)).name.removeprefix("SIG") if code in ("killed", "dumped") else status
    except ValueError:
        return status
