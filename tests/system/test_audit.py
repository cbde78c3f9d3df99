"""The audit: what is not as etcd says is found, told once when it begins and once when it ends, and left alone."""

import json
import subprocess
import uuid as uuids

import pytest

from system.audits import HURRY, audit, found, tell, told
from system.world import World
from waiting import eventually

QEMU = "qemu-system-x86_64 -S -display none -m 16"


@pytest.fixture(scope="module")
def host(world: World) -> World:
    world.hurry(*HURRY)
    world.wait_ready()
    return world


@pytest.fixture
def clean(host: World) -> World:
    """A host on which nothing is wrong."""
    host.shell("systemctl reset-failed uncloud-host; systemctl start uncloud-host etcd")
    host.wait_ready()
    eventually(lambda: audit(host) == (0, []), within=60, what=lambda: f"nothing is found: {audit(host)}")
    return host


def test_a_host_on_which_all_is_well(clean: World) -> None:
    world = clean
    uuid = world.vm()
    assert found(world, "--now") == []
    done = world.host.run("uncloud-host", "audit")
    assert done.stdout + done.stderr == ""
    tell(world)
    shown = json.loads(world.raw(f"/v1/audit/{world.name}"))
    assert (shown["host"], shown["findings"]) == (world.name, [])
    assert shown["machine_id"] == world.host.pull("/etc/machine-id").decode().strip()
    assert world.events(uuid) == ["started"]


def test_a_qemu_that_somebody_started_by_hand(clean: World) -> None:
    world = clean
    pid = world.shell(f"{QEMU} -name by-hand -pidfile /tmp/hand.pid -daemonize && cat /tmp/hand.pid").strip()
    ((code, about),) = found(world)
    assert (code, about.split("-")[1]) == ("foreign", pid)
    table = world.host.run("uncloud-host", "audit", check=False).stdout
    assert f"qemu-system-x86_64 by-hand, pid {pid} of user root since 20" in table
    assert table.startswith("CODE ")
    assert "-display none -m 16" in table
    for _ in range(2):
        tell(world)
    told(world, f"pid {pid} of", "foreign")
    world.host.run("kill", pid)
    for _ in range(2):
        eventually(lambda: found(world) == [], what="it is gone")
        tell(world)
    told(world, f"pid {pid} of", "foreign", "resolved")


def test_one_of_libvirts_whose_file_has_been_upgraded_meanwhile(clean: World) -> None:
    world = clean
    words = QEMU.replace("qemu-system-x86_64", "/usr/bin/qemu-system-copy")
    words += " -name guest=one-7,debug-threads=on -object secret,id=x,data=geheim"
    unit = "--slice=machine.slice --unit='machine-qemu\\x2d1\\x2done\\x2d7.scope'"
    world.shell("cp /usr/bin/qemu-system-x86_64 /usr/bin/qemu-system-copy")
    world.shell(f"systemd-run --quiet --scope {unit} {words} >/dev/null 2>&1 &")
    eventually(lambda: world.shell("pgrep -f '^/usr/bin/qemu-system-copy' || true"), what="it runs")
    world.shell("rm /usr/bin/qemu-system-copy")
    findings = eventually(lambda: audit(world)[1], what="it is found")
    assert "qemu-system-copy one-7, pid" in findings[0]["what"]
    assert "OpenNebula's VM, libvirt's machine-qemu-1-one-7.scope" in findings[0]["what"]
    assert "geheim" not in findings[0]["what"]
    world.shell("systemctl stop machine.slice")


def test_a_program_that_has_kvm_open_and_another_name(clean: World) -> None:
    world = clean
    # As the kernel numbers it; whether this machine has KVM is another question.
    world.shell("test -c /dev/kvm || mknod /dev/kvm c 10 232")
    world.shell("systemd-run --quiet --unit=other-vmm sh -c 'exec 9<>/dev/kvm; exec sleep 1000'")
    findings = eventually(lambda: audit(world)[1], what="it is found")
    assert "in other-vmm.service: sleep 1000" in findings[0]["what"]
    world.shell("systemctl stop other-vmm")


def test_who_only_says_that_he_is_a_qemu(clean: World) -> None:
    world = clean
    world.shell("systemd-run --quiet --unit=liar bash -c 'exec -a /usr/bin/qemu-system-x86_64 sleep 1000'")
    assert found(world) == []
    world.shell("systemctl stop liar")


def test_a_unit_made_by_hand(clean: World) -> None:
    world = clean
    uuid = str(uuids.uuid4())
    world.shell(f"systemd-run --quiet --unit=vm-{uuid} {QEMU}")
    world.shell(f"systemd-run --quiet --unit=vm-test {QEMU}")
    findings = found(world)
    assert ("foreign", uuid) in findings
    assert ("foreign", "vm-test.service") in findings
    for _ in range(2):
        tell(world)
    told(world, f"vm-{uuid}.service is no unit", "foreign")
    assert world.state(uuid) == "active/running"  # it is left alone
    world.shell(f"systemctl stop vm-{uuid} vm-test")
    tell(world)
    told(world, f"vm-{uuid}.service is no unit", "foreign", "resolved")


@pytest.mark.parametrize(("nobody", "memory"), [("vmhost97", 16), ("vmhost99", "much")])
def test_an_entry_for_a_host_that_nobody_knows_even_if_that_is_not_all_that_is_wrong(
    clean: World, nobody: str, memory: object
) -> None:
    world = clean
    uuid = world.put(str(uuids.uuid4()), host=nobody, memory=memory)
    assert found(world) == [("unknown-host", nobody)]
    for _ in range(2):
        tell(world)
    told(world, nobody, "unknown-host")
    world.delete(uuid)
    tell(world)
    told(world, nobody, "unknown-host", "resolved")


def test_an_entry_changed_under_a_running_vm_is_listed_and_told_to_nobody(clean: World) -> None:
    world = clean
    uuid = world.vm()
    world.ask(uuid, memory=32)
    assert found(world) == [("stale", uuid)]
    tell(world)
    shown = json.loads(world.raw(f"/v1/audit/{world.name}"))
    assert [finding["code"] for finding in shown["findings"]] == ["stale"]
    world.ask(uuid, status="TO_RESTART")
    world.wait_status(uuid, "RUNNING")
    assert found(world) == []
    assert set(world.events(uuid)) <= {"started", "stopped"}


def test_an_agent_that_is_stopped_and_the_vm_that_nobody_starts(clean: World) -> None:
    world = clean
    world.host.run("systemctl", "stop", "uncloud-host")
    uuid = world.new(name="waiting")
    assert sorted(found(world)) == [("agent-down", world.name), ("missing", uuid)]
    for _ in range(2):
        tell(world)
    world.host.run("systemctl", "start", "uncloud-host")
    world.wait_status(uuid, "RUNNING")
    eventually(lambda: found(world) == [], what="both are well")
    tell(world)
    told(world, "uncloud-host.service is inactive", "agent-down", "resolved")
    # The agent may have been faster.
    told(world, "it should run here and does not", "missing", "resolved")


def test_an_agent_that_hangs(clean: World) -> None:
    world = clean
    world.shell("mkdir -p /run/systemd/system/uncloud-host.service.d && cd /run/systemd/system/uncloud-host.service.d"
                " && printf '[Service]\nWatchdogSec=0\n' > watchdog.conf && systemctl daemon-reload")  # fmt: skip
    world.host.run("systemctl", "restart", "uncloud-host")
    world.wait_ready()
    world.shell("systemctl kill -s STOP uncloud-host")
    eventually(lambda: not world.raw(f"/v1/host/{world.name}"), within=120, what="its presence has run out")
    status, findings = audit(world)
    assert (status, [finding["code"] for finding in findings]) == (1, ["agent-down"])
    assert "is active, but out of step: its key in etcd is not there" in findings[0]["what"]
    world.shell("systemctl kill -s CONT uncloud-host; rm -r /run/systemd/system/uncloud-host.service.d")
    world.shell("systemctl daemon-reload; systemctl restart uncloud-host")


def test_without_etcd_it_tells_what_the_host_alone_shows_and_concludes_nothing(clean: World) -> None:
    world = clean
    uuid = world.vm()
    gone = world.put(str(uuids.uuid4()), host="vmhost98")
    tell(world)
    told(world, "vmhost98", "unknown-host")
    world.host.run("systemctl", "stop", "etcd")
    pid = world.shell(f"{QEMU} -pidfile /tmp/hand.pid -daemonize && cat /tmp/hand.pid").strip()
    world.host.run("systemctl", "stop", "uncloud-host")
    status, findings = audit(world)
    assert status == 2
    assert sorted(finding["code"] for finding in findings) == ["agent-down", "foreign"]
    world.host.run("systemctl", "start", "uncloud-host-audit", check=False)
    assert world.shell("systemctl show -p ExecMainStatus --value uncloud-host-audit") == "2\n"
    world.shell(f"kill {pid}; systemctl start etcd uncloud-host")
    world.wait_ready()
    told(world, "vmhost98", "unknown-host")
    told(world, f"pid {pid} of", "foreign")
    tell(world)
    told(world, f"pid {pid} of", "foreign", "resolved")
    assert world.events(uuid) == ["started"]
    world.delete(gone)
    tell(world)
    told(world, "vmhost98", "unknown-host", "resolved")


def test_two_at_once(clean: World) -> None:
    world = clean
    world.shell(f"{QEMU} -pidfile /tmp/hand.pid -daemonize")
    with world.host.popen("flock", "/run/uncloud-host/audit.lock", "cat", stdin=subprocess.PIPE) as other:
        eventually(
            lambda: world.shell("flock -n /run/uncloud-host/audit.lock true || echo locked"), what="it is locked"
        )
        done = world.host.run("uncloud-host", "audit", "--tell")
        assert other.stdin
        other.stdin.close()
    assert (done.stdout, done.stderr) == ("", "uncloud-host: another audit is under way\n")
    world.shell("kill $(cat /tmp/hand.pid)")


def test_only_root_can_audit(clean: World) -> None:
    done = clean.host.run(
        "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "uncloud-host", "audit", check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected root" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_timer_comes_with_the_package(clean: World) -> None:
    world = clean
    world.host.run("systemctl", "enable", "--now", "uncloud-host-audit.timer")
    timers = world.shell("systemctl list-timers --no-legend uncloud-host-audit.timer")
    assert "uncloud-host-audit.service" in timers
    world.host.run("systemctl", "disable", "--now", "uncloud-host-audit.timer")
    assert world.exposure("uncloud-host-audit.service") <= 2.5


def test_the_agent_was_well(clean: World) -> None:
    assert not any("Traceback" in line for line in clean.agent_lines())
