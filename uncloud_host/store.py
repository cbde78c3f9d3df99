"""What etcd holds for VM hosts: entries, claims and logs, in the words of the rest of the program."""

import dataclasses
import json
import uuid as uuids
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice

from uncloud_host import runtime
from uncloud_host.actions import Secure
from uncloud_host.claiming import is_newer
from uncloud_host.etcd import PAGE, Compare, Connection, Delete, EtcdError, KeyValue, Page, Put, Watch
from uncloud_host.events import clean, stamp
from uncloud_host.facts import Claim, Me
from uncloud_host.models import VM, is_uuid
from uncloud_host.patch import patched
from uncloud_host.runtime import Run

AUDITED = 1200  # seconds that the result of an audit stays
BATCH = 100  # operations in one transaction: etcd takes 128
ATTEMPTS = 5  # at writing what somebody else seems to write at the same time

Read = tuple[KeyValue | None, Claim | None]  # an entry and the claim on its VM


class Refused(Exception):
    """The VM may not be started here now: another machine holds its claim, or the entry has just changed."""

    def __init__(self, reason: str, claim: Claim | None = None) -> None:
        """`claim` is the one that is in the way: another machine's, or ours, and held."""
        super().__init__(reason)
        self.claim = claim


class Store:
    """The keys below one prefix of etcd."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._etcd = connection
        self.vms = f"{prefix}/vm/"
        self.claims = f"{prefix}/claim/"
        self.logs = f"{prefix}/log/"
        self._runs = f"{prefix}/runtime/"
        self.hosts = f"{prefix}/host/"
        self.audits = f"{prefix}/audit/"

    def read(self, uuid: str) -> Read:
        """Read entry and claim of a VM at one revision, as the quorum sees them."""
        return self.read_all([uuid])[uuid]

    def read_all(self, uuids: Collection[str]) -> dict[str, Read]:
        """Read entries and claims of many VMs, each pair at one revision."""
        listed, found = list(uuids), dict[str, Read]()
        for start in range(0, len(listed), BATCH // 2):
            some = listed[start : start + BATCH // 2]
            keys = [key for uuid in some for key in (self.vms + uuid, self.claims + uuid)]
            _, values = self._etcd.get(*keys)
            for uuid, entry, claim in zip(some, values[::2], values[1::2], strict=True):
                found[uuid] = (entry, self.as_claim(claim) if claim else None)
        return found

    def listed(self, prefix: str, *, keys_only: bool = False) -> Iterator[KeyValue]:
        """List keys from one member of etcd, which is cheap, but not as they were before this call."""
        proved = self._etcd.position(prefix).revision
        pages = self._etcd.pages(prefix, keys_only=keys_only, serializable=True)
        first = next(pages)
        if first.position.revision < proved:  # that member lags behind, or is cut off
            yield from (kv for page in self._etcd.pages(prefix, keys_only=keys_only) for kv in page.entries)
            return
        yield from first.entries
        for page in pages:
            yield from page.entries

    def has_logged(self, host: str) -> bool:
        """Tell whether a host has ever told anything."""
        return bool(next(self._etcd.pages(f"{self.logs}{host}/", keys_only=True, size=1)).entries)

    def write_audit(self, host: str, audit: Mapping[str, object]) -> None:
        """Show the result of an audit for the next 20 minutes."""
        lease = self._etcd.grant(AUDITED)
        self._etcd.txn([], [Put(self.audits + host, json.dumps(audit).encode(), lease)])

    def claims_of(self, me: Me) -> Iterator[Claim]:
        """List the claims of one machine; a key that is no VM's is nobody's."""
        machine_id = me.machine_id.encode()
        for page in self._etcd.pages(self.claims):
            for kv in page.entries:
                if machine_id in kv.value and (claim := self.as_claim(kv)).is_of(me) and is_uuid(claim.uuid):
                    yield claim

    def claim(self, vm: VM, me: Me) -> Claim:
        """Take the claim on a VM, or find that we have it. Raises Refused.

        The transaction is bound to the entry's revision: nothing is started for an entry that is not there any more.
        """
        since = stamp(datetime.now(UTC))
        new = Claim(vm.uuid, me.host, me.machine_id, me.boot_id, uuids.uuid4().hex, vm.create_revision, since)
        key, entry = self.claims + vm.uuid, self.vms + vm.uuid
        unchanged = Compare(entry, mod_revision=vm.mod_revision)
        result = self._etcd.txn(
            [unchanged, Compare(key, create_revision=0)], [Put(key, _claim_value(new))], [entry, key]
        )
        if result.succeeded:
            return dataclasses.replace(new, mod_revision=result.revision)
        found, held = result.entries
        if found is None or found.mod_revision != vm.mod_revision or held is None:
            raise Refused("its entry has just changed")
        old = self.as_claim(held)
        if not old.is_of(me):
            raise Refused(f"it is claimed by {old.host or 'somebody'} (machine {old.machine_id or 'unknown'})", old)
        if (old.boot_id, old.entry, old.held) == (me.boot_id, vm.create_revision, None):
            return old
        if old.held is not None and old.boot_id == me.boot_id and not is_newer(vm, old):
            raise Refused("it is held", old)
        # Ours, but of an earlier boot of this host, of an earlier entry with this uuid, or held until now. Whom it
        # replaces may still be away, and has to hear it.
        new = dataclasses.replace(new, replaces=old.replaces)
        put = Put(key, _claim_value(new))
        result = self._etcd.txn([unchanged, Compare(key, mod_revision=held.mod_revision)], [put])
        if not result.succeeded:
            raise Refused("its entry or its claim has just changed")
        return dataclasses.replace(new, mod_revision=result.revision)

    def secure(self, wanted: Secure) -> Claim | None:
        """Write our claim on what runs here; None if claim or entry are not what they were when that was decided."""
        claim, key, entry = wanted.claim, self.claims + wanted.claim.uuid, self.vms + wanted.claim.uuid
        unchanged = [_as_read(entry, wanted.entry), _as_read(key, claim.mod_revision)]
        result = self._etcd.txn(unchanged, [Put(key, _claim_value(claim))])
        return dataclasses.replace(claim, mod_revision=result.revision) if result.succeeded else None

    def confirm(self, claim: Claim) -> bool:
        """Say for a person that what a hold did not believe is true; False if the claim has changed meanwhile."""
        confirmed = _claim_value(dataclasses.replace(claim, held=False))
        key = self.claims + claim.uuid
        return self._etcd.txn([_as_read(key, claim.mod_revision)], [Put(key, confirmed)]).succeeded

    def take_over(self, entry: KeyValue, claim: Claim, alive: Compare) -> bool:
        """Give a VM and its claim to another host at once; False if anything is not as it was read.

        `claim` is the new one, at the revision of the one that it replaces. Raises ValueError if the entry is no JSON.
        """
        key = self.claims + claim.uuid
        unchanged = [_as_read(entry.key, entry.mod_revision), _as_read(key, claim.mod_revision), alive]
        puts = [Put(entry.key, patched(entry.value, {"host": claim.host})), Put(key, _claim_value(claim))]
        return self._etcd.txn(unchanged, puts).succeeded

    def alive(self, host: str) -> tuple[Me | None, Compare]:
        """Tell who shows signs of life under a host's name, and what to compare so that it stays so."""
        key = self.hosts + host
        _, (found,) = self._etcd.get(key)
        unchanged = _as_read(key, found.mod_revision if found else 0)
        if found is None:
            return None, unchanged
        try:
            told = json.loads(found.value)
            return Me(host, str(told["machine_id"]), str(told["boot_id"])), unchanged
        except (ValueError, KeyError, TypeError, RecursionError):
            return Me(host, "", ""), unchanged

    def release(self, claim: Claim) -> bool:
        """Give up a claim; False if it is not the one that was read."""
        key = self.claims + claim.uuid
        return self._etcd.txn([_as_read(key, claim.mod_revision)], [Delete(key)]).succeeded

    def set_status(self, entry: KeyValue, changes: Mapping[str, str | None]) -> bool:
        """Change our members of an entry and no other byte; False if it has changed since it was read.

        Raises ValueError if the value is no JSON object: such a value is never written to.
        """
        new = patched(entry.value, changes)
        if new == entry.value:
            return True
        compare = [Compare(entry.key, mod_revision=entry.mod_revision)]
        return self._etcd.txn(compare, [Put(entry.key, new)]).succeeded

    def log(self, host: str, records: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        """Append records (nanoseconds since 1970, record) to the host's log; what is there already stays as it is."""
        for start in range(0, len(records), BATCH):
            puts = [
                Put(f"{self.logs}{host}/{ns:020d}-{record['id']}", json.dumps(record, ensure_ascii=False).encode())
                for ns, record in records[start : start + BATCH]
            ]
            new = [Compare(put.key, create_revision=0) for put in puts]
            if not self._etcd.txn(new, puts).succeeded:
                for compare, put in zip(new, puts, strict=True):  # some are there: the answer to a batch was lost
                    self._etcd.txn([compare], [put])

    def write_runs(self, runs: Sequence[Run]) -> None:
        """Write the records of runs, no more than one transaction takes; a closed one stays as it is."""
        for _ in range(ATTEMPTS):
            _, found = self._etcd.get(*(self._runs + run.path for run in runs))
            wanted = [
                (run, kv.mod_revision if kv else 0)
                for run, kv in zip(runs, found, strict=True)
                if runtime.may_write(run, kv.value if kv else None)
            ]
            if not wanted:
                return
            puts = [
                Put(self._runs + run.path, json.dumps(run.record(), ensure_ascii=False).encode()) for run, _ in wanted
            ]
            unchanged = [_as_read(put.key, revision) for put, (_, revision) in zip(puts, wanted, strict=True)]
            if self._etcd.txn(unchanged, puts).succeeded:
                return  # else the answer to an attempt was lost: then it is there now
        raise EtcdError(f"etcd: somebody else writes to {self._runs}", "other")

    def runs(self, vm: str = "") -> Iterator[tuple[str, bytes]]:
        """List the records of runs, of one VM or of all, each with its path below /runtime/."""
        for page in self._etcd.pages(f"{self._runs}{vm}/" if vm else self._runs):
            for kv in page.entries:
                yield kv.key.removeprefix(self._runs), kv.value

    def forget_runs(self, host: str, limit: int) -> None:
        """Delete the records of a host's runs that ended before `limit`, in milliseconds since 1970."""
        for page in self._etcd.pages(self._runs, keys_only=True):
            old = [kv.key for kv in page.entries if runtime.may_be_old(kv.key.rpartition("/")[2], limit)]
            for start in range(0, len(old), BATCH):
                _, found = self._etcd.get(*old[start : start + BATCH])
                for kv in found:
                    if kv and runtime.is_old(kv.key.removeprefix(self._runs), kv.value, host, limit):
                        self._etcd.txn([_as_read(kv.key, kv.mod_revision)], [Delete(kv.key)])

    def prune(self, host: str, *, before: int, most: int) -> None:
        """Delete the host's records from before a time (nanoseconds since 1970), and the oldest beyond so many."""
        start = f"{self.logs}{host}/"
        self._etcd.txn([], [Delete(start, f"{start}{before:020d}")])
        surplus = self._etcd.count(start) - most
        if surplus > 0:
            pages = self._etcd.pages(start, keys_only=True, size=min(surplus + 1, PAGE))
            for kept in islice(chain.from_iterable(page.entries for page in pages), surplus, surplus + 1):
                self._etcd.txn([], [Delete(start, kept.key)])

    def logged(self, host: str | None) -> Iterator[Page]:
        """List the records of one host, or of all, each host's oldest first."""
        return self._etcd.pages(f"{self.logs}{host}/" if host else self.logs)

    def follow(self, host: str | None, revision: int, *, interval: float) -> Watch:
        """Watch for records that are written from a revision on."""
        return self._etcd.watch([(f"{self.logs}{host}/" if host else self.logs, revision)], interval=interval)

    def as_claim(self, kv: KeyValue) -> Claim:
        """Read a claim. One that cannot be read is somebody else's: it has no machine id."""
        uuid = kv.key.removeprefix(self.claims)
        try:
            found = json.loads(kv.value)
            host, machine_id, boot_id, id_ = (str(found[name]) for name in ("host", "machine_id", "boot_id", "id"))
            host = clean(host)  # it is copied into entries, where nothing may stand that makes them invalid
            entry, since = int(found["entry"]), str(found["since"])
            held = bool(found["held"]) if found.get("held") is not None else None
            why, said, replaces = (str(found.get(name, "")) for name in ("why", "said", "replaces"))
            return Claim(uuid, host, machine_id, boot_id, id_, entry, since, held, why, said, replaces, kv.mod_revision)
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError, OverflowError):
            return Claim(uuid, "", "", "", "", 0, "", mod_revision=kv.mod_revision)


def _as_read(key: str, mod_revision: int) -> Compare:
    """Require that a key is as it was read; 0: that it does not exist."""
    return Compare(key, mod_revision=mod_revision) if mod_revision else Compare(key, create_revision=0)


def _claim_value(claim: Claim) -> bytes:
    told = dataclasses.asdict(claim)
    del told["uuid"], told["mod_revision"]  # the key says the one, etcd the other
    return json.dumps({name: value for name, value in told.items() if value not in (None, "")}).encode()
