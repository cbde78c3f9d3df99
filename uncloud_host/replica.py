"""The entries below a prefix that somebody selects, as etcd told them last. One thread applies; any thread may ask."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from uncloud_host.drift import Comparison, Foreign
from uncloud_host.etcd import Batch, Connection, KeyValue
from uncloud_host.news import Changed

Select = Callable[[str, bytes], bool]


@dataclass(slots=True)
class Listing:
    """What a list has brought so far, page by page."""

    select: Select
    kept: dict[str, KeyValue] = field(default_factory=dict)
    foreign: Foreign = field(default_factory=Foreign)

    def add(self, entries: Iterable[KeyValue]) -> None:
        """Take a page."""
        for entry in entries:
            if self.select(entry.key, entry.value):
                self.kept[entry.key] = entry
            else:
                self.foreign.add(entry.key, entry.mod_revision)


class Replica:
    """What is kept, what is known of the others, and up to which revision.

    Changes come from several watches: number 0 is that of the entries. Of the others, `hints`, nothing is kept; their
    keys are told if they are `interesting`.
    """

    def __init__(self, select: Select, interesting: Callable[[str], bool], hints: int) -> None:
        self._select, self._interesting = select, interesting
        self._lock = threading.Lock()  # guards `_kept`; the rest is changed by the mirror's thread only
        self._kept: dict[str, KeyValue] = {}
        self._foreign = Foreign()
        self.applied = [0] * (1 + hints)  # by watch: the revision up to which all is applied

    def snapshot(self) -> dict[str, KeyValue]:
        """Return all kept entries, as of one revision."""
        with self._lock:
            return dict(self._kept)

    def get(self, key: str) -> KeyValue | None:
        """Return a kept entry."""
        with self._lock:
            return self._kept.get(key)

    def forget(self, key: str) -> None:
        """Keep an entry no longer that is not selected any more. One that is selected (again) stays."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and not self._select(key, kept.value):
                del self._kept[key]

    def listing(self) -> Listing:
        """Begin a list; it counts when it is complete, see `replace`."""
        return Listing(self._select)

    def replace(self, listing: Listing, revision: int) -> None:
        """Take what was listed at a revision for the truth."""
        listing.foreign.settle()
        with self._lock:
            self._kept = listing.kept
        self._foreign = listing.foreign
        self.applied = [revision] * len(self.applied)

    def skip_hints(self, revision: int) -> None:
        """Do without the hints up to a revision."""
        self.applied[1:] = [revision] * (len(self.applied) - 1)

    def apply(self, batch: Batch) -> Changed | None:
        """Apply changes; tell which are new and concern somebody."""
        if not batch.changes:
            return None
        told = self._apply_entries(batch) if batch.watch == 0 else self._apply_hints(batch)
        self.applied[batch.watch] = max(self.applied[batch.watch], batch.changes[-1][3])
        return told if told.keys else None

    def _apply_entries(self, batch: Batch) -> Changed:
        changed: dict[str, int] = {}
        deleted: dict[str, int] = {}
        applied, kept, select, note = self.applied[0], self._kept, self._select, self._foreign.note
        with self._lock:
            for key, value, create_revision, mod_revision in batch.changes:
                if mod_revision <= applied:
                    continue
                if value is None:
                    if kept.pop(key, None) is not None:
                        changed[key] = deleted[key] = mod_revision
                elif key in kept or select(key, value):
                    kept[key] = KeyValue(key, value, create_revision, mod_revision)
                    changed[key] = mod_revision
                else:
                    note(key, mod_revision)
        return Changed(changed, deleted)

    def _apply_hints(self, batch: Batch) -> Changed:
        applied, interesting = self.applied[batch.watch], self._interesting
        new = {key: revision for key, _, _, revision in batch.changes if revision > applied and interesting(key)}
        return Changed(new, {})

    def compare(self, connection: Connection, prefix: str) -> Comparison:
        """Begin a comparison with etcd. Entries may be applied while it goes on."""
        return Comparison(connection, prefix, select=self._select, kept=self._kept, foreign=self._foreign)

    def agrees(self, comparison: Comparison) -> None:
        """Take over what a comparison that found nothing wrong has learnt.

        What agrees up to a revision need not be watched from before it: compaction hurts less.
        """
        comparison.foreign.take_recent(self._foreign)
        self._foreign = comparison.foreign
        self.applied[0] = max(self.applied[0], comparison.clean_at)
