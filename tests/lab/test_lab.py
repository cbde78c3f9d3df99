"""The lab itself: hosts are real enough for the other tests, and nothing of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import CommandFailed, Host, Lab, LabError, guests, tree, wait_until
from lab.machine import RUN, cgroup_root
from waiting import eventually

BOOT_SECONDS = 15
GONE_SECONDS = 2
TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def base() -> Path:
    return tree.base()


@pytest.fixture(scope="module")
def lab(base: Path) -> Iterator[Lab]:
    with Lab("selftest", [base], binds={TESTS: "/source"}) as lab:
        yield lab


@pytest.fixture
def host(lab: Lab) -> Host:
    """A running host with its cable in."""
    host = lab.host("one")
    if not host.process:
        host.boot()
    host.heal()
    return host


def leftovers(name: str) -> list[str]:
    """What of a lab is still there: processes (told by mounts they see), cgroups, mounts, interfaces, files."""
    directory = str(RUN / name)
    found = [str(path) for path in (cgroup_root() / f"uncloud-lab-{name}", RUN / name) if path.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            mounts = (process / "mountinfo").read_text()
            cgroup = (process / "cgroup").read_text()
        except OSError:
            continue
        if directory in mounts or f"uncloud-lab-{name}" in cgroup or ["hold", name] == words[-6:-4]:
            found.append(f"{process.name} {' '.join(words)}")
    links = subprocess.run(["ip", "-brief", "link"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return found + [line for line in links.splitlines() if line.startswith(f"lab-{name[:11]}")]


def assert_nothing_left(name: str) -> None:
    eventually(
        lambda: not leftovers(name), within=GONE_SECONDS, every=0.02, what=lambda: f"all gone: {leftovers(name)}"
    )


def test_boots_to_running_in_time(lab: Lab) -> None:
    host = lab.host("fresh")
    start = time.monotonic()
    host.boot()
    assert time.monotonic() - start < BOOT_SECONDS
    assert host.run("systemctl", "is-system-running").stdout == "running\n"
    host.destroy()
    assert host.name not in [host.name for host in lab.hosts()]


def test_has_identity_and_cgroup_of_its_own(host: Host) -> None:
    assert host.run("hostname").stdout == "one\n"
    assert host.run("cat", "/proc/1/cgroup").stdout.splitlines()[-1] == "0::/init.scope"
    assert host.run("cat", "/proc/1/comm").stdout == "systemd\n"
    machine_boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    assert host.run("cat", "/proc/sys/kernel/random/boot_id").stdout != machine_boot


def test_commands_run_in_the_host_and_nowhere_else(host: Host) -> None:
    assert host.process
    for kind in ("mnt", "uts", "ipc", "net", "pid", "cgroup"):
        theirs = Path(f"/proc/{host.process.pid}/ns/{kind}").readlink()
        assert theirs != Path(f"/proc/self/ns/{kind}").readlink()
        assert host.run("readlink", f"/proc/self/ns/{kind}").stdout.strip() == str(theirs)


def test_a_killed_command_leaves_no_zombie(host: Host) -> None:
    """systemd-shutdown would wait for it, and the host's pid namespace could not end."""
    with host.popen("sleep", "4242") as command:
        wait_until(lambda: host.run("pgrep", "-f", "sleep 424[2]", check=False).returncode == 0, 5, "it runs")
        command.kill()
    wait_until(lambda: host.run("pgrep", "sleep", check=False).returncode == 1, 20, "no process, not even a zombie")


def test_runs_commands(host: Host) -> None:
    assert host.run("cat", input="in and out").stdout == "in and out"
    assert host.run("false", check=False).returncode == 1
    with pytest.raises(CommandFailed, match="exit status 3\nout\nerr"):
        host.run("sh", "-c", "echo out; echo err >&2; exit 3")
    with pytest.raises(subprocess.TimeoutExpired, match="sleep"):
        host.run("sleep", "4242", timeout=0.2)
    wait_until(
        lambda: host.run("pgrep", "-f", "sleep 424[2]", check=False).returncode == 1, 20, "the command gone, too"
    )


def test_runs_transient_units_and_scopes(host: Host) -> None:
    assert "DynamicUser" not in host.run("systemd-run", "--wait", "--pipe", "-pDynamicUser=yes", "id").stdout
    assert "scope" in host.run("systemd-run", "--scope", "--quiet", "cat", "/proc/self/cgroup").stdout
    credential = ["-pSetCredential=word:secret", "-pUser=daemon", "cat", "/run/credentials/cred.service/word"]
    assert host.run("systemd-run", "--wait", "--pipe", "--unit=cred", *credential).stdout == "secret"


def test_settings_of_the_machine_are_read_only(host: Host) -> None:
    assert host.run("test", "-w", "/proc/sys/kernel/panic", check=False).returncode
    assert host.run("test", "-w", "/sys/kernel", check=False).returncode
    host.run("test", "-w", "/proc/sys/net/ipv4/ip_forward")
    assert host.run("touch", "/source/x", check=False).returncode


def test_etcd_starts_when_asked(host: Host) -> None:
    assert host.run("systemctl", "is-active", "etcd", check=False).stdout == "inactive\n"
    host.run("systemctl", "start", "etcd")
    host.run("etcdctl", "put", "key", "value")
    assert host.run("etcdctl", "get", "--print-value-only", "key").stdout == "value\n"
    host.run("systemctl", "stop", "etcd")


def test_files_come_and_go(host: Host, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/file").write_text("deep")
    host.push("text", "/root/new/text", 0o600)
    host.push(tmp_path / "directory", "/root/copy")
    assert host.run("stat", "-c", "%a %U", "/root/new/text").stdout == "600 root\n"
    assert host.pull("/root/copy/file") == b"deep"
    assert (host.root / "root/new/text").read_text() == "text"
    with pytest.raises(LabError, match="No such file"):
        host.pull("/nowhere")


def test_power_failure_keeps_disk_and_journal(host: Host) -> None:
    host.run("sh", "-c", "echo written > /var/lib/file; logger before the failure; journalctl --sync")
    host.crash()
    assert host.process is None
    assert host.pull("/var/lib/file") == b"written\n"
    with pytest.raises(LabError, match="off"):
        host.run("true")
    host.boot()
    assert host.run("cat", "/var/lib/file").stdout == "written\n"
    assert "before the failure" in host.run("journalctl", "--boot=-1").stdout


def test_reboot_is_another_boot_of_the_same_machine(host: Host) -> None:
    command = ["cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/sys/class/net/eth0/address"]
    machine, boot, mac = host.run(*command).stdout.splitlines()
    host.run("systemd-run", "--unit=last", "-pExecStop=touch /root/stopped", "sleep", "infinity")
    host.reboot()
    again = host.run(*command).stdout.splitlines()
    assert (again[0], again[2]) == (machine, mac)
    assert again[1] != boot
    host.run("test", "-e", "/root/stopped")


def test_hosts_reach_each_other_unless_the_cable_is_cut(lab: Lab, host: Host) -> None:
    other = lab.host("two")
    other.boot()
    script = "import socket; s = socket.create_server(('0.0.0.0', 7)); print('up', flush=True)\nwhile True: s.accept()"
    with other.popen("python3", "-c", script, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        probe = ["python3", "-c", f"import socket; socket.create_connection(('{other.address}', 7), timeout=1)"]
        host.run(*probe)
        other.cut()
        assert host.run(*probe, check=False).returncode
        other.heal()
        wait_until(lambda: not host.run(*probe, check=False).returncode, 10, "the cable works again")
        server.kill()
    other.cut()
    other.reboot()
    assert "NO-CARRIER" in other.run("ip", "link", "show", "eth0").stdout
    other.destroy()


def test_two_labs_do_not_see_each_other(base: Path, host: Host) -> None:
    with Lab("selftest2", [base], uplink=True) as other:
        twin = other.host("one")
        twin.boot()
        assert twin.address == host.address
        assert twin.run("cat", "/etc/machine-id").stdout != host.run("cat", "/etc/machine-id").stdout
        subprocess.run(["ip", "route", "get", twin.address], check=True, stdout=subprocess.DEVNULL)
        with pytest.raises(LabError, match="exists"):
            Lab("selftest2", [base]).start()
    assert_nothing_left("selftest2")
    assert host.run("true").returncode == 0


OWNER = """
import signal, sys
from lab import Lab, tree
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with `&`
lab = Lab("orphan", [tree.base()], uplink=True)
lab.start()
lab.host("one").boot()
lab.host("one").popen("sleep", "infinity")
print("up", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("base")
def test_nothing_outlives_its_owner(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"up\n"
        assert len(leftovers("orphan")) > 5  # otherwise the assertion below says nothing
        owner.send_signal(number)
        owner.wait()
    assert_nothing_left("orphan")


@pytest.mark.usefixtures("base")
def test_a_kept_lab_stays_until_it_is_taken_down() -> None:
    script = "from lab import *; lab = Lab('kept', [tree.base()], keep=True); lab.start(); lab.host('kept1').boot()"
    program = [sys.executable, str(TESTS / "lab")]
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(TESTS)})
    assert Lab.attach("kept").host("kept1").run("hostname").stdout == "kept1\n"
    for verb in ("cut", "heal", "crash", "boot", "shutdown", "boot"):
        subprocess.run([*program, verb, "kept1"], check=True)
    shell = subprocess.run([*program, "sh", "kept1", "hostname"], check=True, stdout=subprocess.PIPE, text=True)
    assert shell.stdout == "kept1\n"
    assert (
        "kept1\t10.199.0.2\ton"
        in subprocess.run([*program, "ls"], check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    subprocess.run([*program, "down", "kept"], check=True)
    assert_nothing_left("kept")


def test_a_lab_whose_keeper_was_killed_is_swept(base: Path) -> None:
    lab = Lab("swept", [base])
    lab.start()
    lab.host("one").boot()
    assert lab._keeper
    lab._keeper.kill()
    lab._keeper.wait()
    with Lab("swept", [base]) as again:
        again.host("one").boot()
    lab.host("one").reap()
    assert_nothing_left("swept")


def test_guests_are_made_once() -> None:
    disk = guests.tiny()
    assert (disk.stat().st_size, disk.read_bytes()[510:512]) == (1 << 20, b"\x55\xaa")
    assert guests.tiny() == disk
    assert guests.linux().with_name("vmlinuz").exists()


@pytest.mark.parametrize(("options", "well"), [(["--version"], True), (["--no-such-option"], False)])
def test_the_command_that_runs_all_says_whether_all_was_well(options: list[str], well: bool) -> None:
    """Its shell's trap once failed at the very end, when nothing else had."""
    run = subprocess.run([TESTS / "run", "core", "adapters", "--", *options], stdout=subprocess.DEVNULL)
    assert (run.returncode == 0) is well
