"""What `systemctl show` says of a VM's unit, and the same in words for people. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from uncloud_host import unit
from uncloud_host.unit import State

PROPERTIES = (
    "Id", "Description", "ActiveState", "SubState", "InvocationID", "Result", "ExecMainCode", "ExecMainStatus",
    "NRestarts", "Restart", "RestartUSecNext", "StartLimitBurst", "StateChangeTimestamp", "ExecMainStartTimestamp",
    "ExecMainExitTimestamp",
)  # fmt: skip
_UNITS = {"month": 2629800.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_SPANS = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
_CODES = {"1": "exited", "2": "killed", "3": "dumped"}  # waitid(2)


@dataclass(frozen=True, slots=True)
class Shown:
    """A VM's unit. Times in seconds since 1970, 0 if there is none."""

    uuid: str
    name: str  # of the VM
    state: State
    invocation: str = ""
    result: str = ""
    exit_code: str = ""  # exited, killed, dumped
    exit_status: str = ""  # a number, also of a signal
    restarts: int = 0
    restart: str = ""  # always, on-failure, no
    limit: int = 0  # of starts in an hour
    delay: float = 0.0  # seconds between an end and the next start
    since: float = 0.0  # in this state
    started: float = 0.0
    ended: float = 0.0


def read(text: str) -> Iterator[Shown]:
    """Read the answer about one unit, or about several."""
    for block in text.split("\n\n"):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        if uuid := unit.uuid_of(said.get("Id", "")):
            yield _read(uuid, said)


def _read(uuid: str, said: dict[str, str]) -> Shown:
    name = said.get("Description", "")
    return Shown(
        uuid=uuid,
        name=name.removeprefix("VM ") if name.startswith("VM ") else uuid,
        state=unit.state(said.get("ActiveState", ""), said.get("SubState", "")),
        invocation=said.get("InvocationID", ""),
        result=said.get("Result", ""),
        exit_code=_CODES.get(said.get("ExecMainCode", ""), ""),
        exit_status=said.get("ExecMainStatus", ""),
        restarts=_number(said.get("NRestarts", "")),
        restart=said.get("Restart", ""),
        limit=_number(said.get("StartLimitBurst", "")),
        delay=_seconds(said.get("RestartUSecNext", "")),
        since=_time(said.get("StateChangeTimestamp", "")),
        started=_time(said.get("ExecMainStartTimestamp", "")),
        ended=_time(said.get("ExecMainExitTimestamp", "")),
    )


def now(shown: Shown | None, at: float) -> str:
    """Say in a line how things stand at that time; nothing if nobody could be asked."""
    if shown is None:
        return ""
    count = f"restart {shown.restarts} of {shown.limit}" if shown.restarts else ""
    match shown.state:
        case State.RUNNING:
            return ", ".join(filter(None, [f"runs since {clock(shown.since)}", count]))
        case State.RESTARTING:
            wait = max(0, round(shown.since + shown.delay - at))
            return f"down; systemd starts it again in {wait} s, restart {shown.restarts + 1} of {shown.limit}"
        case State.FAILED if shown.restart == "no":
            return "down; it is not restarted, for its entry says so"
        case State.FAILED:
            return f"down; systemd has given up, after {shown.limit} starts in an hour"
        case State.EXITED:
            return "off; its guest powered itself off"
        case State.STARTING:
            return "starting"
        case State.STOPPING:
            return "stopping"
    return "does not run on this host, there is no unit of it"


def short(shown: Shown | None) -> str:
    """Say the same in two words, for a subject."""
    match shown.state if shown else None:
        case State.RUNNING | State.STARTING:
            return "runs again"
        case State.RESTARTING | State.FAILED:
            return "is down"
        case State.ABSENT | State.EXITED:
            return "is off"
    return ""


def clock(seconds: float) -> str:
    """Write a time for people, in UTC; also one that journalctl --since reads."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """Write how long something took: its two largest units."""
    if seconds < 1:
        return f"{max(0.0, seconds):.1f} s"
    rest, parts = round(seconds), []
    for word, length in _SPANS:
        if count := rest // length:
            parts.append(f"{count} {'day' if (word, count) == ('days', 1) else word}")
        rest %= length
    return " ".join(parts[:2])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _time(text: str) -> float:
    """Read systemd's "Mon 2026-11-23 08:35:56.123456 UTC" (--timestamp=us+utc)."""
    try:
        return datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def _seconds(text: str) -> float:
    """Read systemd's "1min 12.5s"."""
    return sum(float(number) * _UNITS[word] for number, word in re.findall(r"([0-9.]+)(month|min|ms|us|w|d|h|s)", text))
