"""What a mail says."""

import email
import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncloud_host import shown, writing
from uncloud_host.events import Event, Name
from uncloud_host.shown import Shown
from uncloud_host.unit import State
from uncloud_host.writing import EVENTS, Scene

UUID, OTHER = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "7a1dd0a5-5e12-4a0e-9d3b-0c5b2f6a4e01"
TIME = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
KILLED = "QEMU was killed by signal KILL from outside"


def event(what: str = "killed", **changed: object) -> Event:
    about: dict[str, object] = {
        "vm": UUID, "event": Name(what), "subject": "i1", "time": TIME, "host": "vmhost1", "name": "web-1",
        "reason": KILLED if what == "killed" else "why", "invocation": "i1", "trail": {},
    }  # fmt: skip
    return Event(**about | changed)  # type: ignore[arg-type]


def unit(state: str = "running", **changed: object) -> Shown:
    about: dict[str, object] = {"since": TIME.timestamp() + 1, "restarts": 1, "limit": 15, "delay": 2.0}
    return Shown(UUID, "web-1", State(state), **about | changed)  # type: ignore[arg-type]


def written(*events: Event, scene: Scene | None = None) -> EmailMessage:
    scene = scene or Scene(TIME.timestamp() + 2, {UUID: unit()})
    return writing.message(events or [event()], scene, "uncloud-host@vmhost1.example", ["sre@example.org", "ops@a.b"])


def later(seconds: float, what: str = "restarted", **changed: object) -> Event:
    return event(what, subject="i2", time=TIME + timedelta(seconds=seconds), reason="by systemd, restart 1", **changed)


DOWN = Scene(TIME.timestamp(), {UUID: unit("restarting")})
FAILED = Scene(TIME.timestamp(), {UUID: unit("failed")})
UNKNOWN = Scene(TIME.timestamp(), {})
SUBJECTS = [
    ([event("crashed", reason="QEMU died of signal SEGV"), later(1)], None,
     "web-1 crashed, runs again: QEMU died of signal SEGV"),
    ([event("crashed", reason="QEMU died of signal SEGV")], DOWN, "web-1 crashed, is down: QEMU died of signal SEGV"),
    ([later(9)], None, "web-1 runs again: by systemd, restart 1"),
    ([event(), later(1)], UNKNOWN, f"web-1 was killed, runs again: {KILLED}"),
    ([event()], UNKNOWN, f"web-1 was killed: {KILLED}"),
    ([event(), later(1, "gave-up")], FAILED, "web-1 is not restarted any more: by systemd, restart 1"),
    ([event("started")], None, "web-1 started: why"),
    ([event("could-not-start")], FAILED, "web-1 could not start: why"),
    ([event("powered-off"), later(1)], None, "web-1 powered itself off, runs again: why"),
    ([event("resolved", reason="it runs again (gave-up: x)")], None, "web-1 is well again: it runs again (gave-up: x)"),
    ([later(50 * n, "killed") for n in range(12)], DOWN,
     "web-1 ended 12 times in 9 min 10 s, is down: by systemd, restart 1"),
    ([event("held", vm=vm) for vm in (UUID, OTHER)], None, "2 VMs are held: why"),
    ([event("etcd-lost", vm="", name="")], None, "has lost etcd: why"),
    ([event(), later(1), event(vm=OTHER)], None, "2 VMs killed, 1 run again"),
    ([event(), event("gave-up", vm=OTHER)], DOWN, "2 VMs: 1 gave-up, 1 killed, 0 run again"),
    ([event("started"), event("started", vm=OTHER)], None, "2 VMs started"),
    ([event("started", name="=?utf-8?q?=0AX-Evil:_1?=")], None, "= ?utf-8?q?=0AX-Evil:_1?= started: why"),
    ([event("started", name="100%s %(x)s")], None, "100%s %(x)s started: why"),
    ([event("started", name="räksmörgås")], None, "räksmörgås started: why"),
    ([event("started", name="x\r\nBcc: evil@example.org")], None, "x??Bcc: evil@example.org started: why"),
    ([event("started", name="n" * 400)], None, f"{'n' * 60}... started: why"),
]  # fmt: skip


@pytest.mark.parametrize(("events", "scene", "expected"), SUBJECTS, ids=[each[2][:50] for each in SUBJECTS])
def test_the_subject(events: list[Event], scene: Scene | None, expected: str) -> None:
    told = written(*events, scene=scene)
    assert told["Subject"] == f"[vmhost1] {expected}"
    assert email.message_from_bytes(told.as_bytes(), policy=email.policy.default)["Subject"] == told["Subject"]


def test_the_mail_about_an_end() -> None:
    trail = {"by": "itself", "exit": "killed KILL", "result": "signal", "seconds": "4212.3", "restarts": "2"}
    scene = Scene(TIME.timestamp() + 2, {UUID: unit()}, ["TINY-GUEST boot 1w", "login: "])
    told = written(event(trail=trail), later(1), scene=scene)
    assert f"Subject: {told['Subject']}\r\n".encode() in told.as_bytes()
    assert told["To"] == "sre@example.org, ops@a.b"
    assert told["Date"] == "Mon, 23 Nov 2026 08:30:01 +0000"
    assert told["Auto-Submitted"] == "auto-generated"
    assert told["References"] == told["In-Reply-To"] == f"<vm-{UUID}@vmhost1.example>"
    assert told[EVENTS].split() == [event().id, later(1).id]
    assert told.get_content() == (
        f"VM web-1 on vmhost1 was killed: {KILLED}.\n\n"
        f"VM:        web-1 ({UUID})\n"
        "Host:      vmhost1\n"
        "Event:     killed\n"
        "When:      2026-11-23 08:30:00 UTC\n"
        f"Reason:    {KILLED}\n"
        "Ended by:  somebody or something else on this host, by a signal\n"
        "QEMU:      died of signal KILL\n"
        "systemd:   Result=signal\n"
        "Had run:   for 1 h 10 min\n"
        "Restarts:  2 before this end\n"
        "Now:       runs since 2026-11-23 08:30:01 UTC, restart 1 of 15\n"
        "\nWhat happened, in UTC:\n"
        f"  08:30:00  killed: {KILLED}\n"
        "  08:30:01  restarted: by systemd, restart 1\n"
        "\nThe last lines of its console, which are the guest's own words:\n"
        "  | TINY-GUEST boot 1w\n"
        "  | login: \n"
        "\nTo look further, on vmhost1:\n"
        f"  systemctl status vm-{UUID}\n"
        f"  journalctl -u vm-{UUID} --since '2026-11-23 08:29:00 UTC'\n"
        f"  uncloud-host show {UUID}\n"
    )


NOWS = [
    (unit(), "runs since 2026-11-23 08:30:01 UTC, restart 1 of 15"),
    (unit(restarts=0), "runs since 2026-11-23 08:30:01 UTC"),
    (unit("restarting"), "down; systemd starts it again in 3 s, restart 2 of 15"),
    (unit("failed"), "down; systemd has given up, after 15 starts in an hour"),
    (unit("failed", restart="no"), "down; it is not restarted, for its entry says so"),
    (unit("exited"), "off; its guest powered itself off"),
    (unit("absent"), "does not run on this host, there is no unit of it"),
    (None, ""),
]


@pytest.mark.parametrize(("found", "expected"), NOWS)
def test_how_it_stands_now(found: Shown | None, expected: str) -> None:
    assert shown.now(found, TIME.timestamp()) == expected


SHOWN = f"""Id=vm-{UUID}.service
Description=VM web 1
ActiveState=activating
SubState=auto-restart
InvocationID=5f
Result=signal
ExecMainCode=2
ExecMainStatus=9
NRestarts=2
Restart=always
RestartUSecNext=1min 12.500s
StartLimitBurst=15
StateChangeTimestamp=Mon 2026-11-23 08:30:00.500000 UTC
ExecMainStartTimestamp=
"""


def test_what_systemctl_shows_of_two_units() -> None:
    first, second = shown.read(f"{SHOWN}\nId=vm-{OTHER}.service\nActiveState=inactive\nSubState=dead\n")
    assert (first.name, first.state, first.exit_code, first.exit_status) == ("web 1", State.RESTARTING, "killed", "9")
    assert (first.restarts, first.limit, first.delay) == (2, 15, 72.5)
    assert (first.since, first.started) == (TIME.timestamp() + 0.5, 0.0)
    assert (second.uuid, second.state, second.name) == (OTHER, State.ABSENT, OTHER)


def test_what_was_wrong_is_told_when_it_is_over() -> None:
    trail = {"was": "gave-up: systemd gave up", "since": "2026-11-23 08:00:00 UTC, for 30 min"}
    text = written(event("resolved", trail=trail)).get_content()
    assert "Was:       gave-up: systemd gave up\nSince:     2026-11-23 08:00:00 UTC, for 30 min\n" in text


def test_an_event_of_no_time_that_a_clock_shows_stops_no_mail() -> None:
    """A guest that has broken out may write any time; what is in the spool must not end every sender."""
    told = written(event(time=datetime(1, 1, 1, tzinfo=UTC)))
    assert "--since '1970-01-01 00:00:00 UTC'" in told.get_content()


def test_a_digest_names_every_vm_and_every_event() -> None:
    events = [event(vm=vm, name=f"name-{vm[:4]}") for vm in (UUID, OTHER)] + [later(1)]
    told = written(*events)
    assert [each.id for each in events] == told[EVENTS].split()
    assert f"name-7a1d ({OTHER})\n  08:30:00  killed: {KILLED}\n" in told.get_content()
    assert "journalctl -u 'vm-*' --since" in told.get_content()
    assert told["References"] is None


def test_many_events_have_a_header_that_mail_servers_take() -> None:
    events = [event(subject=f"i{number}") for number in range(1000)]
    told = email.message_from_bytes(written(*events).as_bytes(), policy=email.policy.default)
    assert told[EVENTS].split() == [each.id for each in events]
    assert max(map(len, written(*events).as_bytes().splitlines())) < 998


@given(st.text(), st.text())
def test_no_name_or_reason_can_add_a_header(name: str, reason: str) -> None:
    told = written(event(name=name, reason=reason))
    assert told.keys() == written().keys()
    assert "\n" not in told["Subject"]
    again = email.message_from_bytes(told.as_bytes(), policy=email.policy.default)
    assert again.keys() == [*told.keys()]
