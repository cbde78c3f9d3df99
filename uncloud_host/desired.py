"""What etcd asks of this host: the entries that concern it, parsed once each."""

import json
from collections.abc import Callable, Container
from contextlib import suppress

from uncloud_host.etcd import Connection, KeyValue
from uncloud_host.facts import Desired, Gone, Invalid
from uncloud_host.mirror import Mirror
from uncloud_host.models import VM, InvalidEntry, is_uuid, names, parse
from uncloud_host.news import Told
from uncloud_host.store import Store


class Entries:
    """The entries below /vm/ that may concern this host. `runs_here` are VMs that concern it whatever is written."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        host: str,
        *,
        runs_here: Container[str],
        told: Callable[[Told], None],
    ) -> None:
        self._vms, self._claims = store.vms, store.claims
        self._runs_here = runs_here
        self._is_ours = names(host)
        self._parsed: dict[str, tuple[int, VM | Invalid]] = {}
        self.mirror = Mirror(
            connection,
            self._vms,
            select=self._concerns_us,
            told=told,
            hints=[self._claims],
            interesting=lambda claim: self.uuid(claim) in runs_here or self.entry(self.uuid(claim)) is not None,
        )

    def uuid(self, key: str) -> str:
        """Tell which VM an entry or a claim is about."""
        return key.removeprefix(self._vms).removeprefix(self._claims)

    def is_claim(self, key: str) -> bool:
        """Tell whether a key is that of a claim."""
        return key.startswith(self._claims)

    def uuids(self) -> set[str]:
        """List the VMs that have an entry here."""
        return {self.uuid(key) for key in self.mirror.replica.snapshot()}

    def entry(self, uuid: str) -> KeyValue | None:
        """Return the entry as last told; it may be gone from etcd, or there and not ours."""
        return self.mirror.replica.get(self._vms + uuid)

    def desired(self, uuid: str, entry: KeyValue | None) -> Desired:
        """Say what an entry asks for."""
        if entry is None:
            self._parsed.pop(uuid, None)
            return Gone(uuid)
        known = self._parsed.get(uuid)
        if known is None or known[0] != entry.mod_revision:
            known = self._parsed[uuid] = (entry.mod_revision, read(uuid, entry))
        return known[1]

    def leave(self, uuid: str) -> None:
        """Keep an entry no longer that has moved away from this host."""
        self.mirror.replica.forget(self._vms + uuid)

    def forget(self, others_than: Container[str]) -> None:
        """Forget what was read of entries that are gone."""
        self._parsed = {uuid: parsed for uuid, parsed in self._parsed.items() if uuid in others_than}

    def names_us(self, entry: KeyValue | None) -> bool:
        """Tell whether an entry, valid or not, is addressed to this host."""
        return entry is not None and self._is_ours(entry.value)

    def _concerns_us(self, key: str, value: bytes) -> bool:
        """Tell from the bytes, on the mirror's thread: of a hundred thousand entries most are not ours."""
        if self.uuid(key) in self._runs_here:
            return True
        return key.isprintable() and self._is_ours(value)


def read(uuid: str, entry: KeyValue) -> VM | Invalid:
    """Parse an entry, or say what is wrong with it."""
    try:
        if not is_uuid(uuid):
            return _invalid(uuid, entry, "the key does not end in a uuid in lower case")
        return VM(uuid, parse(entry.value), entry.create_revision, entry.mod_revision)
    except InvalidEntry as error:
        return _invalid(uuid, entry, str(error))


def _invalid(uuid: str, entry: KeyValue, problem: str) -> Invalid:
    reason, told = f"invalid entry: {problem}", None
    with suppress(ValueError, RecursionError, AttributeError):
        told = json.loads(entry.value).get("status_reason")
    return Invalid(uuid, reason, entry.create_revision, entry.mod_revision, told=told == reason)
