"""How long each VM ran: one record for every run, whatever happens. The kernel's view of QEMU is the other witness."""

import csv
import io
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lab import Lab
from system.witness import Run, Witness
from system.world import World
from waiting import eventually


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def agent(world: World, *words: str) -> None:
    world.host.run("systemctl", *words, "uncloud-host", check=words[0] != "kill")


def kill(world: World, uuid: str, boots: int) -> None:
    """The VM's QEMU; systemd starts it again."""
    world.shell(f"kill -9 {world.pid(uuid)}")
    world.wait_boots(uuid, boots)


def kill_all(world: World, uuid: str, boots: int) -> None:
    """With QEMU its recorder."""
    world.host.run("systemctl", "kill", "--signal=KILL", f"vm-{uuid}")
    world.wait_boots(uuid, boots)


def lasted(run: Run) -> tuple[float, float]:
    """How long a QEMU was there, at least and at most: the kernel has noted its start, its end is between two looks."""
    assert run.gone is not None
    start = run.process.start / os.sysconf("SC_CLK_TCK")
    return run.last - start, run.gone - start


def are_right(runs: list[dict[str, Any]], seen: list[Run]) -> None:
    """None is missing, none is twice, and all are as long as the kernel says; so are all together."""
    assert [run["invocation"] for run in runs] == [run.invocation for run in seen]
    for record, run in zip(runs, seen, strict=True):
        shortest, longest = lasted(run)
        assert shortest - 0.5 < record["seconds"] < longest + 0.5
        assert record["seconds"] == pytest.approx(seconds(record["stopped"]) - seconds(record["started"]), abs=1e-6)
        assert (record["estimated"], record["name"], record["host"]) == (False, "web-1", "host1")
    bounds = [lasted(run) for run in seen]
    whole = sum(record["seconds"] for record in runs)
    assert sum(shortest for shortest, _ in bounds) - 1 < whole < sum(longest for _, longest in bounds) + 1


def wait_runs(world: World, uuid: str, *events: str | None) -> list[dict[str, Any]]:
    """Wait until the runs of a VM ended so; None is one that goes on."""

    def found() -> list[str | None]:
        return [run["event"] for run in world.runs(uuid)]

    eventually(lambda: found() == list(events), within=60, what=lambda: f"{found()} is {events}; {world.runs(uuid)}")
    return world.runs(uuid)


def test_no_run_is_missing_none_is_twice_and_all_are_right(new_world: Callable[..., World], lab: Lab) -> None:
    world = new_world(UNCLOUD_STOP_TIMEOUT="5")
    with Witness(lab) as witness:
        uuid = world.vm(name="web-1", vnc={"tcp": True})
        kill(world, uuid, 2)
        kill_all(world, uuid, 3)
        # The agent is killed, and away for a while: of the run in between it sees neither beginning nor end.
        agent(world, "kill", "--signal=KILL")
        agent(world, "stop")
        kill(world, uuid, 4)
        kill(world, uuid, 5)
        kill_all(world, uuid, 6)
        agent(world, "start")
        wait_runs(world, uuid, *["killed"] * 5, None)
        world.host.run("systemctl", "reset-failed", f"vm-{uuid}")  # or systemd would wait for a minute
        world.host.run("systemctl", "stop", "etcd")
        kill(world, uuid, 7)
        world.type(uuid, "p")
        world.wait_boots(uuid, 8)
        agent(world, "restart", "--no-block")
        world.host.run("systemctl", "start", "etcd")
        wait_runs(world, uuid, *["killed"] * 6, "powered-off", None)
        world.ask(uuid, status="TO_RESTART")
        world.wait_boots(uuid, 9)
        world.host.run("systemctl", "restart", f"vm-{uuid}")
        world.wait_boots(uuid, 10)
        world.wait_status(uuid, "RUNNING")
        world.host.reboot()
        world.wait_boots(uuid, 11)
        world.ask(uuid, status="TO_STOP")
        world.wait_status(uuid, "STOP")
        runs = wait_runs(world, uuid, *["killed"] * 6, "powered-off", *["stopped"] * 4)
        witness.look_again()
    are_right(runs, witness.runs(uuid))
    assert [record["exit"] for record in runs] == ["KILL"] * 6 + [0] * 5
    assert len({record["boot_id"] for record in runs}) == 2
    assert runs[0]["cpu_seconds"] > 0  # by the recorder
    assert runs[2]["cpu_seconds"] > 0
    assert runs[1]["cpu_seconds"] is None  # it was killed, too
    assert runs[0]["memory_peak"] is None  # the lab's kernel does not count it
    assert runs[0]["vnc"].startswith("127.0.0.1:59")
    assert "its status is TO_RESTART" in runs[7]["reason"]
    (line,) = json.loads(world.host.run("uncloud-host", "runtime", "--json").stdout)
    assert (line["vm"], line["runs"], line["last_end"]) == (uuid, 11, runs[-1]["stopped"])
    assert line["seconds"] == pytest.approx(sum(record["seconds"] for record in runs), abs=1e-6)
    assert not world.shell("ls /var/lib/uncloud-host/runs | grep json || true")


def test_a_host_that_loses_power_ends_runs_at_the_last_known_moment(new_world: Callable[..., World]) -> None:
    world = new_world()
    uuid = world.vm(name="web-1")
    off = crash(world, uuid)
    first, _ = wait_runs(world, uuid, "killed", None)
    assert first["reason"] == "this host went down without shutting down"
    assert first["estimated"]
    assert off - 60 < seconds(first["stopped"]) <= off
    world.wait_events(uuid, "started", "killed", "started")
    world.serve()
    world.wait_mail(uuid, "killed")
    # Nobody watched when it lost power again: journald did.
    agent(world, "stop")
    kill(world, uuid, 3)
    off = crash(world, uuid)
    runs = wait_runs(world, uuid, "killed", "killed", "killed", None)
    assert [run["estimated"] for run in runs] == [True, False, True, False]
    assert off - 60 < seconds(runs[2]["stopped"]) <= off


def crash(world: World, uuid: str) -> float:
    """Lose power and boot again; tells when that was."""
    world.wait_boots(uuid, 1)
    world.host.crash()
    off = datetime.now(UTC).timestamp()
    world.host.boot()
    world.wait_ready()
    return off


def test_an_agent_that_knows_nothing_opens_the_run_with_its_true_start(world: World) -> None:
    uuid = world.vm()
    (before,) = wait_runs(world, uuid, None)
    agent(world, "stop")
    world.shell("rm -r /var/lib/uncloud-host/runs /var/lib/uncloud-host/told/runtime")
    world.etcd.run("etcdctl", "del", "--prefix", f"/v1/runtime/{uuid}/")
    agent(world, "start")
    assert wait_runs(world, uuid, None) == [before]
    words = ("--timestamp=us+utc", "--value", "--property=ActiveEnterTimestamp")
    _, date, time, _ = world.host.run("systemctl", "show", *words, f"vm-{uuid}").stdout.split()
    assert seconds(before["started"]) == pytest.approx(seconds(f"{date}T{time}Z"), abs=0.001)
    world.delete(uuid)
    wait_runs(world, uuid, "stopped")


CLOCK_WAS_SET = """#!/bin/sh
/usr/bin/systemctl "$@" | sed "s/^ExecMainStartTimestamp=.*/ExecMainStartTimestamp=Sat 2000-01-01 00:00:00.000000 UTC/"
"""


def test_a_clock_that_was_set_while_a_vm_ran_makes_its_run_no_longer(world: World) -> None:
    """The clock of a lab's host is everybody's and cannot be set: PID 1's word for the time before is changed."""
    uuid = world.vm(name="web-1")
    world.host.push(CLOCK_WAS_SET, "/usr/local/bin/systemctl", mode=0o755)
    world.ask(uuid, status="TO_STOP")
    (run,) = wait_runs(world, uuid, "stopped")
    world.shell("rm /usr/local/bin/systemctl")
    assert run["seconds"] < 600
    assert seconds(run["started"]) == pytest.approx(seconds(run["stopped"]) - run["seconds"], abs=1e-3)


def test_what_could_not_be_started_did_not_run(world: World) -> None:
    uuid = world.new(disks=[world.image("absent")])
    world.wait_status(uuid, "FAILED")
    assert world.runs(uuid) == []
    world.delete(uuid)


def test_a_host_deletes_its_own_old_records(world: World) -> None:
    kept = {"host": "vmhost9", "started": "2020-01-01T00:00:00Z", "stopped": "2020-01-01T01:00:00Z"}
    uuid = "11111111-0000-4000-8000-000000000001"
    for name, fields in {
        "old": {"host": world.name}, "other": {}, "open": {"host": world.name, "stopped": None},
        "new": {"host": world.name, "stopped": "2026-11-01T00:00:00Z"},
    }.items():  # fmt: skip
        value = json.dumps(kept | {"invocation": name} | fields)
        world.etcd.run("etcdctl", "put", f"/v1/runtime/{uuid}/20200101T000000Z-{name}", input=value)
    world.shell("rm -f /var/lib/uncloud-host/runs/forgotten")
    world.hurry("clock.HOUR = 0.0")
    eventually(lambda: len(world.runs(uuid)) == 3, what=lambda: world.runs(uuid))
    assert [run["invocation"] for run in world.runs(uuid)] == ["new", "open", "other"]
    world.etcd.run("etcdctl", "del", "--prefix", f"/v1/runtime/{uuid}/")


def runtime(world: World, *words: str) -> str:
    return world.host.run("uncloud-host", "runtime", *words).stdout


def test_the_command_says_how_long_vms_ran(world: World) -> None:
    uuid = "22222222-0000-4000-8000-000000000001"
    stops = ((world.name, "2025-03-01T01:00:00.5Z"), ("vmhost9", "2025-03-02T00:00:00Z"))
    for n, (host, stopped) in enumerate(stops):
        started = f"2025-02-28T2{n}:00:00Z"
        record = {"vm": uuid, "host": host, "name": "db", "started": started, "stopped": stopped, "cpu_seconds": 7}
        key = f"/v1/runtime/{uuid}/{started.translate(str.maketrans('', '', '-:'))}-i{n}"
        world.etcd.run("etcdctl", "put", key, input=json.dumps(record))
    world.etcd.run("etcdctl", "put", f"/v1/runtime/{uuid}/20250228T230000Z-bad", input="{")
    (line,) = json.loads(runtime(world, "--month", "2025-02", "--json"))
    assert (line["name"], line["seconds"], line["runs"], line["cpu_seconds"]) == ("db", 4 * 3600, 1, None)
    (line,) = csv.DictReader(io.StringIO(runtime(world, "--month=2025-03", "--all", "--csv")))
    assert (line["hosts"], line["seconds"]) == (f"{world.name} vmhost9", str(3600.5 + 86400))
    table = runtime(world, "db", "--since", "2025-02-28T23:00:00Z", "--until", "2025-03-02").splitlines()
    assert [row.split()[:5] for row in table[1:]] == [
        ["2025-02-28T20:00:00.000Z", "2025-03-01T01:00:00.500Z", world.name, "7200.500", "2:00:00"],
        ["2025-02-28T21:00:00.000Z", "2025-03-02T00:00:00.000Z", "vmhost9", "90000.000", "25:00:00"],
    ]
    said = world.host.run("uncloud-host", "runtime", "--month", "2025-02").stderr
    bad = f"{uuid}/20250228T230000Z-bad"
    assert said == f"uncloud-host: the runtime record {bad} cannot be read and is left out\n"
    for words, expected in (
        (["--month", "2025-2"], "--month: expected a month like 2026-11, got '2025-2'"),
        (
            ["--since", "never"],
            "--since: expected a date like 2026-11-25, or a time like 2026-11-25T16:00:00Z, got 'never'",
        ),
        (["--month", "2025-02", "--since", "2025-02-01"], "--month: expected without --since and --until"),
        (["--since", "2025-02-01", "--until", "2025-02-01"], "--since: expected a time before --until"),
        (["nobody"], "'nobody': there is no such VM; expected a uuid, the beginning of one, or a name"),
    ):
        done = world.host.run("uncloud-host", "runtime", *words, check=False)
        assert done.returncode
        assert expected in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    world.etcd.run("etcdctl", "del", "--prefix", f"/v1/runtime/{uuid}/")
