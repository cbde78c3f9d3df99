"""Runs on a host with libvirt: start a paused VM N times by virsh, by systemd-run and from a shell; then have VMS
paused ones and list them N times; print JSON.

    python3 peers.py N VMS

What each prints or returns when QEMU is executing ends its time. All make a VM with one disk and no nic.
"""

import json
import sys
from pathlib import Path

from here import IMAGES, memory, run, timed, uuids, wait

QEMU = "/usr/bin/qemu-system-x86_64"
DOMAIN = """<domain type='qemu'><name>{uuid}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>{qemu}</emulator>
<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
</devices></domain>"""
VIRSH = ["virsh", "--quiet", "--connect", "qemu:///system"]


def plain(me: str, disk: str) -> list[str]:
    """A QEMU as one would type it."""
    words = [QEMU, "-uuid", me, "-machine", "q35", "-m", "16", "-nodefaults", "-display", "none", "-S"]
    return [*words, "-drive", f"file={disk},format=raw,if=virtio"]


def created(me: str, disk: str) -> float:
    xml = Path(f"/root/{me}.xml")
    xml.write_text(DOMAIN.format(uuid=me, qemu=QEMU, disk=disk))
    return timed(*VIRSH, "create", "--paused", str(xml))


def by_virsh(me: str, disk: str) -> float:
    took = created(me, disk)
    run(*VIRSH, "destroy", me)
    return took


def by_systemd_run(me: str, disk: str) -> float:
    took = timed("systemd-run", "--quiet", "--service-type=exec", f"--unit={me}", *plain(me, disk))
    run("systemctl", "stop", me)
    return took


def from_a_shell(me: str, disk: str) -> float:
    pid = Path(f"/run/{me}.pid")
    took = timed(*plain(me, disk), "-daemonize", "-pidfile", str(pid))
    run("kill", pid.read_text().strip())
    wait(lambda: not pid.exists(), "QEMU has ended")
    return took


def main() -> None:
    count, vms = map(int, sys.argv[1:])
    disk = str(IMAGES / "bench.img")
    ways = {"virsh": by_virsh, "systemd-run": by_systemd_run, "shell": from_a_shell}
    found: dict[str, object] = {name: [] for name in ways}
    for number in range(count + 1):
        for name, way in ways.items():
            took = way(uuids(1)[0], disk)
            found[name] += [took] if number else []  # the first of each warms caches
        print(f"bench: peers, {number} of {count}", file=sys.stderr, flush=True)
    for me in uuids(vms):
        image = IMAGES / f"{me}.img"  # a file of its own: libvirt locks it
        run("cp", disk, str(image))
        created(me, str(image))
    found["list"] = [timed(*VIRSH, "list") for _ in range(count)]
    found["libvirtd"] = memory("libvirtd.service")
    print(json.dumps(found))


main()
