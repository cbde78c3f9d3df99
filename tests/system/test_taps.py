"""Taps come and go with their VM, and none is left over after anything."""

import re
from collections.abc import Callable, Iterator

import pytest

from lab.host import CommandFailed
from system.world import World
from uncloud_host import names
from waiting import eventually

PREPARE = "/usr/libexec/uncloud-host/prepare"
NIC = {"nics": [{"bridge": "br0"}]}


@pytest.fixture(scope="module")
def host(world: World) -> World:
    """The agent looks at everything each second, not each half minute."""
    world.hurry("agent.FULL_PASS = 1.0")
    return world


@pytest.fixture(autouse=True)
def bridge(host: World) -> Iterator[None]:
    host.shell("ip link add br0 type bridge && ip link set br0 up")
    yield
    host.shell("ip link del br0 || true")


def taps(world: World, *uuids: str) -> list[str]:
    """All that are named as ours, or those of some VMs."""
    found = world.shell("ls /sys/class/net").split()
    wanted = "|".join(map(names.short, uuids)) or "[0-9a-f]{12}"
    return [name for name in found if re.fullmatch(f"t({wanted})[0-9]+", name)]


def wait_none(world: World, *uuids: str) -> None:
    eventually(lambda: taps(world, *uuids) == [], what=lambda: f"no tap is left of {taps(world)}")


def kill(world: World, uuid: str) -> None:
    world.host.run("kill", "-9", str(world.pid(uuid)))


def kill_with_recorder(world: World, uuid: str) -> None:
    world.host.run("systemctl", "kill", "--signal=KILL", f"vm-{uuid}")


def ask_stop(world: World, uuid: str) -> None:
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")


def stop(world: World, uuid: str) -> None:
    world.host.run("systemctl", "stop", f"vm-{uuid}")


def is_in_order(world: World, uuid: str) -> None:
    """One tap, in its bridge, up, and the VM's own."""
    (tap,) = taps(world, uuid)
    files = [f"/sys/class/net/{tap}/{name}" for name in ("owner", "mtu", "flags", "carrier")]
    owner, mtu, flags, carrier = world.shell(f"cat {' '.join(files)}").split()
    assert owner == world.shell(f"stat -c %u /proc/{world.pid(uuid)}").strip()
    assert (mtu, int(flags, 16) & 1, carrier) == ("1500", 1, "1")
    assert tap in world.shell("ls /sys/class/net/br0/brif").split()


def test_while_the_vm_runs_its_tap_is_its_own_and_in_the_bridge(host: World) -> None:
    uuid = host.vm(**NIC)
    is_in_order(host, uuid)
    ask_stop(host, uuid)
    wait_none(host)


@pytest.mark.parametrize("restart", ["no", "on-failure", "always"])
@pytest.mark.parametrize("end", [ask_stop, stop, World.delete], ids=lambda end: end.__name__)
def test_no_tap_is_left_when_it_is_stopped(host: World, end: Callable[[World, str], None], restart: str) -> None:
    uuid = host.vm(restart=restart, **NIC)
    end(host, uuid)
    host.wait_gone(uuid)
    wait_none(host)


@pytest.mark.parametrize(
    ("how", "status"),
    [(lambda w, u: w.type(u, "p"), "STOP"), (lambda w, u: w.type(u, "x"), "FAILED"), (kill, "FAILED")],
    ids=["poweroff", "panic", "kill"],
)
def test_no_tap_is_left_when_it_ends(host: World, how: Callable[[World, str], None], status: str) -> None:
    uuid = host.vm(restart="no", **NIC)
    how(host, uuid)
    host.wait_status(uuid, status)
    wait_none(host)
    ask_stop(host, uuid)


@pytest.mark.parametrize("how", [lambda w, u: w.type(u, "p"), lambda w, u: w.type(u, "x"), kill, kill_with_recorder],
                         ids=["poweroff", "panic", "kill", "kill with recorder"])  # fmt: skip
def test_after_an_automatic_restart_it_is_there_again(host: World, how: Callable[[World, str], None]) -> None:
    uuid = host.vm(**NIC)
    for boots in (2, 3):
        how(host, uuid)
        host.wait_boots(uuid, boots)
        is_in_order(host, uuid)
    ask_stop(host, uuid)
    wait_none(host)


def test_the_tap_of_a_unit_that_failed_stays_until_the_unit_is_gone(host: World) -> None:
    uuid = host.vm(restart="no", **NIC)
    kill_with_recorder(host, uuid)
    host.wait_status(uuid, "FAILED")
    other = made(host)
    wait_none(host, other)  # so it has looked
    assert len(taps(host, uuid)) == 1
    ask_stop(host, uuid)
    wait_none(host)
    said = f"removed tap {names.tap(uuid, 0)}, which no VM has any more"
    eventually(lambda: any(said in line for line in host.agent_lines()), what=said)


@pytest.mark.parametrize("away", [["stop"], ["kill", "--signal=KILL"]], ids=" ".join)
def test_what_is_left_while_the_agent_is_away_is_removed_when_it_is_back(host: World, away: list[str]) -> None:
    uuid = host.vm(**NIC)
    host.host.run("systemctl", *away, "uncloud-host")
    kill_with_recorder(host, uuid)
    eventually(lambda: host.state(uuid) == "activating/auto-restart", what="systemd waits")
    host.ask(uuid, status="TO_STOP")
    stop(host, uuid)  # nothing is run for it then
    host.wait_gone(uuid)
    if away == ["stop"]:  # else systemd has brought it back
        assert len(taps(host, uuid)) == 1
    host.host.run("systemctl", "start", "uncloud-host")
    host.wait_status(uuid, "STOP")
    wait_none(host)


def test_no_tap_is_left_when_the_bridge_is_gone(host: World) -> None:
    uuid = host.vm(**NIC)
    host.shell("ip link del br0")
    kill(host, uuid)
    host.wait_journal(uuid, "cannot put t[0-9a-f]{12}0 into bridge br0: No such device")
    eventually(lambda: host.state(uuid) == "activating/auto-restart", what="systemd waits")
    wait_none(host)
    host.shell("ip link add br0 type bridge && ip link set br0 up")
    host.wait_boots(uuid, 2)
    is_in_order(host, uuid)
    ask_stop(host, uuid)
    wait_none(host)


def made(world: World) -> str:
    """Leave a tap of a VM that is not here; give the VM."""
    uuid = "00000000-0000-4000-8000-00000000000f"
    world.shell(f"ip tuntap add {names.tap(uuid, 0)} mode tap")
    return uuid


def test_what_a_stranger_made_stays(host: World) -> None:
    named_alike = "t0123456789ab0"
    mine, *strangers = made(host), "tap0", "vnet0", named_alike
    host.shell("ip tuntap add tap0 mode tap; ip tuntap add vnet0 mode tap; ip link add t0123456789ab0 type bridge")
    wait_none(host, mine)
    assert set(strangers) <= set(host.shell("ls /sys/class/net").split())
    host.shell("for name in tap0 vnet0 t0123456789ab0; do ip link del $name; done")


def test_a_tap_that_somebody_uses_stays_and_is_told_of_once(host: World) -> None:
    uuid = made(host)
    tap = names.tap(uuid, 0)
    host.host.push(HOLD, "/root/hold.py")
    holder = ["systemd-run", "--quiet", "--unit=lab-holder", "python3", "/root/hold.py", tap]
    host.shell(f"ip link del {tap}", check=False)  # the agent may have been faster
    host.host.run(*holder)
    eventually(lambda: taps(host, uuid), what="it is made")
    lines = eventually(lambda: [line for line in host.agent_lines() if f"left tap {tap}" in line], what="it is told")
    other = host.vm(**NIC)  # takes longer than a look
    ask_stop(host, other)
    assert taps(host, uuid) == [tap]
    assert len([line for line in host.agent_lines() if f"left tap {tap}" in line]) == len(lines) == 1
    host.host.run("systemctl", "stop", "lab-holder")
    wait_none(host)


def test_no_tap_is_left_when_the_slice_is_stopped(host: World) -> None:
    vms = [host.vm(**NIC) for _ in range(4)]
    assert len(taps(host)) == len(vms)
    host.host.run("systemctl", "stop", "uncloud-vm.slice")
    for uuid in vms:
        host.wait_gone(uuid)
    wait_none(host)
    host.host.run("uncloud-host", "confirm", "--all")


def test_the_agent_was_well(host: World) -> None:
    assert not any("Traceback" in line for line in host.agent_lines())


# What prepare makes of its words, new and old


def prepare(world: World, tap: str, words: str) -> None:
    world.shell("mkdir -p /run/lab-vm && chown 61184 /run/lab-vm")
    world.host.run(PREPARE, "/run/lab-vm", f"{tap}={words}")


def shown(world: World, tap: str) -> tuple[str, str]:
    """Its mtu and its bridge."""
    mtu, master = world.shell(f"cat /sys/class/net/{tap}/mtu; readlink /sys/class/net/{tap}/master").split()
    return mtu, master.rpartition("/")[2]


def test_a_tap_that_is_used_again_is_as_the_entry_says_now(host: World) -> None:
    host.shell("ip link add br1 mtu 9000 type bridge")
    for bridge, mtu in (("br0", "1500"), ("br1", "9000"), ("br0", "1500")):
        prepare(host, "lab0", bridge)
        assert shown(host, "lab0") == (mtu, bridge)
    host.shell("ip link del lab0; ip link del br1")


def test_no_nic_changes_the_mtu_or_the_addresses_of_the_bridge(host: World) -> None:
    """A bridge whose mtu nobody has set takes the smallest of its ports, and loses its IPv6 addresses below 1280."""
    host.shell(
        "ip link add veth0 mtu 9000 type veth peer name veth1; ip link add br1 type bridge;"
        " ip link set veth0 master br1;"
        " for name in veth0 veth1 br1; do ip link set $name up; done; ip address add fd00:1::1/64 dev br1 nodad"
    )
    about = "cat /sys/class/net/br1/mtu; ip -6 -o address show dev br1 scope global; ip -6 route show root fd00::/16"
    before = host.shell(about)
    assert before.startswith("9000\n")
    assert "fd00:1::1" in before
    vms = [host.vm(nics=[{"bridge": "br1"} | mtu]) for mtu in ({}, {"mtu": 1200}, {"mtu": 9000})]
    assert host.shell(about) == before
    for uuid in vms:
        ask_stop(host, uuid)
    assert host.shell(about) == before
    too_much = host.new(nics=[{"bridge": "br1", "mtu": 9001}])
    assert host.wait_status(too_much, "FAILED")["status_reason"] == "nics[0].mtu: bridge br1 has an mtu of 9000"
    host.shell("ip link del br1; ip link del veth0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("br0,vlan=5", "cannot put lab1 into vlan 5: bridge br0 does not have vlan_filtering on"),
        ("br0,vlan=", "tap lab1: expected vlan=NUMBER, got 'vlan'"),
        ("br0,queues=4", "tap lab1: expected vlan=NUMBER, got 'queues'"),
        ("br9", "cannot put lab1 into bridge br9: No such device"),
    ],
)
def test_what_prepare_cannot_do_is_one_line(host: World, words: str, said: str) -> None:
    with pytest.raises(CommandFailed) as error:
        prepare(host, "lab1", words)
    assert error.value.stderr == f"{said}\n"
    host.shell("ip link del lab1 2>/dev/null || true")


HOLD = """
import fcntl, signal, struct, sys
tun = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", sys.argv[1].encode(), 0x5002).ljust(40, bytes(1)))
fcntl.ioctl(tun, 0x400454CB, 1)
signal.pause()
"""
