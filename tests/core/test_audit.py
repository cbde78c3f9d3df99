"""What an audit finds: each class, and what looks like one and is none."""

import dataclasses
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from core.vms import ABSENT, CONFIRMED, HELD, ME, MINE, OTHERS, UUID, unit, vm
from uncloud_host import audit
from uncloud_host.audit import classify, over, remembered, reminder
from uncloud_host.events import Name
from uncloud_host.facts import Claim, Desired, Gone, Invalid, Observed
from uncloud_host.findings import Asked, Code, Finding, Found, Named, Shown
from uncloud_host.models import VM
from uncloud_host.strangers import Program, describe, shown
from uncloud_host.unit import Service, State, name

NOW = 100_000.0
WELL = Service("active", "success", 1.0)
HERE = Shown(ME.machine_id, ME.boot_id, 1.0)
THERE = Shown("m2", "b2", 1.0)
BAD = Invalid(UUID, "why", 3, 9, told=True)
NAMESAKE = dataclasses.replace(OTHERS, host=ME.host)
STRANGE = Observed(State.RUNNING, None, "i1", 0, 5.0)
QEMU = Program(
    4711, 99, 50.0, "/usr/bin/qemu-system-x86_64", "libvirt-qemu", r"/machine.slice/machine-qemu\x2d1\x2done.scope/x",
    ("/usr/bin/qemu-system-x86_64", "-name", "guest=one-7,debug-threads=on", "-uuid", UUID),
)  # fmt: skip


def found(**said: object) -> Found:
    """A host on which nothing is wrong but what is said."""
    etcd = said.pop("etcd", Asked(hosts={ME.host: HERE}, audited={ME.host}))
    return Found(**{"me": ME, "now": NOW, "agent": WELL, "etcd": etcd} | said)  # type: ignore[arg-type]


def etcd(desired: Desired, claim: Claim | None = None) -> Asked:
    return Asked({UUID: (desired, claim)}, {ME.host: HERE}, {ME.host})


def one(findings: Collection[Finding]) -> Finding:
    (finding,) = findings
    return finding


def fits(vm: VM, state: str) -> Observed:
    """A unit that was started with this very entry."""
    observed = unit(state)
    assert observed.evidence
    evidence = dataclasses.replace(observed.evidence, fingerprint=vm.entry.fingerprint())
    return dataclasses.replace(observed, evidence=evidence)


VMS: list[tuple[Desired, str, Claim | None, str]] = [
    (vm("RUNNING"), "fits", MINE, ""),
    (vm("RUNNING"), "running", MINE, "stale"),
    (vm("STOP"), "running", MINE, ""),  # the agent stops it
    (vm("RUNNING"), "absent", MINE, "missing"),
    (vm(), "absent", None, "missing"),
    (vm("TO_RESTART"), "absent", None, "missing"),
    (vm("FAILED"), "absent", MINE, "missing"),
    (vm("FAILED"), "failed", MINE, "missing"),
    (vm("RUNNING"), "failed", MINE, "missing"),
    (vm("STOP"), "absent", None, ""),
    (vm("TO_STOP"), "absent", MINE, ""),
    (vm("RUNNING", host="vmhost2"), "absent", None, ""),
    (vm("TO_START"), "starting", MINE, "stale"),
    (vm("RUNNING"), "restarting", MINE, "stale"),
    (vm("RUNNING"), "stopping", MINE, ""),
    (vm("RUNNING", restart="no"), "exited", MINE, ""),  # the guest powered itself off
    (vm("RUNNING"), "absent", OTHERS, "missing"),  # it waits
    (vm("RUNNING"), "absent", NAMESAKE, "wrong-host"),
    (vm("RUNNING"), "running", OTHERS, "wrong-host"),
    (Gone(UUID), "running", OTHERS, "wrong-host"),
    (BAD, "running", OTHERS, "wrong-host"),
    (vm("RUNNING", host="vmhost2"), "running", OTHERS, ""),  # the agent stops it
    (Gone(UUID), "running", MINE, "foreign"),
    (Gone(UUID), "running", None, "foreign"),
    (Gone(UUID), "stopping", MINE, ""),
    (Gone(UUID), "running", HELD, ""),
    (Gone(UUID), "running", CONFIRMED, ""),
    (vm("RUNNING"), "absent", HELD, ""),
    (Gone(UUID), "absent", MINE, ""),
    (BAD, "running", MINE, ""),
    (BAD, "absent", None, ""),
]


@pytest.mark.parametrize(("desired", "state", "claim", "code"), VMS)
def test_a_vm(desired: Desired, state: str, claim: Claim | None, code: str) -> None:
    observed = fits(desired, "running") if state == "fits" and isinstance(desired, VM) else unit(state)
    said = classify(found(units={UUID: observed} if observed != ABSENT else {}, etcd=etcd(desired, claim)))
    assert [finding.code for finding in said] == ([code] if code else [])


def test_a_missing_vm_counts_after_a_minute_from_when_it_was_first_seen() -> None:
    first = one(classify(found(etcd=etcd(vm("RUNNING"), MINE))))
    assert (first.since, first.due) == (NOW, NOW + 60)
    later = classify(found(now=NOW + 61, etcd=etcd(vm("RUNNING"), MINE)))
    assert one(remembered(later, {first.key: first.since}, ())).due == NOW + 60


def test_what_has_been_told_counts_at_once_and_since_then() -> None:
    down = ("down", UUID)
    said = one(remembered(classify(found(etcd=etcd(vm("FAILED"), MINE))), {down: 5.0}, {down}))
    assert (said.since, said.due) == (5.0, 5.0)


def test_one_that_waits_for_another_host_is_told_later_and_for_whom_it_waits() -> None:
    said = one(classify(found(etcd=etcd(vm("RUNNING"), OTHERS))))
    assert said.sentence == "it waits for vmhost2, which has its claim"
    assert said.after == audit.SILENT


def test_wrong_host_is_the_same_event_as_the_agents() -> None:
    said = one(classify(found(units={UUID: unit("running")}, etcd=etcd(vm("RUNNING"), OTHERS))))
    assert (said.event, said.subject) == (Name.WRONG_HOST, OTHERS.id)


def test_what_somebody_stopped_by_hand_is_not_missing() -> None:
    assert classify(found(stopped={UUID}, etcd=etcd(vm("RUNNING"), MINE))) == []


def test_stale_is_told_to_nobody() -> None:
    said = one(classify(found(units={UUID: unit("running")}, etcd=etcd(vm("RUNNING"), MINE))))
    assert (said.code, said.event, said.after) == (Code.STALE, None, 0)


def test_a_unit_that_we_did_not_start() -> None:
    said = one(classify(found(units={UUID: STRANGE}, etcd=etcd(vm("RUNNING"), None))))
    assert (said.code, said.about) == (Code.FOREIGN, UUID)
    assert said.sentence == f"vm-{UUID}.service is no unit of uncloud-host"


def test_a_program_in_such_a_unit_is_described_with_it() -> None:
    inside = dataclasses.replace(QEMU, cgroup=f"/system.slice/vm-{UUID}.service")
    said = one(classify(found(units={UUID: STRANGE}, programs=[inside])))
    assert "pid 4711" in said.sentence


def test_a_unit_whose_name_is_no_uuid() -> None:
    assert one(classify(found(odd={"vm-test.service"}))).about == "vm-test.service"


def test_a_program_of_somebody_else_is_found_without_etcd_too() -> None:
    said = one(classify(found(programs=[QEMU], etcd=None)))
    assert (said.code, said.about, said.due) == (Code.FOREIGN, "pid-4711-99", 60)


OURS = f"/uncloud.slice/uncloud-vm.slice/{name(UUID)}"


@pytest.mark.parametrize(
    ("cgroup", "mains", "is_ours"),
    [
        (OURS, {}, True),
        (OURS, {UUID: 4711}, True),
        (OURS, {UUID: 0}, True),  # it is being stopped
        (OURS, {UUID: 4710}, False),
        (f"/user.slice/user-1000.slice/user@1000.service/app.slice/{name(UUID)}", {}, False),
        (f"/system.slice/docker-1.scope/system.slice/{name(UUID)}", {}, False),
        ("/system.slice/ssh.service", {}, False),
        ("", {}, False),
    ],
)
def test_whose_a_program_is(cgroup: str, mains: dict[str, int], *, is_ours: bool) -> None:
    program = dataclasses.replace(QEMU, cgroup=cgroup)
    said = classify(found(units={UUID: unit("running")}, mains=mains, programs=[program]))
    assert (said == []) == is_ours


HAND = "/user.slice/user-1000.slice/session-3.scope"


@pytest.mark.parametrize(
    ("cgroup", "command", "told"),
    [
        (QEMU.cgroup, QEMU.command, "OpenNebula's VM, libvirt's machine-qemu-1-one.scope: "),
        (HAND, ("q", "-name", "x"), "qemu-system-x86_64 x, pid 4711 of user libvirt-qemu since 1970-01-01T00:00:50Z, "
         "started by hand in session-3.scope: q -name x"),
        (HAND, (), "qemu-system-x86_64, pid 4711"),
        ("/system.slice/x.service", ("q", "--name", "a,b"), "qemu-system-x86_64 a, pid 4711"),
        ("/", ("q", "-name"), "in /: q -name"),
    ],
)  # fmt: skip
def test_how_a_program_is_described(cgroup: str, command: tuple[str, ...], told: str) -> None:
    assert told in describe(dataclasses.replace(QEMU, cgroup=cgroup, command=command))


def test_a_program_cannot_make_an_audit_too_big_for_etcd() -> None:
    assert len(describe(dataclasses.replace(QEMU, command=("q", "-name", "\ufffd" * 65536)))) < 1000


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("q", "-object", "secret,id=x,data=geheim"), "q -object secret,id=x,data=..."),
        (("q", '{"qom-type":"secret","data":"geheim","iv":"1"}'), 'q {"qom-type":"secret","data":"...","iv":"1"}'),
        (("q", "a\nb\x1b[0m"), "q a?b?[0m"),
        (("q", "x" * 1000), f"q {'x' * 298}..."),
    ],
)
def test_a_command_is_fit_to_be_shown(command: tuple[str, ...], told: str) -> None:
    assert shown(command) == told


@pytest.mark.parametrize(
    ("agent", "presence", "after"),
    [
        (WELL, HERE, None),
        (Service("inactive", "success", 7.0), HERE, 60),  # it may be an upgrade
        (Service("failed", "exit-code", 7.0), HERE, 0),
        (Service("activating", "success", 7.0), HERE, None),
        (Service("activating", "success", 7.0), None, 60),
        (WELL, None, 60),
        (WELL, Shown(ME.machine_id, "an earlier boot", 1.0), 60),
        (WELL, Shown("m2", "b2", 1.0), None),  # duplicate-host
    ],
)
def test_the_agent(agent: Service, presence: Shown | None, after: float | None) -> None:
    said = classify(found(agent=agent, etcd=Asked(hosts={ME.host: presence} if presence else {})))
    assert [(finding.code, finding.after) for finding in said] == (
        [(Code.AGENT_DOWN, after)] if after is not None else []
    )


def test_a_clone_that_shows_itself_in_turns_with_us_is_no_agent_that_is_down() -> None:
    etcd = Asked(hosts={ME.host: Shown(ME.machine_id, "the boot of the clone", 1.0)})
    assert classify(found(etcd=etcd, open={("duplicate-host", ""): 1.0})) == []


def test_without_etcd_only_a_stopped_agent_is_down() -> None:
    assert classify(found(etcd=None)) == []
    assert one(classify(found(agent=Service("failed", "exit-code", 7.0), etcd=None))).code == Code.AGENT_DOWN


LONG = Named(run=1, all=2)
HOSTS: list[tuple[dict[str, Shown], set[str], Named, set[str], str]] = [
    ({"vmhost2": THERE}, {"vmhost2"}, LONG, set(), ""),
    ({}, {"vmhost2"}, LONG, set(), "host-silent"),
    ({}, set(), LONG, {"vmhost2"}, "host-silent"),
    ({}, set(), Named(claims=1), set(), "host-silent"),
    ({}, set(), LONG, set(), "unknown-host"),
    ({}, set(), Named(all=1), set(), ""),  # nothing should run there
    ({}, {"vmhost2"}, Named(), set(), ""),
    ({"vmhost2": THERE}, set(), LONG, set(), "host-silent"),  # its audit
    ({"vmhost2": Shown("m2", "b2", NOW - 600)}, set(), LONG, set(), ""),  # its agent began a moment ago
    ({"vmhost0": THERE}, {"vmhost0", "vmhost2"}, LONG, set(), ""),  # which reports it
    ({"vmhost0": THERE}, {"vmhost2"}, LONG, set(), "host-silent"),  # it would not: its audits do not run
]


@pytest.mark.parametrize(("hosts", "audited", "named", "logged", "code"), HOSTS)
def test_another_host(hosts: dict[str, Shown], audited: set[str], named: Named, logged: set[str], code: str) -> None:
    asked = Asked({}, {ME.host: HERE} | hosts, {ME.host} | audited, {"vmhost2": named}, logged)
    assert [finding.code for finding in classify(found(etcd=asked))] == ([code] if code else [])


def test_who_has_told_of_a_host_goes_on_when_another_one_is_the_first() -> None:
    asked = Asked({}, {ME.host: HERE, "vmhost0": THERE}, {ME.host, "vmhost0"}, {"vmhost2": LONG}, {"vmhost2"})
    said = classify(found(etcd=asked, open={("host-silent", "vmhost2"): 1.0}))
    assert [finding.code for finding in said] == [Code.HOST_SILENT]


def test_an_etcd_that_has_lost_all_audits_says_nothing_about_one_host() -> None:
    asked = Asked({}, {ME.host: HERE, "vmhost2": THERE}, (), {"vmhost2": LONG})
    assert classify(found(etcd=asked)) == []


OVER: list[tuple[str, str, Found, str | None]] = [
    ("foreign", "pid-1-2", found(etcd=None), "it is gone"),
    ("foreign", UUID, found(etcd=None), None),
    ("foreign", UUID, found(), "it is gone, or has an entry"),
    ("agent-down", ME.host, found(), "it works"),
    ("agent-down", ME.host, found(agent=Service("activating", "success", 1.0)), None),
    ("agent-down", ME.host, found(etcd=None), None),
    ("host-silent", "vmhost2", found(), "it shows itself, or nothing names it any more"),
    ("unknown-host", "vmhost2", found(), "it has been seen, or nothing should run there any more"),
    ("unknown-host", "vmhost2", found(etcd=None), None),
    ("down", UUID, found(etcd=etcd(vm("RUNNING"), MINE), units={UUID: unit("running")}), "it runs again"),
    ("down", UUID, found(etcd=etcd(vm("RUNNING"), MINE), units={UUID: unit("starting")}), None),
    ("down", UUID, found(etcd=etcd(Gone(UUID))), None),  # the agent knows whether that is to be believed
    ("held", UUID, found(etcd=etcd(vm("RUNNING"), MINE)), None),  # the agent's
]


@pytest.mark.parametrize(("kind", "about", "now", "why"), OVER)
def test_when_it_is_over(kind: str, about: str, now: Found, why: str | None) -> None:
    assert over(kind, about, 10.0, now) == why


def test_an_event_about_a_vm_names_it_and_one_about_a_process_does_not() -> None:
    missing = one(classify(found(etcd=etcd(vm("RUNNING", name="web-1"), None)))).told(ME.host, NOW)
    assert missing.sentence.startswith("VM web-1 is missing: it should run here and does not")
    foreign = one(classify(found(programs=[QEMU]))).told(ME.host, NOW)
    assert foreign.vm == ""
    assert foreign.sentence.startswith("host vmhost1 runs what does not belong here: qemu-system-x86_64 one-7")


@pytest.mark.parametrize(
    ("begun", "reminded"),
    [
        ("2026-11-24T23:50Z", ["2026-11-26 00:00", "2026-11-27 00:00"]),
        ("2026-11-24T11:00Z", ["2026-11-25 00:00", "2026-11-26 00:00", "2026-11-27 00:00"]),
    ],
)
def test_people_are_reminded_of_what_has_lasted_once_in_each_period(begun: str, reminded: list[str]) -> None:
    since, told = datetime.fromisoformat(begun), dict[str, str]()
    with freeze_time(since) as clock:
        for _ in range(3 * 24 * 12):
            now = datetime.now(UTC).timestamp()
            if event := reminder([(UUID, "missing")], since.timestamp(), ME.host, 24, now):
                told.setdefault(event.id, f"{event.time:%Y-%m-%d %H:%M}")
                assert event.sentence == f"host vmhost1 has problems that last: 1 problem: {UUID}: missing"
            clock.tick(timedelta(minutes=5))
    assert list(told.values()) == reminded


def test_nobody_is_reminded_of_nothing_or_who_does_not_want_it() -> None:
    assert reminder([], 0, ME.host, 24, NOW) is None
    assert reminder([("x", "y")], 0, ME.host, 0, NOW) is None
    assert reminder([("x", "y")], NOW - 600, ME.host, 24, NOW) is None
