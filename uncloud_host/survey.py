"""Read etcd, systemd and /proc afresh for an audit: all that concerns this host, and whether the others are there."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from time import time

from uncloud_host import machine, processes, unit
from uncloud_host.audit import is_first
from uncloud_host.claiming import SHOULD_RUN
from uncloud_host.config import Config
from uncloud_host.desired import read
from uncloud_host.endings import conclude
from uncloud_host.etcd import Connection, EtcdError, KeyValue
from uncloud_host.events import Name
from uncloud_host.facts import Claim, Desired, Gone, Me
from uncloud_host.findings import Asked, Found, Key, Named, Shown
from uncloud_host.models import Status, host_and_status, host_of, is_uuid, names
from uncloud_host.observe import Units
from uncloud_host.spool import Spool
from uncloud_host.store import Store
from uncloud_host.strangers import Program
from uncloud_host.systemd import Systemd
from uncloud_host.troubles import Troubles
from uncloud_host.unit import State

AGENT = "uncloud-host.service"


class Survey:
    """The neighbours of an audit."""

    def __init__(self, known: Config, spool: Spool, troubles: Troubles) -> None:
        self.me = machine.me(known.host)
        self.store = Store(Connection(known.etcd), known.prefix)
        self._spool, self._troubles = spool, troubles
        self._systemd = Systemd()
        self._units = Units(self._systemd)
        self.problem = ""  # why etcd could not be read at the last look

    def look(self) -> Found:
        """Read everything. Raises SystemdError."""
        lasting = {(one.kind, one.about): _seconds(one.since) for one in self._troubles.all()}
        reader = _Reader(self.store, self.me, lasting.keys())
        with ThreadPoolExecutor(1) as beside:  # etcd answers while PID 1 does, on another core
            listing = beside.submit(reader.list)
            programs = processes.programs()  # before the units: one that has begun since is not taken for a stranger
            self._units.look([])
            names = [one.name for one in self._systemd.units() if one.state != State.ABSENT]
            programs = processes.alive(programs)
        self.problem, etcd = "", None
        try:
            listing.result()
            etcd = reader.read(self._units.observed.keys())
        except EtcdError as error:
            self.problem = str(error)
        ends = [end for _, end in self._spool.ends() if end]
        return Found(
            me=self.me,
            now=time(),
            agent=self._systemd.service(AGENT),
            units=self._units.observed,
            odd={name for name in names if unit.uuid_of(name) is None},
            programs=programs,
            mains=self._mains(programs),
            stopped={end.vm for end in ends if conclude(end)[0] == Name.STOPPED_BY_HAND},
            open=lasting,
            etcd=etcd,
        )

    def is_stopping(self) -> bool:
        """Tell whether the host is going down."""
        return self._systemd.is_stopping()

    def _mains(self, programs: list[Program]) -> dict[str, int]:
        """Ask for the main processes of units with several programs: of most there is one, and it is that."""
        names = Counter(program.unit for program in programs)
        several = [uuid for uuid in self._units.observed if names[unit.name(uuid)] > 1]
        return {uuid: self._systemd.main_process(unit.name(uuid)) for uuid in several}


class _Reader:
    """Reads what etcd says. Only what concerns us is parsed, of what may be a hundred thousand."""

    def __init__(self, store: Store, me: Me, lasting: Collection[Key]) -> None:
        self._store, self._me = store, me
        self._wanted = {about for _, about in lasting if is_uuid(about)}
        self._lasting = lasting
        self._hosts: dict[str, Shown] = {}
        self._audited: set[str] = set()
        self._named: dict[str, Named] = {}

    def list(self) -> None:
        """List all keys that may concern us. Raises EtcdError."""
        self._hosts = {
            kv.key.removeprefix(self._store.hosts): _shown(kv) for kv in self._store.listed(self._store.hosts)
        }
        audits = self._store.listed(self._store.audits, keys_only=True)
        self._audited = {kv.key.removeprefix(self._store.audits) for kv in audits}
        others = is_first(self._me.host, self._hosts, self._audited) or any(
            kind in ("host-silent", "unknown-host") for kind, _ in self._lasting
        )
        self._list_vms(self._hosts.keys() & self._audited if others else None)

    def read(self, units: Collection[str]) -> Asked:
        """Read the VMs that were found to concern us, and those of these units. Raises EtcdError."""
        vms: dict[str, tuple[Desired, Claim | None]] = {
            uuid: (read(uuid, entry) if entry else Gone(uuid), claim)
            for uuid, (entry, claim) in self._store.read_all(self._wanted.union(units)).items()
        }
        unseen = [host for host in self._named if host not in self._hosts and host not in self._audited]
        logged = {host for host in unseen if self._store.has_logged(host)}
        return Asked(vms, self._hosts, self._audited, self._named, logged)

    def _list_vms(self, there: Collection[str] | None) -> None:
        """Find the entries that concern us; count what names hosts that are not `there` (None: nobody asks)."""
        is_ours = names(self._me.host)
        for kv in self._store.listed(self._store.vms):
            uuid = kv.key.removeprefix(self._store.vms)
            if is_ours(kv.value):
                self._wanted.add(uuid)
            elif there is not None and is_uuid(uuid):
                self._count(uuid, kv.value, there)
        if there is None:
            return
        for kv in self._store.listed(self._store.claims):
            host = host_of(kv.value)
            if host and host not in there and host != self._me.host:
                self._named.setdefault(host, Named()).claims += 1

    def _count(self, uuid: str, value: bytes, there: Collection[str]) -> None:
        host, status = host_and_status(value)
        if not host or host in there:
            return
        named, should_run = self._named.setdefault(host, Named()), status in SHOULD_RUN
        named.run += should_run
        named.example = named.example or uuid * should_run
        named.all += should_run or status == Status.TO_STOP


def _shown(kv: KeyValue) -> Shown:
    """Read a presence; what cannot be read is there all the same."""
    found: Mapping[str, object] = {}
    with suppress(ValueError, RecursionError):
        value = json.loads(kv.value)
        found = value if isinstance(value, dict) else {}
    machine_id, boot_id = (str(found.get(name, "")) for name in ("machine_id", "boot_id"))
    return Shown(machine_id, boot_id, _seconds(str(found.get("since", ""))) or time())


def _seconds(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
