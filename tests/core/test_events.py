"""How the end of a run becomes one event with one reason."""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from uncloud_host.endings import End, ended
from uncloud_host.events import Event, Name
from uncloud_host.spool import HOUR, KEPT, Spool

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"


def end(by: str = "itself", **seen: object) -> End:
    return End(vm=UUID, invocation="i1", by=by, **{"started": 100.0, "ended": 200.0} | seen)  # type: ignore[arg-type]


ENDS = [
    (end("agent", event="stopped", why="its status is TO_STOP", exit_code="exited", exit_status="0"),
     "stopped", "its status is TO_STOP"),
    (end("agent", event="powered-off", why="the guest powered itself off"), "powered-off",
     "the guest powered itself off"),
    (end("agent", event="stopped", why="its entry was deleted", result="timeout", exit_code="killed"), "stopped",
     "its entry was deleted, it did not react and was killed"),
    (end("operator", exit_code="exited", exit_status="0"), "stopped-by-hand", "systemctl stop on this host"),
    (end("restart"), "stopped", "systemctl restart on this host"),
    (end("shutdown", exit_code="exited", exit_status="0"), "stopped", "this host is shutting down"),
    (end(shutdown="guest-panic", exit_code="exited", exit_status="1"), "panicked", "the guest's kernel panicked"),
    (end(shutdown="guest-shutdown", exit_code="exited", exit_status="0"), "powered-off", "the guest shut itself down"),
    (end(shutdown="host-signal", exit_code="exited", exit_status="0"), "killed", "somebody sent QEMU a signal"),
    (end(shutdown="host-qmp-quit", exit_code="exited", exit_status="0"), "killed", "somebody told QEMU to quit"),
    (end(exit_code="killed", exit_status="KILL"), "killed", "QEMU was killed by signal KILL from outside"),
    (end(exit_code="dumped", exit_status="SEGV"), "crashed", "QEMU died of signal SEGV"),
    (end(exit_code="killed", exit_status="SYS"), "crashed", "QEMU died of signal SYS"),
    (end(result="oom-kill", exit_code="killed", exit_status="KILL"), "oom-killed", "this host ran out of memory"),
    (end(result="watchdog", exit_code="killed", exit_status="ABRT"), "watchdog", "it did not answer its watchdog"),
    (end(result="exit-code"), "could-not-start", "systemd could not set it up (exit-code)"),
    (end(exit_code="exited", exit_status="202"), "could-not-start", "systemd could not set it up (202)"),
    (end(exit_code="exited", exit_status="1", ended=100.5, said='Failed to get "write" lock'), "could-not-start",
     'QEMU exited with 1: Failed to get "write" lock'),
    (end(exit_code="exited", exit_status="1"), "crashed", "QEMU exited with 1"),
    (end(exit_code="exited", exit_status="0"), "powered-off", "QEMU ended by itself"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "event", "reason"), ENDS, ids=[f"{e}: {r}"[:60] for _, e, r in ENDS])
def test_why_a_run_ended(seen: End, event: str, reason: str) -> None:
    told = ended(seen, "vmhost1", "web-1")
    assert (told.event, told.reason, told.time) == (event, reason, datetime.fromtimestamp(seen.ended, UTC))


def test_everyone_who_sees_an_end_makes_the_same_event() -> None:
    told = ended(end("operator"), "vmhost1", "web-1")
    assert ended(end("operator", ended=201.0), "vmhost1", UUID).id == told.id
    assert ended(end("itself", exit_code="killed", exit_status="KILL"), "vmhost1", "web-1").id == told.id
    assert ended(end("operator", is_after=True), "vmhost1", "web-1").id != told.id


FIELDS = st.sampled_from(["vm", "invocation", "by", "ended", "more"])
JSON = st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(FIELDS, x) | st.lists(x))


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_record_is_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(ValueError, TypeError):
        assert isinstance(End.read(text), End)


def event(**changed: object) -> Event:
    about: dict[str, object] = {
        "vm": UUID, "event": Name.KILLED, "subject": "i1", "time": datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
        "host": "vmhost1", "name": "web-1", "reason": "QEMU was killed by signal KILL from outside",
        "invocation": "i1", "trail": {"by": "itself", "exit": "killed KILL"},
    }  # fmt: skip
    return Event(**about | changed)  # type: ignore[arg-type]


def test_an_event_is_kept_once_and_told_by_every_channel(tmp_path) -> None:
    spool = Spool(tmp_path)
    assert spool.add(event())
    assert not spool.add(event(reason="seen by somebody else"))
    for channel in ("log", "mail"):
        (waiting,) = spool.pending(channel)
        assert waiting.event == event()
        spool.told(channel, [waiting])
        assert spool.pending(channel) == []
    assert not Spool(tmp_path).add(event())


def test_an_event_is_forgotten_a_week_after_everyone_has_told_it(tmp_path) -> None:
    spool = Spool(tmp_path)
    spool.add(event())
    spool.told("log", spool.pending("log"))
    with freeze_time("2036-11-23") as clock:
        spool.forget(clock().timestamp())
        assert spool.pending("mail")  # not told yet, however long ago
    spool = Spool(tmp_path)  # it forgets once an hour
    spool.told("mail", spool.pending("mail"))
    mark = (tmp_path / "told/mail" / event().id).stat().st_mtime
    spool.forget(mark + KEPT - HOUR)
    assert not spool.add(event())
    spool.forget(mark + KEPT + 1)
    assert spool.add(event())


def old(directory: Path) -> tuple[Spool, float]:
    """A spool with an event that everybody was told of, and when it may be forgotten."""
    spool = Spool(directory)
    spool.add(event())
    for channel in ("log", "mail"):
        spool.told(channel, spool.pending(channel))
    return spool, (directory / "told/mail" / event().id).stat().st_mtime + KEPT + 1


def test_what_lasts_is_not_forgotten_or_it_would_be_told_every_week(tmp_path) -> None:
    spool, late = old(tmp_path)
    spool.forget(late, lasting=lambda: {event().id})
    assert spool.has(event())


def test_a_file_in_the_spool_that_cannot_be_read_hides_no_other(tmp_path) -> None:
    spool = Spool(tmp_path)
    spool.add(event())
    for name, text in (("empty", ""), ("list", "[]"), ("half", '{"vm": "x"'), ("wrong", '{"event": 7}')):
        (tmp_path / "events" / name).write_text(text)
        (tmp_path / "ends" / name).write_text(text)
    assert [spooled.event for spooled in spool.pending("log")] == [event()]
    assert [found for _, found in spool.ends()] == [None] * 4
