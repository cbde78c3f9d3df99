"""Mail arrives, by SMTP or by the local sendmail, also when they were away."""


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
