"""A file server that does not answer, as an NFS server that is away: made by a FUSE file system that nobody serves."""

from collections.abc import Callable

from system.world import IMAGES, World
from waiting import eventually

AWAY = "/srv/away"
SILENT = f"""
import ctypes, os, signal
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={{fuse}},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None, use_errno=True).mount(b"away", b"{AWAY}", b"fuse", 0, options):
    raise OSError(ctypes.get_errno(), "mount")
signal.pause()
"""


def test_only_the_vms_whose_files_are_on_it_are_not_started(new_world: Callable[..., World]) -> None:
    world = new_world(UNCLOUD_IMAGE_DIRS=f"{IMAGES}:{AWAY}")
    world.wait_ready()
    files = [f"{AWAY}/{name}.img" for name in "abc"]
    world.shell(f"mkdir {AWAY}; for file in {' '.join(files)}; do cp /root/tiny.img $file; done")
    runs, agent = world.vm(), world.shell("systemctl show -P MainPID uncloud-host")
    pid = world.pid(runs)
    world.host.push(SILENT, "/root/silent.py")
    world.host.run("systemd-run", "--quiet", "--unit=silent", "/usr/bin/python3", "/root/silent.py")
    eventually(lambda: "away" in world.shell("cat /proc/mounts"), what="the file system is mounted")

    waits = [world.new(disks=[world.disk("system"), {"file": files[0]}], restart="no")]
    waits += [world.new(disks=[{"file": file}]) for file in files[1:]]
    for uuid in waits:
        entry = world.wait_reason(uuid, f"waits for the file system of {AWAY}, which does not answer")
        assert "status" not in entry
    world.wait_status(world.new(), "RUNNING")

    world.shell(f"systemctl stop silent; umount {AWAY}")
    for uuid in waits:
        world.wait_status(uuid, "RUNNING", within=60)
    assert world.pid(runs) == pid
    assert world.shell("systemctl show -P MainPID uncloud-host") == agent
