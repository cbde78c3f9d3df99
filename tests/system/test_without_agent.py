"""That systemd gave up a VM is mailed by its host alone, without agent and etcd, and told once."""

from collections.abc import Callable

from system.world import World
from waiting import eventually


def until_given_up(world: World, uuid: str) -> None:
    """Kill it as often as systemd starts it: three times."""
    for boots in (2, 3):
        world.host.run("kill", "-SEGV", str(world.pid(uuid)))
        world.wait_boots(uuid, boots)
    world.host.run("kill", "-SEGV", str(world.pid(uuid)))
    eventually(lambda: world.state(uuid) == "failed/failed", what="systemd has given up")


def is_told_once(world: World, uuid: str) -> None:
    """With agent and etcd back all is known, and nobody is told again."""
    world.shell("systemctl start etcd && systemctl start --no-block uncloud-host")
    world.wait_status(uuid, "FAILED", within=60)
    ends = ["crashed", "gave-up", "restarted", "crashed", "restarted", "crashed", "started"]
    eventually(lambda: sorted(world.events(uuid)) == sorted(ends), what=lambda: str(world.events(uuid)))
    # The rest of it may be held back for ten minutes: this VM has had four mails by then.
    first = world.records(uuid, "crashed")[0]
    eventually(lambda: first["id"] in world.mailed(), what="the mail about its first end")
    given_up = world.records(uuid, "gave-up")[0]
    assert len(world.mailed()[given_up["id"]]) == 1
    assert world.agent_is_well()


def test_the_mail_comes_from_the_host_alone(new_world: Callable[..., World]) -> None:
    world = new_world(UNCLOUD_RESTART_LIMIT="3")
    uuid = world.vm(name="web-1")
    world.wait_mail(uuid, "web-1 started")
    world.shell("systemctl stop uncloud-host etcd")
    until_given_up(world, uuid)
    mail = world.wait_mail(
        uuid,
        "[host1] web-1 is not restarted any more: 3 starts in an hour, at last QEMU died of signal SEGV",
    )
    text = mail.get_content()
    print(mail.as_string())
    assert "Now:       down; systemd has given up, after 3 starts in an hour" in text
    assert f"uncloud-host start {uuid}" in text
    assert "| TINY-GUEST boot 3w" in text
    assert "is not restarted any more" in world.journal(uuid)
    is_told_once(world, uuid)


def test_it_comes_later_if_the_mail_server_is_down_too(new_world: Callable[..., World]) -> None:
    world = new_world(UNCLOUD_RESTART_LIMIT="3")
    uuid = world.vm(name="web-1")
    world.wait_mail(uuid, "web-1 started")
    world.shell("systemctl stop uncloud-host etcd lab-smtp")
    until_given_up(world, uuid)
    journal = f"journalctl --no-pager -o cat -u uncloud-host-notify@vm-{uuid}"
    eventually(lambda: "what is to be told waits" in world.shell(journal), what=lambda: world.shell(journal))
    world.shell("systemctl reset-failed lab-smtp", check=False)
    words = "-n -u -l 127.0.0.1:25 -c aiosmtpd.handlers.Mailbox /var/mail/sre"
    world.shell(f"systemd-run --quiet --unit=lab-smtp python3 -m aiosmtpd {words}")
    eventually(lambda: "is not restarted any more" in str([m["Subject"] for m in world.mails()]), within=120)
    assert "Traceback" not in world.shell(journal)
    is_told_once(world, uuid)


def test_a_stop_that_took_too_long_is_no_giving_up(new_world: Callable[..., World]) -> None:
    world = new_world()
    uuid = world.vm(stop_timeout=5)
    world.wait_told(uuid)
    world.type(uuid, "h")  # deaf to its power button; and what presses it hangs, longer than systemd waits
    world.shell("systemctl stop uncloud-host")
    hang = "while ! pkill -STOP -f '[u]ncloud-host/powerdown'; do :; done"
    world.shell(f"systemctl stop --no-block vm-{uuid}; {hang}")
    eventually(lambda: world.show(uuid, "ActiveState")["ActiveState"] == "failed", within=60)
    assert world.show(uuid, "Result")["Result"] == "timeout"
    journal = f"journalctl --no-pager -o cat -u uncloud-host-notify@vm-{uuid}"
    eventually(lambda: "Finished" in world.shell(journal), what=lambda: world.shell(journal))
    world.shell("systemctl start uncloud-host")
    world.wait_status(uuid, "STOP")
    world.wait_events(uuid, "started", "stopped-by-hand")
    world.wait_told(uuid)
