"""What happened, as people read it: uncloud-host log."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from system.test_commands import command, good, refused
from system.world import World
from waiting import eventually

OTHER = "00000000-0000-4000-8000-0000000000ff"


@pytest.fixture(scope="module")
def vm(world: World) -> str:
    """One that was killed."""
    uuid = world.vm(name="web-1")
    world.shell(f"kill -9 {world.pid(uuid)}")
    world.wait_events(uuid, "started", "killed", "restarted")
    return uuid


def write(world: World, ns: int, host: str, **fields: Any) -> None:
    """A record as any host may write it, or somebody who means no good."""
    told = {"id": f"{ns:x}", "time": "2026-11-25T16:00:00.000Z", "host": host, "vm": OTHER, "name": "other"} | fields
    world.host.run("etcdctl", "put", f"/v1/log/{host}/{ns:020d}-{told['id']}", input=json.dumps(told))


INTERRUPT = """
import signal, subprocess
words = ["uncloud-host", "log", "-f", "-n", "0"]
log = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
log.stdout.readline()  # the head
log.send_signal(signal.SIGINT)
out, err = log.communicate(timeout=30)
print(log.returncode, repr(out), repr(err))
"""


class Following:
    """A `log -f` and what it has said so far."""

    def __init__(self, world: World, *words: str) -> None:
        self.world = world
        world.shell(": >/root/followed; : >/root/complained")  # of the one before
        script = f"echo $$ >/root/following; exec uncloud-host log {' '.join(words)} >/root/followed 2>/root/complained"
        self.process = world.host.popen("sh", "-c", script, stdin=subprocess.DEVNULL)

    def lines(self) -> list[str]:
        return self.world.shell("cat /root/followed").splitlines()

    def complaints(self) -> list[str]:
        return self.world.shell("cat /root/complained").splitlines()

    def wait(self, count: int) -> list[str]:
        eventually(lambda: len(self.lines()) >= count, what=lambda: f"{self.lines()} {self.complaints()}")
        return self.lines()


@contextmanager
def following(world: World, *words: str) -> Iterator[Following]:
    made = Following(world, *words)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(30)


@pytest.mark.usefixtures("vm")
def test_it_shows_what_happened(world: World) -> None:
    head, *lines = good(world, "log").splitlines()
    assert head.split() == ["TIME", "VM", "EVENT", "REASON"]
    ours = [line.split(maxsplit=4) for line in lines if line.split()[2] == "web-1"]
    assert [line[3] for line in ours] == ["started", "killed", "restarted"]
    assert ours[1][4] == "QEMU was killed by signal KILL from outside"


def test_one_vm_by_name_or_uuid_also_when_it_is_gone(world: World, vm: str) -> None:
    write(world, 1, "vmhost1", event="stopped", name="gone", reason="long ago")
    for word in ("web-1", vm, vm[:13]):
        assert [json.loads(line)["event"] for line in good(world, "log", word, "--json").splitlines()] == [
            "started", "killed", "restarted",
        ]  # fmt: skip
    assert [json.loads(line)["reason"] for line in good(world, "log", "gone", "--json").splitlines()] == ["long ago"]
    refused(world, 1, "there is no such VM", "log", "nobody")
    world.host.run("etcdctl", "del", "--prefix", "/v1/log/vmhost1/0000000000")


@pytest.mark.usefixtures("vm")
def test_the_last_ones_and_those_since(world: World) -> None:
    assert len(good(world, "log", "-n", "1").splitlines()) == 2
    assert len(good(world, "log", "--json", "--lines", "2").splitlines()) == 2
    assert good(world, "log", "--since", "2h", "--json") == good(world, "log", "--json")
    assert good(world, "log", "--since", "2099-01-01", "--json") == ""
    refused(world, 2, "--since: expected a duration like 2h", "log", "--since", "soon")


@pytest.mark.usefixtures("vm")
def test_all_hosts_in_one_order(world: World) -> None:
    for ns, host in ((30, "vmhost9"), (10, "vmhost9"), (20, "vmhost8")):
        write(world, ns, host, event="started", reason=str(ns))
    lines = good(world, "log", "--all").splitlines()
    assert lines[0].split() == ["TIME", "HOST", "VM", "EVENT", "REASON"]
    assert [(line.split()[2], line.split()[-1]) for line in lines[1:4]] == [
        ("vmhost9", "10"), ("vmhost8", "20"), ("vmhost9", "30"),
    ]  # fmt: skip
    assert "vmhost9" not in good(world, "log")
    for host in ("vmhost8", "vmhost9"):
        world.host.run("etcdctl", "del", "--prefix", f"/v1/log/{host}/")


@pytest.mark.usefixtures("vm")
def test_hostile_records_harm_no_terminal_and_hide_no_others(world: World) -> None:
    write(world, 5, "vmhost7", event="\x1b]0;x\x07", name="\x1b[2J", reason="a\nVM web-1 was killed\r\x9b1m")
    world.host.run("etcdctl", "put", "/v1/log/vmhost7/nonsense", input="{")
    said = good(world, "log", "--all")
    assert all(line.isprintable() for line in said.splitlines())
    assert "this record cannot be read" in said
    assert "web-1" in said
    assert [json.loads(line)["host"] for line in good(world, "log", "--all", "--json").splitlines()].count(
        "vmhost7"
    ) == 2
    world.host.run("etcdctl", "del", "--prefix", "/v1/log/vmhost7/")


def test_it_follows(world: World, vm: str) -> None:
    with following(world, "-f", "-n", "1", "web-1", "--json") as log:
        log.wait(1)
        log_of_others = world.vm(name="db-1")
        eventually(lambda: "started" in world.events(log_of_others))
        world.shell(f"kill -9 {world.pid(vm)}")
        assert [json.loads(line)["event"] for line in log.wait(3)[1:]] == ["killed", "restarted"]
        assert log.complaints() == []


def test_it_follows_over_an_outage_without_loss_and_nothing_is_shown_twice(world: World) -> None:
    uuid = world.vm(name="followed")
    with following(world, "-f", "-n", "1", "--all", "--json", "followed") as log:
        log.wait(1)
        for boots in (2, 3):
            world.host.run("systemctl", "stop", "etcd")
            world.shell(f"kill -9 {world.pid(uuid)}")
            world.wait_boots(uuid, boots)
            eventually(lambda count=boots - 1: len(log.complaints()) == count, what=lambda: str(log.complaints()))
            world.host.run("systemctl", "start", "etcd")
            log.wait(2 * boots - 1)
        eventually(lambda: len(world.events(uuid)) == 5, what=lambda: str(world.events(uuid)))
        found = [json.loads(line) for line in log.lines()]
        assert [one["event"] for one in found] == ["started", "killed", "restarted", "killed", "restarted"]
        assert len({one["id"] for one in found}) == 5
        assert all("it goes on when etcd is back" in line for line in log.complaints())


def test_it_goes_on_after_history_was_compacted_away(world: World) -> None:
    write(world, 40, "vmhost6", event="started", reason="first")
    with following(world, "-f", "--all", "--json", OTHER) as log:
        log.wait(1)
        pid = world.shell("cat /root/following").strip()
        world.shell("systemctl stop etcd")
        eventually(log.complaints, what="it says that etcd is away")
        world.shell(f"kill -STOP {pid}; systemctl start etcd")
        write(world, 41, "vmhost6", event="stopped", reason="second")
        revision = json.loads(world.host.run("etcdctl", "get", "x", "-w", "json").stdout)["header"]["revision"]
        world.host.run("etcdctl", "compact", str(revision))
        world.shell(f"kill -CONT {pid}")
        assert [json.loads(line)["reason"] for line in log.wait(2)] == ["first", "second"]
    world.host.run("etcdctl", "del", "--prefix", "/v1/log/vmhost6/")


def test_ctrl_c_ends_it_silently(world: World) -> None:
    """Ended by the signal itself, which a shell shows as 130."""
    assert world.host.run("python3", "-c", INTERRUPT).stdout == "-2 '' ''\n"


def test_without_etcd_it_is_one_line(world: World) -> None:
    done = command(world, "log", UNCLOUD_ETCD="http://127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
