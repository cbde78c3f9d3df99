"""What etcd holds for VM hosts: entries, claims and logs, in the words of the rest of the program."""

import dataclasses
import json
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from uncloud_host.etcd import Compare, Connection, Delete, KeyValue, Put
from uncloud_host.events import stamp
from uncloud_host.models import VM
from uncloud_host.patch import patched
from uncloud_host.reconcile import Claim, Me

BATCH = 100  # operations in one transaction: etcd takes 128


class Refused(Exception):
    """The VM may not be started here now: another machine holds its claim, or the entry has just changed."""


class Store:
    """The keys below one prefix of etcd."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._etcd = connection
        self.vms = f"{prefix}/vm/"
        self.claims = f"{prefix}/claim/"
        self._logs = f"{prefix}/log/"

    def read(self, uuid: str) -> tuple[KeyValue | None, Claim | None]:
        """Read entry and claim of a VM at one revision, as the quorum sees them."""
        _, (entry, claim) = self._etcd.get(self.vms + uuid, self.claims + uuid)
        return entry, self._claim(claim) if claim else None

    def all_entries(self) -> Iterator[tuple[str, KeyValue]]:
        """List the entries of all hosts, each with the uuid that its key says."""
        for page in self._etcd.pages(self.vms):
            for kv in page.entries:
                yield kv.key.removeprefix(self.vms), kv

    def all_claims(self) -> Iterator[Claim]:
        """List the claims of all machines."""
        for page in self._etcd.pages(self.claims):
            yield from map(self._claim, page.entries)

    def claims_of(self, machine_id: str) -> Iterator[Claim]:
        """List the claims of one machine."""
        for page in self._etcd.pages(self.claims):
            for kv in page.entries:
                if machine_id.encode() in kv.value and (claim := self._claim(kv)).machine_id == machine_id:
                    yield claim

    def claim(self, vm: VM, me: Me) -> Claim:
        """Take the claim on a VM, or find that we have it. Raises Refused.

        The transaction is bound to the entry's revision: nothing is started for an entry that is not there any more.
        """
        since = stamp(datetime.now(UTC))
        new = Claim(vm.uuid, me.host, me.machine_id, me.boot_id, uuids.uuid4().hex, vm.create_revision, since)
        key, entry = self.claims + vm.uuid, self.vms + vm.uuid
        unchanged = Compare(entry, mod_revision=vm.mod_revision)
        put = Put(key, _claim_value(new))
        result = self._etcd.txn([unchanged, Compare(key, create_revision=0)], [put], [entry, key])
        if result.succeeded:
            return dataclasses.replace(new, mod_revision=result.revision)
        found, held = result.entries
        if found is None or found.mod_revision != vm.mod_revision or held is None:
            raise Refused("its entry has just changed")
        old = self._claim(held)
        if old.machine_id != me.machine_id:
            raise Refused(f"it is claimed by {old.host or 'somebody'} (machine {old.machine_id or 'unknown'})")
        if (old.boot_id, old.entry) == (me.boot_id, vm.create_revision):
            return old
        # Ours, but of an earlier boot of this host or of an earlier entry with this uuid.
        result = self._etcd.txn([unchanged, Compare(key, mod_revision=held.mod_revision)], [put])
        if not result.succeeded:
            raise Refused("its entry or its claim has just changed")
        return dataclasses.replace(new, mod_revision=result.revision)

    def release(self, claim: Claim) -> bool:
        """Give up a claim; False if it is not the one that was read."""
        key = self.claims + claim.uuid
        return self._etcd.txn([Compare(key, mod_revision=claim.mod_revision)], [Delete(key)]).succeeded

    def confirm(self, claim: Claim) -> bool:
        """End a hold, as a person wants it; False if the claim is not the one that was read."""
        key, new = self.claims + claim.uuid, dataclasses.replace(claim, held=False)
        return self._etcd.txn([Compare(key, mod_revision=claim.mod_revision)], [Put(key, _claim_value(new))]).succeeded

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
                Put(f"{self._logs}{host}/{ns:020d}-{record['id']}", json.dumps(record, ensure_ascii=False).encode())
                for ns, record in records[start : start + BATCH]
            ]
            new = [Compare(put.key, create_revision=0) for put in puts]
            if not self._etcd.txn(new, puts).succeeded:
                for compare, put in zip(new, puts, strict=True):  # some are there: the answer to a batch was lost
                    self._etcd.txn([compare], [put])

    def _claim(self, kv: KeyValue) -> Claim:
        """Read a claim. One that cannot be read is somebody else's: it has no machine id."""
        uuid = kv.key.removeprefix(self.claims)
        try:
            found = json.loads(kv.value)
            host, machine_id, boot_id, id_ = (str(found[name]) for name in ("host", "machine_id", "boot_id", "id"))
            held, replaces = found.get("held"), str(found.get("replaces", ""))
            return Claim(
                uuid, host, machine_id, boot_id, id_, int(found["entry"]), str(found["since"]), kv.mod_revision,
                held if isinstance(held, bool) else None, replaces,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError):
            return Claim(uuid, "", "", "", "", 0, "", kv.mod_revision)


def _claim_value(claim: Claim) -> bytes:
    told = dataclasses.asdict(claim)
    del told["uuid"], told["mod_revision"]  # the key says the one, etcd the other
    optional = {name: told.pop(name) for name in ("held", "replaces")}
    return json.dumps(told | {name: value for name, value in optional.items() if value not in (None, "")}).encode()
