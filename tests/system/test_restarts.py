"""Every end of a VM is noticed, told and, by systemd, made good."""

import pytest

from system.world import World
from waiting import eventually


def test_a_killed_vm_comes_back_and_people_are_told(world: World) -> None:
    uuid = world.vm(name="web-1")
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_boots(uuid, 2)
    _, killed, restarted = world.wait_events(uuid, "started", "killed", "restarted")
    assert killed["reason"] == "QEMU was killed by signal KILL from outside"
    assert killed["invocation"] != restarted["invocation"]
    assert restarted["reason"] == "by systemd, restart 1"
    assert world.entry(uuid)["status"] == "RUNNING"
    mail = world.wait_mail(uuid, "[vmhost1] web-1 was killed, runs again: QEMU was killed by signal KILL from outside")
    assert mail["X-Uncloud-Events"].split() == [killed["id"], restarted["id"]]
    assert "restart 1 of 15" in mail.get_content()
    assert "| TINY-GUEST boot 1w" in mail.get_content()


@pytest.mark.parametrize(
    ("signal", "event", "reason"),
    [
        ("SEGV", "crashed", "QEMU died of signal SEGV"),
        ("ABRT", "crashed", "QEMU died of signal ABRT"),
        ("TERM", "killed", "somebody sent QEMU a signal"),
    ],
)
def test_how_qemu_died_is_told(world: World, signal: str, event: str, reason: str) -> None:
    uuid = world.vm()
    world.host.run("kill", f"-{signal}", str(world.pid(uuid)))
    assert world.wait_events(uuid, "started", event, "restarted")[1]["reason"].startswith(reason)


def test_an_end_whose_recorder_was_killed_too_is_told(world: World) -> None:
    """systemctl kill: the kernel kills whatever is started in a cgroup that was killed as a whole."""
    uuid = world.vm()
    world.host.run("systemctl", "kill", "--signal=KILL", f"vm-{uuid}")
    world.wait_events(uuid, "started", "killed", "restarted")


def test_a_panic_of_the_guest_is_a_failure(world: World) -> None:
    uuid = world.vm()
    world.type(uuid, "x")
    world.wait_boots(uuid, 2)
    assert world.wait_events(uuid, "started", "panicked", "restarted")[1]["reason"] == "the guest's kernel panicked"


def test_a_reboot_of_the_guest_is_no_end(world: World) -> None:
    uuid = world.vm()
    pid = world.pid(uuid)
    world.type(uuid, "r")
    world.wait_boots(uuid, 2)
    assert world.pid(uuid) == pid
    assert world.events(uuid) == ["started"]


def test_a_guest_that_powers_itself_off_is_started_again_by_default(world: World) -> None:
    uuid = world.vm()
    world.type(uuid, "p")
    world.wait_boots(uuid, 2)
    world.wait_events(uuid, "started", "powered-off", "restarted")


@pytest.mark.parametrize("restart", ["on-failure", "no"])
def test_it_stays_off_if_the_entry_says_so(world: World, restart: str) -> None:
    uuid = world.vm(restart=restart)
    world.type(uuid, "p")
    assert world.wait_status(uuid, "STOP")["status_reason"] == "guest powered off"
    world.wait_events(uuid, "started", "powered-off")
    world.wait_gone(uuid)
    eventually(lambda: world.claim(uuid) == {}, what="the claim is released")
    world.ask(uuid, status="TO_START")
    world.wait_boots(uuid, 2)


def test_restart_no_and_a_crash_is_failed(world: World) -> None:
    uuid = world.vm(restart="no")
    world.host.run("kill", "-9", str(world.pid(uuid)))
    assert "its restart is no" in world.wait_status(uuid, "FAILED")["status_reason"]
    world.wait_events(uuid, "started", "killed", "gave-up")
    world.ask(uuid, status="TO_START")
    # Soon, and not at the next full pass: systemd keeps a unit that failed until its mail has been sent.
    assert "status_reason" not in world.wait_status(uuid, "RUNNING", within=10)
    world.wait_boots(uuid, 2)


def test_a_vm_that_always_ends_is_given_up(new_world) -> None:
    world = new_world(UNCLOUD_RESTART_LIMIT="3")
    uuid = world.vm()
    for boots in (2, 3):
        world.type(uuid, "x")
        world.wait_boots(uuid, boots)
    world.type(uuid, "x")
    assert world.wait_status(uuid, "FAILED")["status_reason"].startswith("systemd gave up restarting it")
    ends = ["panicked", "restarted", "panicked", "restarted", "panicked", "gave-up"]
    world.wait_events(uuid, "started", *ends)
    assert "at last the guest's kernel panicked" in str(world.wait_mail(uuid, "is not restarted any more")["Subject"])
    assert world.state(uuid) == "failed/failed"
    assert world.claim(uuid)["host"] == world.name  # kept: nobody else may start it
    world.ask(uuid, status="TO_START")
    world.wait_boots(uuid, 4)
    world.wait_status(uuid, "RUNNING")
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")


def test_failed_then_to_stop_is_stop(world: World) -> None:
    uuid = world.vm(restart="no")
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_status(uuid, "FAILED")
    world.ask(uuid, status="TO_STOP")
    assert "status_reason" not in world.wait_status(uuid, "STOP")
    world.wait_gone(uuid)
    assert world.claim(uuid) == {}


def test_a_stop_by_hand_is_honoured(world: World) -> None:
    uuid = world.vm()
    world.host.run("systemctl", "stop", f"vm-{uuid}")
    assert world.wait_status(uuid, "STOP")["status_reason"] == "stopped by hand: systemctl stop on this host"
    world.wait_events(uuid, "started", "stopped-by-hand")
    eventually(lambda: world.claim(uuid) == {}, what="the claim is released")
    world.ask(uuid, status="TO_START")
    world.wait_boots(uuid, 2)


def test_to_stop_while_systemd_waits_to_restart(world: World) -> None:
    uuid = world.vm()
    for boots in (2, 3):  # so that it waits for 4 s
        world.host.run("kill", "-9", str(world.pid(uuid)))
        world.wait_boots(uuid, boots)
    world.host.run("kill", "-9", str(world.pid(uuid)))
    eventually(lambda: world.state(uuid).startswith("activating/auto-restart"), what="it waits")
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    world.wait_gone(uuid)
    assert world.events(uuid)[-2:] == ["killed", "stopped"]


def test_a_stop_by_hand_while_systemd_waits_to_restart_is_honoured(world: World) -> None:
    uuid = world.vm()
    for boots in (2, 3, 4):  # the fourth restart waits 8 s
        world.host.run("kill", "-SEGV", str(world.pid(uuid)))
        world.wait_boots(uuid, boots)
    world.host.run("kill", "-SEGV", str(world.pid(uuid)))
    eventually(lambda: world.state(uuid) == "activating/auto-restart", what="systemd waits")
    world.host.run("systemctl", "stop", f"vm-{uuid}")
    assert world.wait_status(uuid, "STOP")["status_reason"].startswith("stopped by hand")
    assert world.events(uuid)[-2:] == ["crashed", "stopped-by-hand"]
    assert world.qemus(uuid) == []


def test_mail_waits_for_the_smtp_server(new_world) -> None:
    world = new_world()
    world.host.run("systemctl", "stop", "lab-smtp")
    uuid = world.vm()
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_events(uuid, "started", "killed", "restarted")
    assert [line for line in world.agent_lines() if "Connection refused" in line and "is not lost" in line]
    world.serve()
    world.wait_told(uuid)
    assert len(world.mails(uuid)) == 2  # the one that was on its way, and all that has come since
    assert len(world.mailed()) == len(set(world.mailed())) == 3


def test_the_log_waits_for_etcd_and_the_vm_does_not(new_world) -> None:
    world = new_world()
    uuid = world.vm()
    world.host.run("systemctl", "stop", "etcd")
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_boots(uuid, 2)
    world.wait_mail(uuid, "was killed")
    world.host.run("systemctl", "start", "etcd")
    world.wait_events(uuid, "started", "killed", "restarted")
    lines = [line for line in world.agent_lines() if "starts and stops wait until it is back" in line]
    assert len(lines) == 1, lines
    assert world.agent_is_well()


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()
