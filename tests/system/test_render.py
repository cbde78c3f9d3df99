"""`uncloud-host render` shows what is really started; `validate` and `schema` work on a host as on any machine."""

import json
from collections import Counter

import pytest

from core.hostile import words
from system.world import IMAGES, World
from waiting import eventually

NAME = "a, \"b\" 'c' %n; \\ -S, process=evil"


def settings(unit: str) -> Counter[tuple[str, str, str]]:
    """Section, name and word of all that a unit file says; of lists each word, and nothing of what is empty."""
    found, section = Counter[tuple[str, str, str]](), ""
    for line in unit.replace("\\\n", " ").splitlines():
        name, _, value = line.partition("=")
        if line.startswith("["):
            section = line
        elif line and not line.startswith("#") and line != "StandardInput=file":  # the next line says which
            if name.startswith("Exec"):  # the order of words counts
                value = " ".join(map(repr, words(value)))
                found[section, name, value] += bool(value)
                continue
            for word in [value] if name in {"Description", "OpenFile"} else words(value):
                found[section, name, word] += not word.startswith("UNCLOUD_REVISION=")  # each write makes a new one
    return +found


@pytest.fixture(scope="module")
def running(world: World) -> str:
    world.shell("ip link add br0 type bridge && ip link set br0 up")
    world.shell(f"cp /root/tiny.img '{IMAGES}/a b.img' && mkdir -p /etc/uncloud-host/secrets")
    world.shell("umask 077; printf %s secret > /etc/uncloud-host/secrets/screen")
    disks = [world.disk("first"), {"file": f"{IMAGES}/a b.img", "readonly": True, "cache": "none"}]
    screen = {"tcp": True, "password_file": "screen"}
    limits = {"cpu_quota": 150, "cpu_weight": 7, "memory_max": 700}
    return world.vm(name=NAME, disks=disks, nics=[{"bridge": "br0"}], vnc=screen, limits=limits, stop_timeout=77)


def test_the_unit_is_the_one_that_was_started(world: World, running: str) -> None:
    shown = settings(world.host.run("uncloud-host", "render", "--unit", running).stdout)
    started = settings(world.host.run("systemctl", "cat", f"vm-{running}").stdout)
    assert shown - started == started - shown
    assert len(shown) > 80


def test_one_that_is_not_started_is_shown_as_well(world: World) -> None:
    uuid = world.new(host="elsewhere", name="idle", vnc={"tcp": "127.0.0.1:5977"})
    told = json.loads(world.host.run("uncloud-host", "render", "idle", "--json").stdout)
    assert (told["uuid"], told["name"]) == (uuid, "idle")
    assert "-vnc 127.0.0.1:77" in told["command"]
    assert told["argv"][0] == "/usr/bin/qemu-system-x86_64"


def test_the_command_copied_to_a_shell_boots_the_guest(world: World) -> None:
    uuid = "00000000-0000-4000-8000-000000000777"
    entry = {
        "host": "anywhere",
        "memory": 16,
        "name": NAME,
        "disks": [world.disk("by-hand")],
        "nics": [{"bridge": "br0"}],
    }
    entry["vnc"] = {"password_file": "screen"}
    entry["cloud_init"] = {"user_data": "#!/bin/sh"}
    world.host.push(json.dumps(entry), f"/root/{uuid}.json")
    script = world.host.run("uncloud-host", "render", "--command", f"/root/{uuid}.json").stdout
    assert script.count(" \\\n  -") > 20
    console = "/root/by-hand.out"
    with world.host.popen("sh", "-c", f"exec sh >{console} 2>&1", stdin=-1) as shell:
        assert shell.stdin
        shell.stdin.write(script)
        shell.stdin.flush()
        eventually(lambda: "TINY-GUEST boot 1w" in world.shell(f"cat {console}", check=False), what=lambda: script)
        assert world.qemus(uuid)
        world.type(uuid, "p")
        shell.stdin.close()
        assert shell.wait(timeout=30) == 0


def test_the_command_of_a_vm_that_runs_leaves_it_alone(world: World, running: str) -> None:
    script = world.host.run("uncloud-host", "render", "--command", running).stdout
    before = world.shell(f"ls -i /run/uncloud-vm/{running}")
    done = world.host.run("sh", input=script, check=False)
    assert (done.returncode, done.stderr) == (1, f"there is a unit vm-{running}.service\n")
    assert world.shell(f"ls -i /run/uncloud-vm/{running}") == before


def test_what_cannot_be_shown(world: World) -> None:
    world.host.push('{"host": "a", "memory": 1}', "/root/bad.json")
    for word, status, said in [
        ("/root/none.json", 2, "uncloud-host: /root/none.json: No such file or directory\n"),
        ("/root/bad.json", 1, "/root/bad.json: memory: expected an integer from 8 up (MiB), got 1\n"),
        (
            "nobody",
            1,
            "uncloud-host: 'nobody': there is no such VM; expected a uuid, the beginning of one, or a name\n",
        ),
    ]:
        done = world.host.run("uncloud-host", "render", word, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (status, said)


def test_validate_and_schema_need_no_etcd_and_no_root(world: World) -> None:
    as_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "env",
        "UNCLOUD_ETCD=http://192.0.2.1:2379",
    ]
    entry = '{"host": "a", "memmory": 7}'
    done = world.host.run(*as_nobody, "uncloud-host", "validate", "-", input=entry)
    assert done.stdout == "-: memmory: unknown field; did you mean memory?\n"
    assert json.loads(world.host.run(*as_nobody, "uncloud-host", "schema").stdout)["required"] == ["host"]
    assert world.host.run("uncloud-host", "validate", "/root/none", check=False).returncode == 2
