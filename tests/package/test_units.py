"""The units, as systemd sees them: nothing of a VM is lost at a daemon-reload, and little is open to attack."""

import re

import pytest

from system.world import World
from waiting import eventually

# These have no order: systemd lists them as they come out of a hash table, or the other way round after a reload.
WORDS = {
    "After",
    "Before",
    "Requires",
    "Wants",
    "WantedBy",
    "RequiresMountsFor",
    "WantsMountsFor",
    "Names",
    "TriggeredBy",
    "IPAddressAllow",
    "IPAddressDeny",
}
LINES = {"DeviceAllow"}
# What goes on while one looks.
COUNTERS = re.compile(
    r"CPUUsageNSec|(Effective)?Memory(Current|Peak|Available|Max|High|SwapCurrent|SwapPeak|ZSwapCurrent)"
    r"|Tasks(Current)|EffectiveTasksMax|IO(Read|Write)(Bytes|Operations)|IP(Ingress|Egress)(Bytes|Packets)|.*Timestamp(Monotonic)?"
)
# How a program of the unit last went: a reload forgets it.
LAST_RUN = re.compile(r" ; start_time=.*? ; status=\S+ }")
NAMES = {
    "spaces": "two  words,  three",
    "quotes": """it's "so" `said`""",
    "percent": "100% %n %i %h %%",
    "semicolons": "a ; b;c #d",
    "backslashes": r"back\slash \x20 \n \\ end",
    "commas": "a,b,,c=d,guest=other",
    "beyond ASCII": "Büro 東京 🐧",
    "like an option": "-name --help @file !x +y :z",
    "brackets": "{x} [y] (z) <&|> *?~ ^",
}


def properties(world: World, uuid: str) -> dict[str, str]:
    """All that systemd knows about a unit and that should stay."""
    shown = world.host.run("systemctl", "show", "--all", f"vm-{uuid}.service").stdout
    kept: dict[str, list[str]] = {}
    for line in shown.splitlines():  # some have a line for each of their values
        key, _, value = line.partition("=")
        if not COUNTERS.fullmatch(key):
            kept.setdefault(key, []).extend(value.split() if key in WORDS else [LAST_RUN.sub(" }", value)])
    return {key: "\n".join(sorted(values) if key in WORDS | LINES else values) for key, values in kept.items()}


def changes(before: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {key: (before.get(key, ""), now.get(key, "")) for key in before | now if before.get(key) != now.get(key)}


def argv(world: World, uuid: str) -> list[str]:
    return world.host.pull(f"/proc/{world.pid(uuid)}/cmdline").decode().split("\0")


def survives(world: World, uuid: str) -> None:
    """Reload systemd, kill the VM, and find it as it was."""
    before, words, pid = properties(world, uuid), argv(world, uuid), world.pid(uuid)
    assert len(before) > 200
    for _ in range(2):  # what a reload doubles is seen by the second one only
        world.host.run("systemctl", "daemon-reload")
        assert changes(before, properties(world, uuid)) == {}
    assert world.pid(uuid) == pid
    world.host.run("kill", "-9", str(pid))
    world.wait_boots(uuid, 2)
    assert argv(world, uuid) == words
    world.ask(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")
    assert "powerbutton" in world.journal(uuid)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_reload_changes_nothing_for_any_name(world: World, name: str) -> None:
    uuid = world.vm(name=name)
    assert f"guest={name.replace(',', ',,')},debug-threads=on" in argv(world, uuid)
    assert world.show(uuid, "Description")["Description"] == f"VM {name}"
    survives(world, uuid)


def test_a_reload_changes_nothing_for_disks_nics_and_limits(world: World) -> None:
    world.shell("ip link add br0 type bridge && ip link set br0 up")
    files = ["a b", "it's", 'say "x"', "semi;colon", "comma, too", "back\\slash", "Büro", "#hash", " lead"]
    disks = [world.disk(name) for name in files]
    uuid = world.vm(
        name="all of it", disks=disks, nics=[{"bridge": "br0"}, {"bridge": "br0", "mac": "02:00:00:00:00:01"}], smp=2,
        memory=32, stop_timeout=15, restart="on-failure", vnc={"unix": True, "tcp": True},
    )  # fmt: skip
    open_files = {
        link for link in world.shell(f"readlink /proc/{world.pid(uuid)}/fd/*").splitlines() if "/images/" in link
    }
    assert open_files == {disk["file"] for disk in disks}
    survives(world, uuid)
    eventually(lambda: world.shell("ls /sys/class/net/br0/brif") == "", what="no tap is left")


def test_it_survives_a_new_systemd_as_well(world: World) -> None:
    """daemon-reexec: what an upgrade of systemd does."""
    uuid = world.vm(name=NAMES["backslashes"])
    before, words, pid = properties(world, uuid), argv(world, uuid), world.pid(uuid)
    world.host.run("systemctl", "daemon-reexec")
    assert changes(before, properties(world, uuid)) == {}
    assert world.pid(uuid) == pid
    world.host.run("kill", "-9", str(pid))
    world.wait_boots(uuid, 2)
    assert argv(world, uuid) == words
    world.wait_events(uuid, "started", "killed", "restarted")


def test_systemctl_isolate_leaves_vms_alone(new_world) -> None:
    world = new_world()
    vms = [world.vm() for _ in range(2)]
    pids = [world.pid(uuid) for uuid in vms]
    world.host.run("systemctl", "isolate", "multi-user.target")
    assert [world.pid(uuid) for uuid in vms] == pids
    world.host.run("systemctl", "start", "etcd")  # which multi-user.target does not want here
    world.wait_ready()
    another = world.vm()
    assert [world.events(uuid) for uuid in [*vms, another]] == [["started"]] * 3


def test_all_vms_together_have_a_weight_that_can_be_changed(world: World) -> None:
    """That the kernel heeds it is not seen: hosts of the lab have no cpu controller."""
    weight = "systemctl show --value --property=CPUWeight"
    assert world.shell(f"{weight} uncloud-vm.slice") == "100\n"
    world.host.run("systemctl", "set-property", "--runtime", "uncloud.slice", "CPUWeight=50")
    assert world.shell(f"{weight} uncloud.slice; {weight} uncloud-vm.slice") == "50\n100\n"
    world.host.run("systemctl", "revert", "uncloud.slice")


def test_stopping_the_slice_presses_every_power_button(new_world) -> None:
    world = new_world()
    vms = [world.vm() for _ in range(3)]
    world.host.run("systemctl", "stop", "uncloud-vm.slice")
    for uuid in vms:
        world.wait_gone(uuid)
        assert "pressed the power button" in world.journal(uuid)
        assert "powerbutton" in world.journal(uuid)  # the guest's word
        assert "terminating on signal" not in world.journal(uuid)


def test_little_of_the_agent_is_open_to_attack(world: World) -> None:
    assert world.exposure("uncloud-host.service") <= 2.5


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
@pytest.mark.parametrize(
    ("nics", "tcp", "at_most"), [(0, False, 0.5), (1, False, 1.2), (0, True, 1.2), (1, "[::]:5970", 1.2)]
)
def test_little_of_a_vm_is_open_to_attack(world: World, accel: str, nics: int, tcp: str | bool, at_most: float) -> None:
    """Whether its guest comes up or not: KVM does not work on every machine that runs tests."""
    world.configure(UNCLOUD_ACCEL=accel)
    world.host.run("systemctl", "restart", "uncloud-host")
    world.shell("ip link show br0 || ip link add br0 type bridge")
    uuid = world.new(nics=[{"bridge": "br0"}] * nics, vnc={"tcp": tcp})
    world.wait_journal(uuid, "Started|Failed")
    assert world.exposure(f"vm-{uuid}.service") <= at_most
    assert world.show(uuid, "PrivateNetwork")["PrivateNetwork"] == ("no" if nics or tcp else "yes")
    world.ask(uuid, status="TO_STOP", stop_timeout=1)
    world.wait_status(uuid, "STOP")


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()
