"""What an entry names is looked at before PID 1 opens it as root; and what is big or odd holds nobody up."""

import json

import pytest

from system.world import IMAGES, World
from tests.adapters.qemus import qcow2
from waiting import eventually

SECRETS = "/etc/uncloud-host/secrets"
SHARED = "/srv/images"
UUID = "00000000-0000-4000-8000-0000000003%02d"


def disk(path: str, **more: str) -> dict[str, object]:
    return {"disks": [{"file": path, **more}]}


REFUSED = {
    "qcow2 with a backing file": (disk(f"{IMAGES}/backed", format="qcow2"), "has a backing file"),
    "qcow2 with its data elsewhere": (disk(f"{IMAGES}/elsewhere", format="qcow2"), "has its data in another file"),
    "a raw image called qcow2": (disk(f"{IMAGES}/raw", format="qcow2"), "is no qcow2 image"),
    "a fifo": (disk(f"{IMAGES}/fifo"), "is not a regular file"),
    "a socket": (disk(f"{IMAGES}/socket"), "is not a regular file"),
    "a neighbour of the directory": (disk(f"{IMAGES}-too/a.img"), "is not below"),
    "a disk of the host": (disk("/dev/sda"), "is not below"),
    "a descriptor": (disk("/proc/self/fd/3"), "is not below"),
    "a set of descriptors": (disk("/dev/fdset/1"), "is not below"),
    "a directory of a group": (disk(f"{IMAGES}/group/a.img"), f"{IMAGES}/group can be written by others"),
    "a directory of a user": (disk(f"{IMAGES}/user/a.img"), f"{IMAGES}/user can be written by others"),
    "a name that is too long": (disk(f"{IMAGES}/{'x' * 300}"), "File name too long"),
    "a kernel elsewhere": ({"boot": {"kernel": "/etc/shadow"}}, "boot.kernel: /etc/shadow is not below"),
    "an initrd that is a link": (
        {"boot": {"kernel": f"{IMAGES}/raw", "initrd": f"{IMAGES}/link"}},
        f"boot.initrd: {IMAGES}/link is a symbolic link",
    ),
    "a bridge of others": ({"nics": [{"bridge": "lan0"}]}, "nics[0].bridge: lan0 is not allowed by UNCLOUD_BRIDGES"),
    "no secret": ({"vnc": {"password_file": "none"}}, "vnc.password_file: "),
    "a secret that others read": ({"vnc": {"password_file": "open"}}, "must be root's alone; chown root, chmod 600"),
    "a secret of a user": ({"vnc": {"password_file": "user"}}, "must be root's alone; chown root, chmod 600"),
    "a secret that is a link": ({"vnc": {"password_file": "link"}}, f"{SECRETS}/link is a symbolic link"),
    "a password of two lines": ({"vnc": {"password_file": "lines"}}, "and no newline"),
    "a long password": ({"vnc": {"password_file": "long"}}, "expected 1 to 8 characters"),
    "a seed that others read": (
        {"cloud_init": {"user_data_file": "open"}},
        f"cloud_init.user_data_file: {SECRETS}/open must be root's alone",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def prepared(world: World) -> None:
    world.configure(UNCLOUD_BRIDGES="br* vm-?", UNCLOUD_IMAGE_DIRS=f"{IMAGES}:{SHARED}")
    world.shell("systemctl restart uncloud-host")
    world.host.push(qcow2(backing="/etc/passwd"), f"{IMAGES}/backed")
    world.host.push(qcow2(features=1 << 2), f"{IMAGES}/elsewhere")
    world.shell(
        f"""set -e; umask 022; mkdir -p {SECRETS}; cd {IMAGES}; cp /root/tiny.img raw; mkfifo fifo
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
        mkdir group user {IMAGES}-too; cp raw group/a.img; cp raw user/a.img; cp raw {IMAGES}-too/a.img
        chmod 775 group; chown nobody user; ln -s /etc/shadow link
        ip link add lan0 type bridge; ip link add br0 type bridge
        cd {SECRETS}; umask 077; for name in open user good; do printf %s secret > $name; done
        chmod 644 open; chown nobody user; ln -s good link; printf 'a\\nb' > lines; printf %s 123456789 > long"""
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_safe_is_not_opened(world: World, case: str) -> None:
    fields, reason = REFUSED[case]
    uuid = world.put(UUID % list(REFUSED).index(case), memory=16, **fields)
    told = world.wait_status(uuid, "FAILED")["status_reason"]
    assert reason in told
    assert told.startswith(("disks[0].file: ", "boot.", "nics[0].bridge: ", "vnc.password_file: ", "cloud_init."))
    assert "\n" not in told
    assert "Starting" not in world.journal(uuid)
    world.delete(uuid)


def test_an_image_that_its_owner_swaps_for_a_link_all_the_time(world: World) -> None:
    """Whoever may write a directory may swap what is in it between look and use: so nothing in it is used."""
    once = "ln -sfn /etc/shadow a.new && mv -fT a.new a.img && cp raw a.new && mv a.new a.img"
    world.shell(f"mkdir -p {SHARED}/user && cd {SHARED}/user && cp /root/tiny.img raw && cp raw a.img && chmod 644 raw")
    world.shell(f"chown nobody {SHARED}/user")
    script = f"cd {SHARED}/user && while {once}; do :; done"
    world.host.run("systemd-run", "--quiet", "--unit=swapper", "--uid=nobody", "sh", "-c", script)
    uuid = world.put(UUID % 50, disk(f"{SHARED}/user/a.img"))
    for _ in range(20):
        told = world.wait_status(uuid, "FAILED")["status_reason"]
        assert f"{SHARED}/user can be written by others than root" in told
        world.ask(uuid, status="TO_START")
    assert world.host.run("systemctl", "is-active", "swapper").stdout == "active\n"
    world.host.run("systemctl", "stop", "swapper")
    world.wait_status(uuid, "FAILED")
    assert "Starting" not in world.journal(uuid)
    assert "started" not in world.events(uuid)


def test_a_directory_of_roots_own_below_another_of_the_image_dirs(world: World) -> None:
    world.shell(f"mkdir -p {SHARED}/root && cp /root/tiny.img {SHARED}/root/a.img")
    uuid = world.put(UUID % 51, disk(f"{SHARED}/root/a.img"), memory=16)
    world.wait_boots(uuid, 1)


BIG = 1 << 20
HOLD_UP = {
    "a list": json.dumps({"host": "vmhost1", "disks": [{}] * (BIG // 4)}),
    "unknown fields": json.dumps({"host": "vmhost1", "disks": [{f"k{n}": 1 for n in range(BIG // 12)}]}),
    "deep": '{"host": "vmhost1", "disks": ' + "[" * (BIG // 2) + "]" * (BIG // 2) + "}",
    "deep, and none of our business": '{"host": "vmhost1", "metadata": ' + "[" * 10**5 + "]" * 10**5 + "}",
    "one key all the time": '{"host": "vmhost1", "smp": 0, ' + ", ".join(['"status_reason": 1'] * (BIG // 22)) + "}",
    "a name": json.dumps({"host": "vmhost1", "name": "x" * BIG}),
    "a path": json.dumps({"host": "vmhost1", "disks": [{"file": f"{IMAGES}/{'x' * BIG}"}]}),
}


@pytest.mark.parametrize("case", HOLD_UP)
def test_a_big_entry_holds_nobody_up(world: World, case: str) -> None:
    uuid = world.put(UUID % (60 + list(HOLD_UP).index(case)), HOLD_UP[case])
    world.vm()  # put later, and up in the usual time
    told = world.wait_events(uuid, "invalid")[0]["reason"]
    assert len(told) < 1000
    if "deep" not in case:  # those are not JSON to us, and never written to
        written = eventually(lambda: json.loads(world.raw(f"/v1/vm/{uuid}")).get("status_reason"))
        assert len(str(written)) < 1000
    world.delete(uuid)


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert world.agent_is_well()
