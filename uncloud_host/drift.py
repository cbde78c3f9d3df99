"""Notice what a watch cannot: that entries are other than we think.

An etcd that was wiped, or restored from a backup, and has since grown past the revision we know looks to a watch like
one that never went away: same cluster id, higher revision. So the keys are listed from time to time (keys and revisions
only) and compared. Entries that are not kept are known by one number each, 8 bytes; only if that number is new is the
value read, to see whether the entry should have been kept.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from uncloud_host.etcd import Connection, KeyValue

PAGE = 5000  # keys only: some 100 bytes each
READS = 100  # etcd takes at most 128 operations in one transaction
SECOND_LOOK = 2.0
NOTED = 250_000


class Foreign:
    """What is known of the entries that are not kept: a number made of key and mod_revision."""

    def __init__(self) -> None:
        self._sorted = array("q")
        self._recent = array("q")

    def add(self, key: str, mod_revision: int) -> None:
        """Remember a listed version of an entry."""
        self._recent.append(hash((key, mod_revision)))

    def note(self, key: str, mod_revision: int) -> None:
        """Remember a version that the watch told. Beyond a limit it is forgotten: the next comparison reads it."""
        if len(self._recent) < NOTED:
            self._recent.append(hash((key, mod_revision)))

    def settle(self) -> None:
        """Make ready for `knows`."""
        self._sorted = array("q", sorted(self._sorted + self._recent))
        self._recent = array("q")

    def knows(self, key: str, mod_revision: int) -> bool:
        """Tell whether this version was remembered when it was last settled."""
        number = hash((key, mod_revision))
        place = bisect_left(self._sorted, number)
        return place < len(self._sorted) and self._sorted[place] == number

    def take_recent(self, other: "Foreign") -> None:
        """Take over what another one has remembered since it was settled."""
        self._recent.extend(other._recent)  # noqa: SLF001


class Comparison:
    """One comparison of what is kept with what etcd holds."""

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        *,
        select: Callable[[str, bytes], bool],
        kept: Mapping[str, KeyValue],
        foreign: Foreign,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._select = select
        self._kept = kept
        self._known = foreign
        self._suspects: dict[str, int] = {}  # key -> its mod_revision in etcd, 0 if it is not there
        self.foreign = Foreign()  # what is known after this comparison
        self.drifted: list[str] = []
        self.clean_at = 0  # a revision at which all agreed

    def steps(self, proved: Callable[[], int]) -> Iterator[float]:
        """Do it in steps, so that changes are applied in between; each yields the seconds until the next one.

        A suspect is looked at twice, the second time only after the watch has told everything (`proved`) that the list
        contained: a change may be under way.
        """
        self._known.settle()
        absent = set(self._kept)
        revision = 0
        for page in self._connection.pages(self._prefix, keys_only=True, size=PAGE):
            revision = page.position.revision
            new = [listed for listed in page.entries if not self._agrees(listed, revision)]
            absent.difference_update(listed.key for listed in page.entries)
            for start in range(0, len(new), READS):
                self._read(new[start : start + READS])
                yield 0.0
            yield 0.0
        for key in absent:
            mine = self._kept.get(key)
            if mine is not None and mine.mod_revision <= revision:
                self._suspects[key] = 0
        if not self._suspects:
            self.clean_at = revision
            return
        yield SECOND_LOOK
        while proved() < revision:
            yield SECOND_LOOK / 4
        self._look_again()

    def _agrees(self, listed: KeyValue, revision: int) -> bool:
        """Compare a listed key; False if its value must be read to tell."""
        mine = self._kept.get(listed.key)
        if mine is not None:
            if mine.mod_revision != listed.mod_revision and mine.mod_revision <= revision:
                self._suspects[listed.key] = listed.mod_revision
            return True
        if not self._known.knows(listed.key, listed.mod_revision):
            return False
        self.foreign.add(listed.key, listed.mod_revision)
        return True

    def _read(self, unknown: list[KeyValue]) -> None:
        for found in self._connection.get(*(listed.key for listed in unknown))[1]:
            if found is None or found.key in self._kept:
                continue
            if self._select(found.key, found.value):
                self._suspects[found.key] = found.mod_revision
            else:
                self.foreign.add(found.key, found.mod_revision)

    def _look_again(self) -> None:
        keys = sorted(self._suspects)
        for start in range(0, len(keys), READS):
            some = keys[start : start + READS]
            for key, found in zip(some, self._connection.get(*some)[1], strict=True):
                mine = self._kept.get(key)
                unchanged = (found.mod_revision if found else 0) == self._suspects[key]
                wanted = mine is not None or (found is not None and self._select(key, found.value))
                same = (mine.mod_revision if mine else 0) == (found.mod_revision if found else 0)
                if unchanged and wanted and not same:
                    self.drifted.append(key)
