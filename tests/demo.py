"""What tests/demo does, by the commands that an administrator types; they are shown as they run."""

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from lab import CommandFailed, Host, Lab, LabError, deb, guests, tree
from system.world import IMAGES, World
from waiting import eventually

SOURCE = Path(__file__).resolve().parents[1]
UUID = "7a1dd0a5-5e12-4a0e-9d3b-0c5b2f6a4e01"
ENTRY: dict[str, Any] = {
    "host": "vmhost1",
    "name": "web-1",
    "memory": 192,
    "disks": [{"file": f"{IMAGES}/linux.iso", "bus": "cdrom"}, {"file": f"{IMAGES}/web-1.img"}],
}
CONSOLE = 90  # seconds for the guest's kernel, without KVM, on a busy machine
BEGUN = time.monotonic()


def step(text: str) -> None:
    """Say what happens next."""
    print(f"\n==> {text}", flush=True)


def typed(host: Host, command: str, *, show: Callable[[str], bool] = bool, columns: int = 1000) -> None:
    """Show a command as one would type it, run it in a shell on the host, and show what it says."""
    print(f"{host.name}# {command}", flush=True)
    for line in host.run("sh", "-c", command, timeout=180).stdout.splitlines():
        if show(line):
            print(f"    {line[:columns]}", flush=True)


def set_up(lab: Lab, package: Path) -> World:
    step("a Debian 13 host boots")
    host = lab.host("vmhost1")
    host.boot()
    typed(host, "cat /etc/debian_version; hostname; systemctl is-system-running")

    step("etcd and an SMTP server start; the package is installed")
    world = World(host)
    world.serve()
    host.push(package, f"/root/{package.name}")
    typed(host, f"apt-get install --yes --quiet /root/{package.name}", show=lambda line: line.startswith("Setting up"))
    world.configure()
    typed(host, "cat /etc/default/uncloud-host && systemctl restart uncloud-host && systemctl is-active uncloud-host")
    host.push(guests.linux(), f"{IMAGES}/linux.iso")
    host.push(guests.tiny(), f"{IMAGES}/web-1.img", mode=0o600)
    return world


def start(world: World) -> None:
    step("an entry in etcd: the VM should run on this host")
    typed(world.host, f"etcdctl put /v1/vm/{UUID} {shlex.quote(json.dumps(ENTRY))}")
    world.wait_status(UUID, "RUNNING")
    typed(world.host, f"etcdctl get --print-value-only /v1/vm/{UUID}")
    world.wait_journal(UUID, "FACTS disk vda", within=CONSOLE)
    typed(world.host, f"systemctl status vm-{UUID} --lines=0", columns=150)

    step("the guest's console is in the journal of its unit")
    typed(world.host, f"journalctl -o short-precise -u vm-{UUID}", show=about_the_guest, columns=150)


def about_the_guest(line: str) -> bool:
    return any(text in line for text in ("GUEST", "FACTS", "uncloud-host[", "Linux version", "systemd[1]: Start"))


def crash(world: World) -> None:
    step("QEMU is killed: systemd starts it again, people are told")
    old = world.pid(UUID)
    typed(world.host, f"kill -9 $(systemctl show -P MainPID vm-{UUID})")
    eventually(lambda: world.pid(UUID) not in (0, old), what="systemd has started QEMU again")
    world.wait_events(UUID, "started", "killed", "restarted")
    typed(world.host, f"systemctl show vm-{UUID} -p ActiveState,MainPID,NRestarts,Result")
    typed(
        world.host, f"etcdctl get --prefix --print-value-only /v1/log/{world.name}/", show=lambda line: "killed" in line
    )
    mail = world.wait_mail(UUID, "was killed")
    step("the mail as it arrived")
    print("".join(f"    {line}\n" for line in mail.as_string().splitlines()), end="", flush=True)
    # A guest that still boots cannot hear its power button.
    eventually(lambda: world.journal(UUID).count("GUEST-UP") > 1, within=CONSOLE, what="the guest is up again")


def stop(world: World) -> None:
    step("the entry says TO_STOP: the guest's power button is pressed")
    stopping = f"etcdctl get --print-value-only /v1/vm/{UUID} | sed s/RUNNING/TO_STOP/ | etcdctl put /v1/vm/{UUID}"
    typed(world.host, stopping)
    world.wait_status(UUID, "STOP", within=60)
    typed(world.host, f"etcdctl get --print-value-only /v1/vm/{UUID}")
    if "GUEST power button" not in world.journal(UUID):
        raise AssertionError("the guest did not say that its power button was pressed")
    wanted = ("power button", "Stopped", "status STOP", "stopping:")
    typed(
        world.host, f"journalctl -o short-precise -u vm-{UUID}", show=lambda line: any(text in line for text in wanted)
    )
    world.wait_mail(UUID, "stopped")


def ask_to_leave(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def show(lab: Lab, package: Path) -> None:
    """The story, in a lab that is there."""
    world = set_up(lab, package)
    start(world)
    crash(world)
    stop(world)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/demo", description="A VM from nothing to STOP.")
    parser.add_argument("--keep", action="store_true", help="leave the host up, and say how to get a shell in it")
    keep = parser.parse_args().keep
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_leave)
    # One that is to stay gets a name that `python3 tests/lab down` can be told; others may run beside each other.
    name = "demo" if keep else f"demo-{os.getpid() % 1_000_000}"
    try:
        step("the package is built (the first time Debian 13 is fetched for it: 2 minutes)")
        package = deb.build(SOURCE)
        print(f"    {package.name}", flush=True)
        guests.tiny()
        guests.linux()
        lab = Lab(name, [tree.host(package), tree.base()], keep=keep)
        lab.start()
        try:
            show(lab, package)
        except BaseException:
            lab.close()
            raise
        if not keep:
            lab.close()
    except (LabError, CommandFailed, AssertionError, OSError) as error:
        print(f"\ntests/demo: FAILED after {time.monotonic() - BEGUN:.0f} s: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ntests/demo: interrupted, nothing is left", file=sys.stderr)
        return 130
    step(f"that was all, after {time.monotonic() - BEGUN:.0f} s")
    if keep:
        print("    the host stays; a shell in it:  python3 tests/lab sh demo/vmhost1")
        print("    to end it:                      python3 tests/lab down demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
