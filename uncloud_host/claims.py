"""The claims on VMs that concern this host, kept as they were last read or written.

What is kept answers only "is all in order?"; before a VM is stopped, released or held, entry and claim are read anew.
A kept claim is dropped when the watch tells of another revision of it.
"""

from collections.abc import Collection, Iterable

from uncloud_host.actions import Secure
from uncloud_host.etcd import KeyValue
from uncloud_host.facts import Claim, Me
from uncloud_host.models import VM
from uncloud_host.store import Refused, Store


class Claims:
    """Claims by the VM's uuid."""

    def __init__(self, store: Store, me: Me) -> None:
        self._store, self._me = store, me
        self._kept: dict[str, Claim] = {}

    def mine(self) -> set[str]:
        """List the VMs that this machine has claimed, as far as is known."""
        return {uuid for uuid, claim in self._kept.items() if claim.is_of(self._me)}

    def get(self, uuid: str) -> Claim | None:
        """Return the claim as it was last known; None if that is nothing."""
        return self._kept.get(uuid)

    def all(self) -> dict[str, Claim]:
        """Return all that are known."""
        return self._kept

    def changed(self, uuid: str, mod_revision: int) -> None:
        """Forget a claim if it is not as of this revision: its own writer has it already."""
        if (kept := self._kept.get(uuid)) and kept.mod_revision != mod_revision:
            del self._kept[uuid]

    def read_all(self, uuids: Collection[str]) -> dict[str, KeyValue | None]:
        """Read many entries with their claims; return the entries."""
        return {uuid: self._keep(uuid, *found) for uuid, found in self._store.read_all(uuids).items()}

    def read(self, uuid: str) -> tuple[KeyValue | None, Claim | None]:
        """Read entry and claim of a VM at one revision."""
        entry = self._keep(uuid, *self._store.read(uuid))
        return entry, self.get(uuid)

    def take(self, vm: VM) -> Claim:
        """Claim a VM for this machine. Raises Refused."""
        try:
            claim = self._kept[vm.uuid] = self._store.claim(vm, self._me)
        except Refused as refusal:
            self._keep(vm.uuid, None, refusal.claim)
            raise
        return claim

    def secure(self, wanted: Secure) -> bool:
        """Write a claim on what runs here; False if something has changed meanwhile."""
        written = self._store.secure(wanted)
        self._keep(wanted.claim.uuid, None, written)
        return written is not None

    def release(self, claim: Claim) -> bool:
        """Give up a claim; False if it has changed meanwhile."""
        self._kept.pop(claim.uuid, None)
        return self._store.release(claim)

    def forget(self, others_than: Iterable[str]) -> None:
        """Forget claims of other machines on VMs that concern us no more."""
        keep = {*others_than} | self.mine()
        self._kept = {uuid: claim for uuid, claim in self._kept.items() if uuid in keep}

    def _keep(self, uuid: str, entry: KeyValue | None, claim: Claim | None) -> KeyValue | None:
        if claim:
            self._kept[uuid] = claim
        else:
            self._kept.pop(uuid, None)
        return entry
