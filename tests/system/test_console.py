"""The serial console of a VM on people's terminals: it can do everything but stop the guest."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from system.terminal import Terminal
from system.world import IMAGES, World
from waiting import eventually

DETACH = "\x1d"
REPLACED = "another one is started"
FLOOD = 240  # seconds that a flood may take on a busy machine; about 5 on a quiet one
DEAF = """
import signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b"fr")
print("connected", flush=True)
signal.pause()
"""
ALIVE = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(10)
    connection.connect(sys.argv[1])
    with connection.makefile("rwb", 0) as monitor:
        monitor.readline()
        for command in ("qmp_capabilities", "query-status"):
            monitor.write(json.dumps({"execute": command}).encode())
            print(monitor.readline().decode())
"""


@pytest.fixture(scope="module")
def vm(world: World) -> str:
    return world.vm(name="web-1")


def relays(world: World, vm: str = "") -> list[int]:
    pattern = f"^/usr/bin/python3 -IS /usr/libexec/uncloud-host/relay vm-{vm}"
    return [int(pid) for pid in world.shell(f"pgrep -f '{pattern}'; true").split()]


def nothing_is_left(world: World) -> bool:
    units = world.shell("systemctl list-units --all --no-legend 'uncloud-host-console@*'")
    return (relays(world), units, world.shell("ls /run/uncloud-host/console 2>/dev/null; true")) == ([], "", "")


def resident(world: World, pid: int) -> float:
    """MiB of memory that it had at most."""
    return int(world.shell(f"awk '/VmHWM/ {{ print $2 }}' /proc/{pid}/status")) / 1024


@contextmanager
def attached(world: World, vm: str, *words: str) -> Iterator[Terminal]:
    with closing(Terminal(world, "uncloud-host", "console", vm, *words)) as terminal:
        terminal.wait_raw()
        yield terminal
    eventually(lambda: nothing_is_left(world), what="the relay ends when the last terminal has gone")


def console(world: World, script: str, *, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = world.host.run("sh", "-c", script, check=False)
    assert done.returncode == status, done
    return done


def boots(world: World, vm: str) -> int:
    """As the guest has counted them on its disk: what is in the journal may have been suppressed."""
    return int.from_bytes(world.host.pull(f"{IMAGES}/{vm}.img")[512:514], "little")


def flood_and_reset(world: World, vm: str) -> None:
    """By connections that are gone at once. QEMU takes a letter, and holds another one until the guest reads again."""
    world.type(vm, "f")
    world.wait_journal(vm, "TINY-GUEST line")
    world.type(vm, "r")


def wait_flooded(world: World, vm: str, before: int) -> None:
    """It was told to reset after its flood, and has come to that."""
    eventually(
        lambda: boots(world, vm) > before, within=FLOOD, every=0.2, what="the guest comes to the end of its flood"
    )


def test_what_is_typed_reaches_the_guest_and_the_key_detaches(world: World, vm: str) -> None:
    with attached(world, "web-1") as terminal:
        terminal.see(rf"\[attached to the console of {vm} \(web-1\); Ctrl-\] detaches\]\n")
        terminal.type("kL\x03\x1a\x11")  # Ctrl-C, Ctrl-Z and Ctrl-Q are the guest's, too
        terminal.see("kL\x03\x1a\x11")
        terminal.type(f"m{DETACH}rm -rf /\n")
        assert terminal.wait_status() == 0
        assert terminal.state()["is_as_before"]
        assert re.search(r"\n\[detached\]\nstatus 0\n$", terminal.text())
        assert "rm" not in terminal.text(), "what follows the key is for nobody"
    assert world.state(vm) == "active/running"


def test_the_last_lines_can_be_shown_first(world: World, vm: str) -> None:
    with attached(world, vm, "--lines", "3") as terminal:
        assert re.search(r"TINY-GUEST boot 1w.*(\n.*)*attached", terminal.text())


@pytest.mark.parametrize(("name", "status"), [("TERM", 143), ("HUP", 129), ("INT", 130), ("QUIT", 131)])
def test_the_terminal_is_as_before_when_it_is_killed(world: World, vm: str, name: str, status: int) -> None:
    with attached(world, vm) as terminal:
        terminal.signal(name)
        assert terminal.wait_status() == status
        assert terminal.state()["is_as_before"]


def test_the_terminal_is_as_before_while_it_is_suspended_by_hand(world: World, vm: str) -> None:
    with attached(world, vm) as terminal:
        terminal.signal("TSTP")
        eventually(lambda: terminal.state()["is_as_before"], what="it is restored")
        terminal.signal("CONT")
        terminal.wait_raw()
        terminal.type("again")
        terminal.see("again")


def test_a_window_can_be_closed(world: World, vm: str) -> None:
    with attached(world, vm):
        pass
    eventually(
        lambda: not world.shell("pgrep -f '^/usr/bin/python3 .*uncloud-host console'; true"), what="it has ended"
    )


def test_a_pipe_types_and_reads(world: World, vm: str) -> None:
    done = console(world, "printf abc | uncloud-host console web-1")
    assert done.stdout == "abc"
    assert re.fullmatch(r"\[attached.*\]\n\[detached\]\n", done.stderr)
    assert console(world, "uncloud-host console web-1 < /dev/null").stdout == ""
    assert console(world, f"printf 'a\\035b' | uncloud-host console {vm[:13]}").stdout == "a\x1db"


def test_keys_do_not_go_where_a_vm_that_was_taken_over_sends_them(world: World, vm: str) -> None:
    other = world.vm()
    user = world.show(other, "User")["User"]
    socket = f"/run/uncloud-vm/{other}/console.sock"
    world.shell(f"setpriv --reuid={user} --clear-groups ln -sf /run/uncloud-vm/{vm}/console.sock {socket}")
    before = boots(world, vm)
    done = world.host.run("sh", "-c", f"printf abc | timeout 5 uncloud-host console {other}", check=False)
    assert (done.stdout, boots(world, vm)) == ("", before)
    world.ask(other, status="TO_STOP")
    world.wait_gone(other)


def test_all_of_a_long_text_arrives(world: World) -> None:
    uuid = world.vm(name="reader")
    text = "".join(f"{number:05}\n" for number in range(60))  # the tiny guest reads 18 characters a second
    world.host.push(text, "/root/text")
    assert console(world, "uncloud-host console reader < /root/text").stdout == text
    world.ask(uuid, status="TO_STOP")
    world.wait_gone(uuid)


def test_the_key_works_while_a_paste_waits_for_the_guest(world: World, vm: str) -> None:
    with attached(world, vm) as terminal:
        terminal.type("a" * 300_000 + DETACH)
        assert terminal.wait_status() == 0
        assert terminal.state()["is_as_before"]
        (pid,) = relays(world, vm)  # it waits a minute for a guest that is so slow
        assert resident(world, pid) < 32
        world.host.run("systemctl", "stop", f"uncloud-host-console@{vm}")


def test_two_terminals_share_a_console(world: World, vm: str) -> None:
    with attached(world, vm) as one:
        with closing(Terminal(world, "uncloud-host", "console", vm)) as two:
            two.wait_raw()
            assert len(relays(world, vm)) == 1
            one.type("one")
            two.see("one")
            two.type("two")
            one.see("two")
            two.type(DETACH)
            assert two.wait_status() == 0
        one.type("alone")
        one.see("alone")


def test_many_that_come_at_once_have_one_relay(world: World, vm: str) -> None:
    one = f"(sleep 3 | uncloud-host console {vm} > /root/many-$n 2>&1; echo $? >> /root/many-$n)"
    console(world, f"for n in 1 2 3 4 5 6; do {one} & done; wait")
    told = [world.shell(f"cat /root/many-{number}") for number in range(1, 7)]
    assert all(re.fullmatch(r"\[attached.*\]\n\[detached\]\n0\n", text) for text in told), told
    eventually(lambda: nothing_is_left(world), what="nothing is left")


def test_a_terminal_follows_the_vm_over_a_restart(world: World, vm: str) -> None:
    with attached(world, vm) as terminal:
        world.host.run("kill", "-9", str(world.pid(vm)))
        terminal.see(r"\[the VM has ended\]\n(.*\n)*.*\[the VM restarted\]")
        world.wait_boots(vm, 2)
        terminal.type("back")
        terminal.see("back")
        world.ask(vm, status="TO_RESTART")
        world.wait_boots(vm, 3)
        terminal.see(r"\[the VM restarted\](.*\n)*.*\[the VM restarted\]")
        terminal.type("again")
        terminal.see("again")


def test_the_end_of_the_vm_is_the_end_of_its_terminals(world: World, vm: str) -> None:
    with attached(world, vm) as terminal:
        world.ask(vm, status="TO_STOP")
        terminal.see(r"\[the VM has ended\]\n(.*\n)*\[the VM has stopped\]")
        assert terminal.wait_status() == 1
        assert terminal.state()["is_as_before"]
    done = console(world, "uncloud-host console web-1", status=1)
    assert done.stderr == "uncloud-host: web-1: it does not run on this host: its unit is absent\n"
    world.ask(vm, status="TO_START")
    world.wait_status(vm, "RUNNING")


def test_what_cannot_be_attached_to_is_one_line(world: World, vm: str) -> None:
    done = console(world, "uncloud-host console nobody", status=1)
    assert re.fullmatch("uncloud-host: 'nobody': there is no such VM[^\n]*\n", done.stderr)
    done = console(world, f"setpriv --reuid=nobody --clear-groups uncloud-host console {vm}", status=2)
    assert re.fullmatch("uncloud-host: console: expected to be run by root[^\n]*\n", done.stderr)
    relay = f"uncloud-host-console@{vm}"
    done = console(world, f"systemctl mask --runtime --quiet {relay}; uncloud-host console {vm}", status=2)
    assert re.fullmatch("uncloud-host: [^\n]*masked[^\n]*\n", done.stderr)
    console(world, f"systemctl unmask --runtime --quiet {relay}")
    world.host.run("systemctl", "stop", "etcd")
    with attached(world, "web-1") as terminal:  # whoever looks after a VM need not have etcd
        terminal.type("k")
        terminal.see("k")
    world.host.run("systemctl", "start", "etcd")


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_relay_that_is_killed_is_replaced_and_one_that_hangs_is_killed(world: World, vm: str, signal: str) -> None:
    with attached(world, vm) as terminal:
        (pid,) = relays(world)
        world.host.run("kill", f"-{signal}", str(pid))
        eventually(lambda: REPLACED in terminal.text(), within=60, what=terminal.text)
        eventually(lambda: relays(world) not in ([], [pid]), what="there is another one")
        terminal.type("again")
        terminal.see("again")


def test_a_relay_can_be_stopped(world: World, vm: str) -> None:
    with attached(world, vm) as terminal:
        world.host.run("systemctl", "stop", f"uncloud-host-console@{vm}")
        terminal.see(r"\[the relay was stopped\]")
        assert terminal.wait_status() == 1


def test_a_guest_to_which_nobody_is_connected_is_never_held_up(world: World) -> None:
    """But by whoever connects to its socket himself and does not read: so the floods of these tests do hold it up."""
    uuid = world.vm()
    before, began = boots(world, uuid), time.monotonic()
    flood_and_reset(world, uuid)
    wait_flooded(world, uuid, before)
    took = time.monotonic() - began
    before = boots(world, uuid)
    deaf = world.host.popen("python3", "-c", DEAF, f"/run/uncloud-vm/{uuid}/console.sock", stdout=subprocess.PIPE)
    assert deaf.stdout
    assert deaf.stdout.readline() == "connected\n"
    time.sleep(3 * took)
    assert boots(world, uuid) == before
    deaf.kill()
    deaf.communicate(timeout=30)
    wait_flooded(world, uuid, before)
    world.ask(uuid, status="TO_STOP")


def test_a_guest_that_floods_a_stopped_terminal_goes_on(world: World, new_window: Callable[..., Terminal]) -> None:
    uuid = world.vm(name="flood")
    stopped, other = new_window("flood"), new_window("flood")
    before = boots(world, uuid)
    stopped.signal("STOP")
    other.type("fr")
    wait_flooded(world, uuid, before)
    assert '"running"' in world.host.run("python3", "-c", ALIVE, f"/run/uncloud-vm/{uuid}/qmp.sock").stdout
    other.see(rf"TINY-GUEST boot {before + 1}w")
    assert "TINY-GUEST boot" not in stopped.text()
    (pid,) = relays(world, uuid)
    assert resident(world, pid) < 32
    # For the rest of 30 s the journal has had enough of this guest.
    suppressed = f"journalctl -o cat -t systemd-journald -g 'Suppressed [0-9]+ messages from vm-{uuid}.service'; true"

    def is_heard() -> bool:
        other.type("again\n")
        return "again" in world.journal(uuid) and bool(world.shell(suppressed))

    eventually(is_heard, within=90, every=1, what="its journal goes on and says what is missing")
    stopped.signal("CONT")
    stopped.see(r"\[\.\.\. output dropped \.\.\.\]")
    stopped.see(rf"TINY-GUEST boot {before + 1}w")
    stopped.type("awake")
    stopped.see("awake")
    other.see("awake")


@pytest.fixture
def new_window(world: World) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(vm: str) -> Terminal:
        made.append(Terminal(world, "uncloud-host", "console", vm))
        made[-1].wait_raw()
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


def test_the_journal_of_others_goes_on_while_a_guest_floods(world: World, vm: str) -> None:
    uuid = world.vm()
    before = boots(world, uuid)
    flood_and_reset(world, uuid)
    seen = 0
    while boots(world, uuid) == before:
        seen += 1
        console(world, f"printf 'line{seen}\\n' | uncloud-host console {vm}")
        world.wait_journal(vm, f"line{seen}")
    assert seen
    world.ask(uuid, status="TO_STOP")


def test_where_the_screen_is(world: World) -> None:
    uuid = world.vm(name="screen", vnc={"tcp": "127.0.0.1:5977"})
    places = ["127.0.0.1:5977", f"/run/uncloud-vm/{uuid}/vnc.sock"]
    assert console(world, "uncloud-host vnc screen").stdout.splitlines() == places
    shown = console(world, "uncloud-host show screen").stdout
    assert re.findall(r"(?m)^screens\[\d\] +(.*)$", shown) == places
    world.ask(uuid, vnc={"unix": False})
    assert console(world, "uncloud-host vnc screen").stdout.splitlines() == places, "as it was started"
    world.ask(uuid, status="TO_RESTART", vnc={"unix": False})
    world.wait_boots(uuid, 2)
    done = console(world, "uncloud-host vnc screen", status=1)
    assert done.stderr == "uncloud-host: screen: it has no screen\n"
