"""Mail arrives, by SMTP or by the local sendmail, also when they were away."""

import re

from waiting import eventually


def test_mail_goes_out_by_sendmail(new_world) -> None:
    """dma, a real MTA with a spool and a setgid program, hands on to the SMTP server."""
    world = new_world(UNCLOUD_SMTP="")
    world.host.push(b"SMARTHOST 127.0.0.1\nPORT 25\n", "/etc/dma/dma.conf", mode=0o644)
    uuid = world.vm(name="web-1")
    mail = world.wait_mail(uuid, "[host1] web-1 started")
    assert mail["To"] == "sre@example.org"
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_events(uuid, "started", "killed", "restarted")
    world.wait_told(uuid)
    assert world.agent_is_well()


def test_a_sendmail_that_fails_is_said_once_and_nothing_is_lost(new_world) -> None:
    world = new_world(UNCLOUD_SMTP="")
    world.host.run("chmod", "a-x", "/usr/sbin/sendmail")
    uuid = world.vm()
    world.wait_events(uuid, "started")
    waits = [line for line in world.agent_lines() if "/usr/sbin/sendmail" in line and "is not lost" in line]
    assert len(waits) == 1
    world.configure()  # SMTP
    world.host.run("systemctl", "restart", "uncloud-host")
    world.wait_mail(uuid, "started")


def test_a_sendmail_that_hangs_is_ended_and_the_mail_comes_later(new_world) -> None:
    """Each try left one more that hung, and all of them delivered in the end."""
    world = new_world(UNCLOUD_SMTP="")
    world.host.push(b"SMARTHOST 127.0.0.1\nPORT 25\n", "/etc/dma/dma.conf", mode=0o644)
    world.shell("mv /usr/sbin/sendmail /usr/sbin/sendmail.away")
    world.host.push(b"#!/bin/sh\nexec tail -f /dev/null\n", "/usr/sbin/sendmail", mode=0o755)
    world.hurry("mail.HANGS = 2")
    uuid = world.vm()
    eventually(lambda: "is not lost" in str(world.agent_lines()), what=lambda: str(world.agent_lines()))
    world.shell("mv /usr/sbin/sendmail.away /usr/sbin/sendmail")
    world.wait_mail(uuid, "started")
    assert world.shell("pgrep -f '[t]ail -f /dev/null'", check=False) == ""


def test_nobody_to_mail(new_world) -> None:
    world = new_world(UNCLOUD_MAIL_TO="")
    uuid = world.vm()
    world.wait_events(uuid, "started")
    assert "UNCLOUD_MAIL_TO is not set: nobody is mailed" in world.agent_lines()
    assert world.mails() == []


def test_only_failures(new_world) -> None:
    world = new_world(UNCLOUD_MAIL_ON="failures")
    uuid = world.vm()
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_events(uuid, "started", "killed", "restarted")
    world.wait_mail(uuid, "was killed")
    assert len(world.mails(uuid)) == 1


def test_many_ends_at_once_are_one_mail(new_world) -> None:
    world = new_world()
    uuids = [world.put(f"00000000-0000-4000-8000-{number:012d}", name=f"web-{number}") for number in range(9)]
    for uuid in uuids:
        world.wait_status(uuid, "RUNNING")
        world.wait_told(uuid)
    world.shell(f"kill -9 {' '.join(str(world.pid(uuid)) for uuid in uuids)}")
    for uuid in uuids:
        world.wait_events(uuid, "started", "killed", "restarted")
        world.wait_told(uuid)
    # One, unless the machine is so busy that the first ends are told before the last ones are there.
    mails = [mail for mail in world.mails() if "killed" in mail["Subject"]]
    assert len(mails) <= 3
    digest = next(mail for mail in mails if re.search("[0-9] VMs", mail["Subject"]))
    told = [number for number, uuid in enumerate(uuids) if f"web-{number} ({uuid})" in digest.get_content()]
    assert len(told) > len(uuids) / 2


def test_a_vm_that_ends_again_and_again_is_few_mails_and_hides_no_other(new_world) -> None:
    world = new_world(UNCLOUD_RESTART_LIMIT="5")
    uuid = world.vm(name="web-1")
    for boots in (2, 3, 4, 5):
        world.host.run("kill", "-9", str(world.pid(uuid)))
        world.wait_boots(uuid, boots)
    world.wait_mail(world.vm(name="web-2"), "web-2 started")
    assert len(world.records(uuid)) == 9
    assert len(world.mails(uuid)) == 4
    world.host.run("kill", "-9", str(world.pid(uuid)))
    world.wait_mail(uuid, "web-1 is not restarted any more")
    world.wait_told(uuid)
    assert len(world.mails(uuid)) == 5
    assert [mails for mails in world.mailed().values() if len(mails) > 1] == []
