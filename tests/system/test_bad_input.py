"""Whatever stands in etcd or in the configuration: one line that says what is wrong, and nothing else is disturbed."""

import json

import pytest

from system.world import IMAGES, World
from waiting import eventually

HOST = '"host": "vmhost1"'
DISK = '"disks": [{"file": "%s"}]'
UUID = "00000000-0000-4000-8000-0000000001%02d"

INVALID = {
    "a mistyped field": (f'{{{HOST}, "memory": "1G"}}', 'memory: expected an integer from 8 up (MiB), got "1G"'),
    "an unknown status": (f'{{{HOST}, "status": "GO"}}', "status: expected one of"),
    "an unknown field of a disk": (f'{{{HOST}, "disks": [{{"fil": "/x"}}]}}', "disks[0].fil: unknown field"),
    "a path with a way up": (f"{{{HOST}, {DISK % '/var/../etc/shadow'}}}", "disks[0].file: expected an absolute path"),
}
UNREADABLE = {
    "not JSON": (f'{{{HOST}, "memory": 16,}}', "not JSON: trailing comma"),
    "no object": ('["host", "vmhost1", "\\"host\\": \\"vmhost1\\""]', None),  # nobody is named: nobody says anything
}
MISSING = {
    "no such file": (DISK % f"{IMAGES}/none.img", f"disks[0].file: {IMAGES}/none.img: No such file or directory"),
    "a file elsewhere": (DISK % "/etc/shadow", f"disks[0].file: /etc/shadow is not below {IMAGES}"),
    "a directory": (DISK % f"{IMAGES}/directory", f"disks[0].file: {IMAGES}/directory is not a regular file"),
    "a device": (DISK % f"{IMAGES}/device", f"disks[0].file: {IMAGES}/device is not a regular file"),
    "a symlink": (DISK % f"{IMAGES}/link", f"disks[0].file: {IMAGES}/link is a symbolic link"),
    "a symlink on the way": (DISK % f"{IMAGES}/up/shadow", f"disks[0].file: {IMAGES}/up is a symbolic link"),
    "a directory of somebody": (
        DISK % f"{IMAGES}/open/a.img",
        f"disks[0].file: {IMAGES}/open can be written by others",
    ),
    "no such bridge": ('"nics": [{"bridge": "br9"}]', "nics[0].bridge: there is no bridge br9 on this host"),
    "an interface, no bridge": ('"nics": [{"bridge": "eth0"}]', "nics[0].bridge: there is no bridge eth0 on this host"),
    "a port that is taken": ('"vnc": {"tcp": "127.0.0.1:5999"}', "vnc.tcp: 127.0.0.1:5999 is taken"),
    "an address of nobody": ('"vnc": {"tcp": "192.0.2.1:5901"}', "vnc.tcp: 192.0.2.1:5901 is taken or is no address"),
}


@pytest.fixture(scope="module", autouse=True)
def prepared(world: World) -> None:
    world.shell(
        f"cd {IMAGES} && mkdir -p directory open && chmod 777 open && cp /root/tiny.img open/a.img"
        " && ln -sf /etc/shadow link && ln -sfn /etc up && mknod device b 7 0"
        " && systemd-run --quiet --unit=taken python3 -m http.server --bind 127.0.0.1 5999"
    )
    eventually(lambda: ":5999 " in world.shell("ss -ltn"), what="the port is taken")


@pytest.fixture(scope="module")
def bystander(world: World) -> str:
    return world.vm(name="bystander")


def lines_about(world: World, reason: str) -> list[str]:
    return [line for line in world.agent_lines() if reason in line]


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_entry(world: World, bystander: str, case: str) -> None:
    text, reason = INVALID[case]
    uuid = world.put(UUID % list(INVALID).index(case), text)
    entry = eventually(lambda: world.entry(uuid) if reason in world.entry(uuid).get("status_reason", "") else {})
    del entry["status_reason"]
    assert entry == json.loads(text)
    assert world.wait_events(uuid, "invalid")[0]["reason"].startswith(f"invalid entry: {reason}")
    world.wait_told(uuid)
    world.host.run("systemctl", "restart", "uncloud-host")
    assert world.qemus(uuid) == []
    assert len(lines_about(world, f"{uuid} is left as it is")) == 1
    assert world.events(bystander) == ["started"]


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_value_that_is_no_json_is_never_written_to(world: World, bystander: str, case: str) -> None:
    text, reason = UNREADABLE[case]
    uuid = world.put(UUID % (20 + list(UNREADABLE).index(case)), text)
    if reason:
        assert world.wait_events(uuid, "invalid")[0]["reason"].startswith(f"invalid entry: {reason}")
    world.vm()  # put later: the other one has been seen
    assert world.raw(f"/v1/vm/{uuid}") == text
    assert len(world.events(uuid)) == bool(reason)
    assert world.events(bystander) == ["started"]


@pytest.mark.parametrize("case", MISSING)
def test_what_the_host_does_not_have(world: World, bystander: str, case: str) -> None:
    field, reason = MISSING[case]
    uuid = world.put(UUID % (40 + list(MISSING).index(case)), f'{{{HOST}, "memory": 16, {field}}}')
    assert world.wait_status(uuid, "FAILED")["status_reason"].startswith(reason)
    assert world.wait_events(uuid, "could-not-start")[0]["reason"].startswith(reason)
    assert world.claim(uuid) == {}
    assert world.qemus(uuid) == []
    assert world.events(bystander) == ["started"]
    world.put(uuid)  # mended
    world.wait_status(uuid, "RUNNING")
    assert "status_reason" not in world.entry(uuid)


def test_garbage_over_the_entry_of_a_running_vm_leaves_it_alone(world: World) -> None:
    uuid = world.vm()
    pid = world.pid(uuid)
    world.put(uuid, "{")
    world.wait_events(uuid, "started", "invalid")
    assert (world.pid(uuid), world.raw(f"/v1/vm/{uuid}")) == (pid, "{")
    world.put(uuid, status="TO_STOP")
    world.wait_status(uuid, "STOP")


def test_an_image_that_a_stranger_writes_to(world: World) -> None:
    uuid = world.put(UUID % 60, disks=[world.occupied("input")])
    world.wait_reason(uuid, 'Failed to get "write" lock')
    assert "could-not-start" in world.events(uuid)
    world.delete(uuid)
    world.wait_gone(uuid)


def test_a_unit_with_that_name_which_is_not_ours(world: World) -> None:
    uuid = UUID % 61
    world.host.run("systemd-run", "--quiet", f"--unit=vm-{uuid}", "sleep", "infinity")
    world.put(uuid)
    assert "which uncloud-host did not start" in world.wait_status(uuid, "FAILED")["status_reason"]
    assert world.state(uuid) == "active/running"
    world.host.run("systemctl", "stop", f"vm-{uuid}")
    world.ask(uuid, status="TO_START")
    world.wait_status(uuid, "RUNNING")


def test_a_claim_whose_key_is_a_path_removes_nothing(world: World, bystander: str) -> None:
    """It says that it is this machine's, and that no VM is there whose it was."""
    key = f"/v1/claim/../../..{IMAGES}/cd"
    world.shell(f"touch {IMAGES}/cd.iso; etcdctl get --print-value-only /v1/claim/{bystander} | etcdctl put {key}")
    world.host.run("systemctl", "restart", "uncloud-host")
    world.wait_ready()
    world.host.run("ls", f"{IMAGES}/cd.iso")
    world.host.run("etcdctl", "del", key)


def test_a_key_that_is_no_uuid(world: World) -> None:
    world.put("web-1")
    entry = world.wait_reason("web-1", "the key does not end in a uuid in lower case")
    assert "status" not in entry


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"UNCLOUD_ACCEL": "xen"}, "UNCLOUD_ACCEL: expected kvm or tcg, got 'xen'"),
        ({"UNCLOUD_ETCD": "127.0.0.1:2379"}, "UNCLOUD_ETCD: expected URLs like http://etcd1:2379, separated by spaces, "
         "got '127.0.0.1:2379'"),
        ({"UNCLOUD_ETDC": "http://a:1"}, "UNCLOUD_ETDC: there is no such variable; see uncloud-host(8)"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_line_and_no_crash_loop(new_world, variables: dict[str, str], said: str) -> None:
    world = new_world()
    uuid = world.vm()
    pid = world.pid(uuid)
    world.configure(**variables)
    world.host.run("systemctl", "restart", "uncloud-host", check=False)
    assert world.host.run("systemctl", "is-failed", "uncloud-host").stdout == "failed\n"
    assert world.agent_lines()[-1] == said
    assert world.host.run("systemctl", "show", "uncloud-host", "-p", "NRestarts").stdout == "NRestarts=0\n"
    assert world.pid(uuid) == pid


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://nowhere.invalid:2379", "nowhere.invalid"),
        ("https://127.0.0.1:2379", "127.0.0.1:2379"),
        ("http://127.0.0.1:25", "127.0.0.1:25"),
    ],
)
def test_an_etcd_that_cannot_be_reached_is_said_once(new_world, endpoint: str, said: str) -> None:
    world = new_world()
    world.vm()
    world.host.run("systemctl", "stop", "uncloud-host")
    world.configure(UNCLOUD_ETCD=endpoint)
    before = len(world.agent_lines())
    world.host.run("systemctl", "start", "--no-block", "uncloud-host")
    eventually(lambda: len(world.agent_lines()) > before, what="it says something")
    world.host.run("sh", "-c", "timeout 8 tail -f /dev/null", check=False)  # many attempts later
    lines = world.agent_lines()[before:]
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert world.host.run("systemctl", "is-active", "uncloud-host", check=False).stdout == "activating\n"


def test_the_agent_was_well_all_the_time(world: World) -> None:
    assert not any("Traceback" in line for line in world.agent_lines())
