"""A Ceph cluster on one host of a lab: a monitor and an OSD that keeps all in memory, with cephx; for rbd only.

ceph = Ceph(lab.host("ceph1", [tree.ceph()]))
ceph.boot()
vmhost.push(ceph.conf(), "/etc/ceph/ceph.conf")
vmhost.push(ceph.keyring(), "/etc/ceph/ceph.client.libvirt.keyring", 0o600)
ceph.load("one/web-1", guests.tiny())
"""

import json
from pathlib import Path
from typing import Any

from .host import Host
from .machine import wait_until

POOL, USER = "one", "libvirt"
COUNTER = slice(512, 514)  # where the tiny guest counts its boots, on its disk
MONITOR, OSD = "lab-mon", "lab-osd"

# Small and quick: one copy of everything, no manager. A client that is killed is forgotten after 10 s instead of 30.
# An OSD that is stopped writes down what it has in memory, unless it is in a hurry.
CONF = """[global]
fsid = 6c3f1d3e-6f0c-4b0e-9d57-0d8a1f5a4c11
mon_initial_members = a
mon_host = [v2:{address}:3300,v1:{address}:6789]
public_network = 10.199.0.0/24
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
osd_class_load_list = *
osd_class_default_list = *
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 2
memstore_device_bytes = 1073741824
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 1
mon_osd_min_down_reporters = 1
osd_client_watch_timeout = 10
osd_fast_shutdown = false
"""
UNIT = "[Service]\nExecStart=/usr/bin/{program} -f -i {id}\n"
SET_UP = f"""
set -eu
umask 077
admin=/etc/ceph/ceph.client.admin.keyring
user=/etc/ceph/ceph.client.{USER}.keyring
mkdir -p /var/lib/ceph/mon/ceph-a /var/lib/ceph/osd/ceph-0
ceph-authtool -C $admin --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
ceph-authtool -C /root/mon.keyring --gen-key -n mon. --cap mon 'allow *'
ceph-authtool /root/mon.keyring --import-keyring $admin
monmaptool --create --addv a "$1" --fsid "$2" /root/monmap
ceph-mon --mkfs -i a --monmap /root/monmap --keyring /root/mon.keyring
systemctl start {MONITOR}
secret=$(ceph-authtool --gen-print-key)
uuid=$(cat /proc/sys/kernel/random/uuid)
echo "{{\\"cephx_secret\\":\\"$secret\\"}}" | ceph --connect-timeout 30 osd new $uuid -i -
ceph-authtool -C /var/lib/ceph/osd/ceph-0/keyring -n osd.0 --add-key $secret
ceph-osd -i 0 --mkfs --osd-uuid $uuid
systemctl start {OSD}
# What OpenNebula and libvirt use; the profile has what taking over an exclusive lock needs.
ceph auth get-or-create client.{USER} mon 'profile rbd' osd 'profile rbd pool={POOL}' -o $user
ceph osd pool create {POOL} 8
ceph osd pool application enable {POOL} rbd
"""


class Ceph:
    """The cluster, and what an administrator does with it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def boot(self) -> None:
        """Switch the host on and make the cluster, with one pool and one user."""
        self.host.boot()
        self.host.push(self.conf(), "/etc/ceph/ceph.conf")
        for name, program, identity in ((MONITOR, "ceph-mon", "a"), (OSD, "ceph-osd", "0")):
            unit = UNIT.format(program=program, id=identity)
            self.host.push(unit, f"/etc/systemd/system/{name}.service")
        address, fsid = f"[v2:{self.host.address}:3300,v1:{self.host.address}:6789]", self._conf("fsid")
        self.host.run("sh", "-c", SET_UP, "set-up", address, fsid, timeout=120)
        self._wait_up()

    def destroy(self) -> None:
        self.host.destroy()

    # what VM hosts get

    def conf(self) -> str:
        """/etc/ceph/ceph.conf of everybody."""
        return CONF.format(address=self.host.address)

    def keyring(self, user: str = USER) -> str:
        """The keyring of a user."""
        return self.host.pull(f"/etc/ceph/ceph.client.{user}.keyring").decode()

    def key(self, user: str = USER) -> str:
        """The secret of a user."""
        return self.keyring(user).partition("key = ")[2].split()[0]

    # images

    def load(self, image: str, content: Path) -> str:
        """Make an image, as POOL/IMAGE, with this content; return its name."""
        self.host.push(content, "/root/content")
        self.host.run("rbd", "import", "--no-progress", "/root/content", image)
        return image

    def content(self, image: str) -> bytes:
        """What is on an image now."""
        self.host.run("sh", "-c", 'rm -f /root/exported; rbd export --no-progress "$1" /root/exported', "sh", image)
        return self.host.pull("/root/exported")

    def boots(self, image: str) -> int:
        """How often the tiny guest has booted from an image."""
        return int.from_bytes(self.content(image)[COUNTER], "little")

    def watchers(self, image: str) -> list[str]:
        """Addresses of those who have an image open."""
        found = json.loads(self.host.run("rbd", "status", "--format", "json", image).stdout)
        return [watcher["address"] for watcher in found["watchers"]]

    def remove(self, image: str) -> None:
        self.host.run("rbd", "rm", "--no-progress", image)

    # faults

    def kill_monitor(self) -> None:
        """It is dead; whoever calls is refused."""
        self.host.run("systemctl", "kill", "--signal=KILL", MONITOR)
        wait_until(lambda: self._state(MONITOR) == "failed", 30, "the monitor is dead")

    def stop_osd(self) -> None:
        """Requests are neither answered nor refused; what is on images stays."""
        self.host.run("systemctl", "stop", OSD)

    def heal(self) -> None:
        """Put right whatever was broken, and wait until all is up."""
        self.host.heal()
        self.host.run("systemctl", "start", MONITOR, OSD)
        self._wait_up()

    def blocklist(self, address: str) -> None:
        """Fence a client: whatever it writes from now on is refused."""
        self.host.run("ceph", "osd", "blocklist", "add", address)

    def _wait_up(self) -> None:
        wait_until(lambda: self._answers("osd", "stat")["num_up_osds"] == 1, 60, "the OSD is up")

    def _answers(self, *command: str) -> dict[str, Any]:
        out = self.host.run("ceph", "--connect-timeout", "30", "--format", "json", *command).stdout
        answer: dict[str, Any] = json.loads(out)
        return answer

    def _state(self, unit: str) -> str:
        return self.host.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def _conf(self, name: str) -> str:
        return self.conf().partition(f"{name} = ")[2].split("\n")[0]
