"""The commands for people, as people use them on a host with the package."""

import json
import re
import subprocess
from typing import Any

import pytest

from system.world import World
from waiting import eventually

STRANGER = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
ONE, TWO = "ab000000-0000-4000-8000-000000000001", "ab000000-0000-4000-8000-000000000002"


def command(world: World, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = [f"{name}={value}" for name, value in environment.items()]
    return world.host.run("env", *variables, "uncloud-host", *words, check=False, timeout=120)


def good(world: World, *words: str) -> str:
    done = command(world, *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def program(world: World, *words: str) -> Any:
    return json.loads(command(world, *words, "--json").stdout)


def refused(world: World, status: int, expected: str, *words: str, **environment: str) -> None:
    """It ends with this status, and with one line that says why."""
    done = command(world, *words, **environment)
    assert (done.returncode, done.stdout) == (status, ""), done
    assert re.fullmatch(rf"uncloud-host[^\n]*: [^\n]*{expected}[^\n]*\n", done.stderr), done.stderr


def row(world: World, uuid: str, *words: str) -> dict[str, Any]:
    return next((row for row in program(world, "ls", *words) if row["uuid"] == uuid), {})


@pytest.fixture(scope="module")
def vm(world: World) -> str:
    return world.vm(name="web-1")


def test_ls_shows_what_should_run_and_what_runs(world: World, vm: str) -> None:
    head, *lines = good(world, "ls").splitlines()
    assert head.split() == ["UUID", "NAME", "ASKED", "UNIT", "SINCE", "CLAIM", "VNC", "NOTE"]
    line = next(line.split() for line in lines if line.startswith(vm))
    assert line[1:4] == ["web-1", "RUNNING", "running"]
    assert re.fullmatch(r"\d+[smh]", line[4])
    assert line[5:] == ["vmhost1", f"/run/uncloud-vm/{vm}/vnc.sock"]
    assert world.host.run("test", "-S", line[6]).returncode == 0


def test_ls_for_programs(world: World, vm: str) -> None:
    found = row(world, vm)
    assert (found["name"], found["host"], found["asked"], found["unit"]) == ("web-1", "vmhost1", "RUNNING", "running")
    assert (found["claim"], found["claim_is_ours"], found["note"]) == ("vmhost1", True, "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["since"])


def test_vms_of_other_hosts_are_in_the_list_of_all(world: World) -> None:
    world.put(ONE, {"host": "vmhost2", "name": "elsewhere", "status": "RUNNING"})
    assert row(world, ONE) == {}
    found = row(world, ONE, "--all")
    assert (found["host"], found["asked"], found["unit"], found["since"]) == ("vmhost2", "RUNNING", None, None)
    assert "HOST" in good(world, "ls", "--all").splitlines()[0]
    world.delete(ONE)


def test_show_tells_everything_about_one(world: World, vm: str) -> None:
    fields = dict(re.findall(r"(?m)^(\S+) +(.*)$", good(world, "show", "web-1")))
    assert (fields["uuid"], fields["unit"], fields["entry.memory"]) == (vm, "running", "16")
    assert fields["invocation"] == world.show(vm, "InvocationID")["InvocationID"]
    assert (fields["claim_record.id"], fields["evidence.claim"]) == (world.claim(vm)["id"], world.claim(vm)["id"])
    assert fields["plan"] == "nothing to do"
    assert world.host.run("test", "-S", fields["console"]).returncode == 0
    assert program(world, "show", "web-1")["evidence"]["host"] == "vmhost1"


def test_a_vm_is_called_by_its_uuid_the_beginning_of_it_or_its_name(world: World, vm: str) -> None:
    for word in (vm, vm[:13], vm[:13].upper(), "web-1"):
        assert program(world, "show", word)["uuid"] == vm


def test_an_ambiguous_word_is_refused_with_the_candidates(world: World) -> None:
    for uuid in (ONE, TWO):
        world.put(uuid, name="twin", status="STOP")
    for word in ("ab0000", "twin"):
        refused(world, 2, rf"expected one VM.*{ONE} \(twin\), {TWO} \(twin\)", "stop", word)
    assert world.entry(ONE)["status"] == "STOP"
    for uuid in (ONE, TWO):
        world.delete(uuid)


def test_an_unknown_vm_is_one_line(world: World) -> None:
    refused(world, 1, "there is no such VM", "show", "nobody")
    refused(world, 1, "there is no such VM", "plan", STRANGER)
    refused(world, 1, "no entry", "start", STRANGER)


@pytest.mark.parametrize(
    "words", [[], ["list"], ["ls", "--every"], ["show"], ["start"], ["stop", "x", "--timeout", "9"],
              ["stop", "x", "--wait", "--timeout", "soon"], ["confirm", "x", "--all"]],
)  # fmt: skip
def test_wrong_use_is_one_line(world: World, words: list[str]) -> None:
    refused(world, 2, "", *words)


def test_stop_and_start_are_waited_for(world: World, vm: str) -> None:
    before = world.raw(f"/v1/vm/{vm}")
    said = good(world, "stop", "web-1", "--wait")
    assert re.search(r": TO_STOP is written\n(.*\n)*.*: is STOP\n$", said)
    assert (world.entry(vm)["status"], world.qemus(vm)) == ("STOP", [])
    assert world.raw(f"/v1/vm/{vm}") == before.replace("RUNNING", "STOP")
    assert "is STOP already" in good(world, "stop", "web-1", "--wait")
    assert good(world, "start", "web-1", "--wait").endswith(": is RUNNING\n")
    assert world.state(vm) == "active/running"
    invocation = world.show(vm, "InvocationID")
    assert program(world, "start", "web-1", "--wait") == {
        "command": "start", "ok": True,
        "vms": [{"uuid": vm, "name": "web-1", "result": "done", "text": "is RUNNING already, nothing is written"}],
    }  # fmt: skip
    assert world.show(vm, "InvocationID") == invocation


def test_restart_boots_once_more(world: World) -> None:
    uuid = world.vm(name="again")
    done = command(world, "restart", "again", "--wait", "--json")
    assert json.loads(done.stdout)["vms"][0]["result"] == "done"
    assert "TO_RESTART" in done.stderr
    assert world.entry(uuid)["status"] == "RUNNING"
    world.wait_boots(uuid, 2)
    assert "TO_RESTART is written" in good(world, "restart", uuid)
    world.wait_boots(uuid, 3)
    assert "boot 4w" not in world.journal(uuid)


def test_a_start_that_fails_says_why(world: World) -> None:
    uuid = world.put(ONE, name="diskless", disks=[{"file": "/var/lib/uncloud-host/images/none.img"}])
    done = command(world, "start", "diskless", "--wait")
    assert done.returncode == 1
    assert re.search(r"uncloud-host: .*\(diskless\): is FAILED: disks\[0\].file: .*none.img", done.stderr)
    assert "none.img" in row(world, uuid)["note"]
    assert "wait: its status is FAILED" in good(world, "plan", "diskless")
    world.delete(uuid)


def test_a_wait_has_an_end(world: World) -> None:
    world.put(ONE, {"host": "vmhost2", "name": "elsewhere"})
    done = command(world, "stop", "elsewhere", "--wait", "--timeout", "1")
    assert done.returncode == 1
    assert "not STOP within 1 s: TO_STOP" in done.stderr
    world.delete(ONE)


def test_an_entry_that_no_agent_would_act_on_is_not_written_to(world: World) -> None:
    world.put(ONE, '{"host": "vmhost2", "smp": 0}')
    refused(world, 1, "invalid entry: smp: expected", "start", ONE)
    assert world.raw(f"/v1/vm/{ONE}") == '{"host": "vmhost2", "smp": 0}'
    world.put(ONE, '{"host": "vmhost2", "status": "GO"}')
    assert "TO_START is written" in good(world, "start", ONE)
    world.delete(ONE)


def test_plan_says_what_the_agent_would_do(world: World, vm: str) -> None:
    assert good(world, "plan") == "nothing to do\n"
    assert program(world, "plan") == []
    world.host.run("systemctl", "stop", "uncloud-host")
    before = world.entry(vm)
    world.ask(vm, status="TO_STOP")
    assert good(world, "plan") == f"{vm} (web-1): stop: its status is TO_STOP\n"
    assert program(world, "plan", "web-1") == [
        {"uuid": vm, "name": "web-1", "action": "stop", "reason": "its status is TO_STOP"}
    ]
    world.put(vm, json.dumps(before))
    world.host.run("systemctl", "start", "uncloud-host")
    assert good(world, "plan", "web-1") == "nothing to do\n"
    assert world.state(vm) == "active/running"


def test_plan_says_that_a_host_with_another_name_does_nothing(world: World, vm: str) -> None:
    assert f"was started on it as {world.name}" in command(world, "plan", vm, UNCLOUD_HOST_NAME="other").stdout


def test_a_changed_entry_is_pending_until_the_restart(world: World) -> None:
    uuid = world.vm(name="growing")
    world.ask(uuid, memory=17)
    assert row(world, uuid)["note"] == "pending"
    good(world, "restart", uuid, "--wait")
    assert row(world, uuid)["note"] == ""


def test_a_foreign_unit_and_a_vm_without_entry_are_shown(world: World) -> None:
    world.host.run("systemd-run", "--quiet", f"--unit=vm-{STRANGER}", "sleep", "infinity")
    assert (row(world, STRANGER)["unit"], row(world, STRANGER)["note"]) == ("foreign", "no entry")
    assert good(world, "plan", STRANGER) == "nothing to do\n"
    world.host.run("systemctl", "stop", f"vm-{STRANGER}")
    uuid = world.vm(name="orphan")
    world.host.run("etcdctl", "txn", input=f"\ndel /v1/claim/{uuid}\ndel /v1/vm/{uuid}\n\n\n")
    eventually(lambda: world.claim(uuid), what="it is held")
    found = row(world, uuid)
    assert (found["name"], found["asked"], found["unit"]) == ("orphan", None, "running")
    assert "no entry" in found["note"]
    assert program(world, "show", "orphan")["uuid"] == uuid
    good(world, "confirm", uuid)
    world.wait_gone(uuid)
    eventually(lambda: not world.claim(uuid), what="its claim is released")


def test_a_hold_is_ended_by_a_person(world: World) -> None:
    assert command(world, "confirm").stderr == "nothing is held on this host\n"
    machine = world.shell("cat /etc/machine-id").strip()
    claim = {"host": "vmhost1", "machine_id": machine, "boot_id": "b", "id": "i", "entry": 1, "since": "s"}
    world.host.run("systemctl", "stop", "uncloud-host")
    world.host.run("etcdctl", "put", f"/v1/claim/{ONE}", input=json.dumps(claim | {"held": True}))
    assert "held" in row(world, ONE)["note"]
    listed = command(world, "confirm")
    assert (listed.returncode, listed.stdout) == (0, f"{ONE}: is held\n")
    assert "--all" in listed.stderr
    assert world.claim(ONE)["held"] is True
    assert "is held no more" in good(world, "confirm", ONE)
    assert world.claim(ONE) == claim | {"held": False}
    refused(world, 1, "it is not held", "confirm", ONE)
    world.host.run("etcdctl", "del", f"/v1/claim/{ONE}")
    world.host.run("systemctl", "start", "uncloud-host")


@pytest.mark.parametrize("value", ["[]", '[["host", "vmhost1"]]', "1", '{"host": "vmhost2", ', '{"smp": %s1%s}'])
def test_garbage_can_be_looked_at(world: World, value: str) -> None:
    """The last one is nested so deeply that it can hardly be shown; that is one line, too."""
    world.put(ONE, value.replace("%s1", "[" * 3000).replace("%s", "]" * 3000))
    assert row(world, ONE, "--all")["note"].startswith("invalid entry: ")
    done = command(world, "show", ONE)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if "%s" in value and done.stderr else 0)
    refused(world, 1, "invalid entry", "start", ONE)
    world.delete(ONE)


def test_the_environment_comes_before_the_file_and_a_name_from_outside_is_harmless(world: World) -> None:
    world.host.run("etcdctl", "put", f"/other/vm/{ONE}", input='{"host": "vmhost1", "name": "\\u001b[31mred"}')
    done = command(world, "ls", UNCLOUD_PREFIX="/other")
    assert [line.split()[:2] for line in done.stdout.splitlines() if ONE in line] == [[ONE, "?[31mred"]]
    world.host.run("etcdctl", "del", f"/other/vm/{ONE}")


def test_it_works_without_root(world: World, vm: str) -> None:
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "uncloud-host", "ls"]
    assert vm in world.host.run(*nobody).stdout
    world.host.run("chmod", "600", "/etc/default/uncloud-host")
    done = world.host.run(*nobody)
    world.host.run("chmod", "644", "/etc/default/uncloud-host")
    assert vm in done.stdout
    assert done.stderr == "uncloud-host: /etc/default/uncloud-host: Permission denied; using defaults instead\n"


def test_a_reader_that_goes_away_and_a_full_disk_are_no_traceback(world: World) -> None:
    done = world.host.run("bash", "-c", "uncloud-host ls --json | head -c1; echo ${PIPESTATUS[0]}", check=False)
    assert (done.stdout, done.stderr) in [("[141\n", ""), ("[0\n", "")]
    done = world.host.run("bash", "-c", "uncloud-host ls > /dev/full", check=False)
    assert (done.returncode, done.stderr) == (2, "uncloud-host: [Errno 28] No space left on device\n")


def test_ctrl_c_ends_it_quietly(world: World) -> None:
    world.put(ONE, {"host": "vmhost2"})
    script = f"env --default-signal=INT uncloud-host stop {ONE} --wait"
    process = world.host.popen("bash", "-c", script + "; echo $?", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: world.entry(ONE).get("status") == "TO_STOP", what="it waits")
    world.shell(f"kill -INT $(pgrep -f '^/usr/bin/python3 .*uncloud-host stop {ONE}')")
    out, err = process.communicate(timeout=30)
    assert (out.splitlines()[-1], err) == ("130", "")
    world.delete(ONE)


def test_completion_knows_commands_and_vms(world: World, vm: str) -> None:
    script = """
        . /usr/share/bash-completion/completions/uncloud-host
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _uncloud_host; echo "${COMPREPLY[@]}"; }
    """
    assert world.host.run("bash", "-c", script + "try uncloud-host st").stdout.split() == ["start", "stop"]
    assert world.host.run("bash", "-c", script + "try uncloud-host ls --").stdout.split() == [
        "--all",
        "--json",
        "--help",
    ]
    assert world.host.run("bash", "-c", script + f"try uncloud-host show {vm[:10]}").stdout.split() == [vm]
    evil = "/v1/vm/$(touch${IFS}/root/typed)"
    world.host.run("etcdctl", "put", evil, json.dumps({"host": world.name}))
    assert vm in world.host.run("bash", "-c", script + "try uncloud-host show ''").stdout.split()
    assert not (world.host.root / "root/typed").exists()
    world.host.run("etcdctl", "del", evil)


def test_what_cannot_be_seen_is_not_guessed(world: World, vm: str) -> None:
    refused(world, 2, "UNCLOUD_ETCD: expected URLs", "ls", UNCLOUD_ETCD="127.0.0.1:2379")
    world.host.run("systemctl", "stop", "etcd")
    for words in (["ls"], ["ls", "--json"], ["show", vm], ["plan"], ["stop", vm, "--wait"], ["confirm"]):
        refused(world, 2, r"etcd http://127\.0\.0\.1:2379: connection refused", *words)
    world.host.run("systemctl", "start", "etcd")
    eventually(lambda: command(world, "ls").returncode == 0, what="etcd is back")
    refused(world, 2, "", "ls", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere")
    assert world.state(vm) == "active/running"
