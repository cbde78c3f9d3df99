"""What the journal knows of a VM's unit: a second witness, where the recorder could not run, and QEMU's last words."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from uncloud_host import traces, unit
from uncloud_host.endings import End
from uncloud_host.events import Name, clean
from uncloud_host.traces import EXITED, FAILED, FIELDS, RESTART, STARTING, STOPPED, SUCCEEDED, ends

ANSWER = 2.0  # seconds for journalctl
_ERROR = 3  # syslog's priority
AFTER = 0.3  # seconds after an end in which journald may still be writing what came before
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")  # of terminals: colours, movements
_QEMU_SAYS = re.compile(r"^[0-9T:.-]+Z qemu-system-x86_64: (.*)$")


def last_words(end: End, event: Name) -> str:
    """Find what explains an end: of QEMU the last error, or the signal that it tells of; of systemd, if it could not
    execute QEMU, the first. Nothing if there is none, or it takes long.

    By time, not by invocation: of QEMU's lines journald knows the first run's only, as long as RestartMode=direct
    restarts it (257). The guest's console is in the same stream, so a guest can forge it: a hint for people, nothing to
    decide from.
    """
    name = unit.name(end.vm)
    period = [f"--since=@{end.started or end.ended - 1:.6f}", f"--until=@{end.ended + 1:.6f}"]
    if event == Name.COULD_NOT_START and not _QEMU_RAN.fullmatch(end.exit_status):
        records = _ask(f"UNIT={name}", f"PRIORITY={_ERROR}", *period, "--output-fields=MESSAGE")
        said = [str(record.get("MESSAGE", "")).removeprefix(f"{name}: ") for record in records]
        return said[0][:300] if said else ""
    records = _ask(f"_SYSTEMD_UNIT={name}", "SYSLOG_IDENTIFIER=qemu", *period, "--lines=50", "--output-fields=MESSAGE")
    found = [match[1] for record in records if (match := _QEMU_SAYS.match(str(record.get("MESSAGE", ""))))]
    wanted, unwanted = ("terminating", "-") if event == Name.KILLED else ("", ("warning", "terminating"))
    said = [line for line in found if line.startswith(wanted) and not line.startswith(unwanted)]
    return said[-1][:200] if said else ""


_QEMU_RAN = re.compile("1?[0-9]{1,2}")  # exit statuses from 200 on are PID 1's


def console(uuid: str, until: float, lines: int) -> list[str]:
    """Give the last lines of a guest's console before that time. They are the guest's: cleaned, and nothing to decide
    from."""
    words = [f"_SYSTEMD_UNIT={unit.name(uuid)}", "SYSLOG_IDENTIFIER=qemu", f"--until=@{until + AFTER:.6f}", "--boot=0"]
    records = _ask(*words, f"--lines={3 * lines}", "--output-fields=MESSAGE")
    texts = [_ESCAPES.sub("", _text(record.get("MESSAGE"))).strip() for record in records]
    return [clean(text)[:200] for text in texts if text and not _QEMU_SAYS.match(text)][-lines:]


def _text(message: object) -> str:
    """Read a message, which journalctl gives as bytes if they are not all printable."""
    if isinstance(message, list):
        return bytes(byte for byte in message if isinstance(byte, int)).decode(errors="replace")
    return message if isinstance(message, str) else ""


def unrecorded(uuid: str, since: str) -> list[End]:
    """Find how the runs of a VM ended in this boot, from the one with the invocation `since` on, or all.

    A run that still goes on is not among them.
    """
    words = ["_PID=1", f"UNIT={unit.name(uuid)}", "--boot=0", f"--output-fields={','.join(FIELDS)}"]
    return ends(uuid, since, list(_ask(*words)))


def was_stopped(uuid: str, invocation: str) -> bool:
    """Tell whether somebody stopped a unit in this boot which waited to be restarted: no recorder runs then."""
    words = ["_PID=1", f"UNIT={unit.name(uuid)}", f"MESSAGE_ID={STOPPED}", "JOB_TYPE=stop", "--boot=0"]
    return any(_ask(*words, f"INVOCATION_ID={invocation}", "--output-fields=MESSAGE"))


def last_entry(boot: str) -> tuple[str, float]:
    """Give the id of a boot (or -1: the one before this) and the time of its last entry, in seconds since 1970.

    Nothing and 0 if the journal does not know it. Ids are without dashes.
    """
    last = next(_ask(f"--boot={boot}", "--lines=1", "--output-fields=_BOOT_ID"), {})
    return str(last.get("_BOOT_ID", "")), int(str(last.get("__REALTIME_TIMESTAMP", 0))) / 1e6


def left(boot_id: str, since: float) -> list[End]:
    """Find how the runs ended that began in an earlier boot after `since`, in seconds since 1970, see traces.left."""
    kinds = [f"MESSAGE_ID={kind}" for kind in (STARTING, EXITED, FAILED, SUCCEEDED, RESTART)]
    words = ["_PID=1", f"--boot={boot_id}", f"--since=@{since:.6f}", *kinds]
    by_vm: dict[str, list[Mapping[str, object]]] = {}
    for record in _ask(*words, f"--output-fields=UNIT,{','.join(FIELDS)}"):
        if uuid := unit.uuid_of(str(record.get("UNIT", ""))):
            by_vm.setdefault(uuid, []).append(record)
    return [end for uuid, records in by_vm.items() for end in traces.left(uuid, records)]


def _ask(*words: str) -> Iterator[Mapping[str, object]]:
    command: Sequence[str] = ["journalctl", "--no-pager", "--quiet", "--output=json", *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ANSWER, check=True)  # noqa: S603 - our words
    except (OSError, subprocess.SubprocessError):
        return
    for line in done.stdout.splitlines():
        yield json.loads(line)
