"""Show in etcd that this host is alive, and notice another machine that says it is this host."""

import json
import os
from datetime import UTC, datetime

from uncloud_host.etcd import Compare, Connection, Put
from uncloud_host.events import stamp
from uncloud_host.facts import Me

LEASE = 60  # seconds; shown again with every full pass


class Presence:
    """The key /host/NAME. Two machines with one name overwrite each other's, and so both find out."""

    def __init__(self, connection: Connection, prefix: str, me: Me, version: str) -> None:
        self._etcd, self._me, self._version = connection, me, version
        self._key = f"{prefix}/host/{me.host}"
        self._since = stamp(datetime.now(UTC))
        self._lease = 0
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        self._capacity = {"cpus": os.cpu_count(), "memory": memory}

    def show(self, vms: int) -> str:
        """Renew our presence; say who else lives under our name, if anybody does."""
        is_new = not self._lease or not self._etcd.renew(self._lease)
        lease = self._etcd.grant(LEASE) if is_new else self._lease
        shown = {
            "host": self._me.host,
            "version": self._version,
            "machine_id": self._me.machine_id,
            "boot_id": self._me.boot_id,
            "since": self._since,
            "capacity": self._capacity,
            "vms": vms,
        }
        value = json.dumps(shown).encode()
        _, (found,) = self._etcd.get(self._key)
        if is_new or found is None or found.value != value:
            unchanged = Compare(self._key, mod_revision=found.mod_revision if found else 0)
            self._etcd.txn([unchanged], [Put(self._key, value, lease)])
        self._lease = lease  # now: until then the key may be one of an earlier boot of ours
        return self._other(found.value, is_new=is_new) if found else ""

    def stay(self) -> None:
        """Renew it without a look at the others; what has expired stays so until it is shown again."""
        if self._lease:
            self._etcd.renew(self._lease)

    def _other(self, value: bytes, *, is_new: bool) -> str:
        machine_id, boot_id = _who(value)
        if machine_id != self._me.machine_id:
            return f"machine {machine_id}"
        if boot_id != self._me.boot_id and not is_new:  # else it is what we showed before we were booted
            return f"a clone of this machine (machine id {machine_id})"
        return ""


def _who(value: bytes) -> tuple[str, str]:
    try:
        found = json.loads(value)
        return str(found["machine_id"]), str(found["boot_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown", ""
