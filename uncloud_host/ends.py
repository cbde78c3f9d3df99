"""What the recorders of VMs wrote down: told at once, and written into the entry where it means something for it.

A record stays on disk until it has had all its consequences: an operator's stop that was seen while etcd was away, or
before an agent died, still becomes STOP.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from uncloud_host import journal, reconcile, spool
from uncloud_host.act import Hands
from uncloud_host.claims import Claims
from uncloud_host.desired import Entries
from uncloud_host.endings import End
from uncloud_host.facts import Observed
from uncloud_host.observe import ABSENT
from uncloud_host.spool import Spool
from uncloud_host.telling import Teller
from uncloud_host.unit import SLICE, State
from uncloud_host.unrecorded import Unrecorded

logger = logging.getLogger(__name__)

AT_ONCE = 2.0  # seconds between the stops that one command asks for
MANY = 16  # stops are remembered


class Ends:
    """The recorded ends of runs on this host. `alive` is called between them: a hundred may take their time."""

    def __init__(
        self,
        kept: Spool,
        teller: Teller,
        unrecorded: Unrecorded,
        claims: Claims,
        entries: Entries,
        hands: Hands,
        alive: Callable[[], None],
    ) -> None:
        self._unrecorded, self._alive = unrecorded, alive
        self._spool, self._teller, self._claims, self._entries, self._hands = kept, teller, claims, entries, hands
        self._waiting: dict[str, list[tuple[Path, End]]] = {}
        self._many: list[End] = []  # lately

    def tell(self, changed: Mapping[str, tuple[Observed, Observed]]) -> set[str]:
        """Tell all that are new; return the VMs for which one may have to be written into the entry.

        changed: units, as they were and as they are.
        """
        self._tell_recorded()
        recalled = {uuid: (ABSENT, self._hands.units.get(uuid)) for uuid in self._unrecorded.recalled()}
        found: list[End] = []
        for uuid, seen in (recalled | dict(changed)).items():
            self._alive()
            found += self._unrecorded.find(uuid, *seen)
        for end in found:
            self._alive()
            self._record(end)
        if found:
            self._tell_recorded()
        return set(self._waiting)

    def _record(self, end: End) -> None:
        """Write down what its recorder did not, if it means something for the entry; else tell it at once."""
        try:
            if reconcile.has_consequences(end):
                spool.write_end(end)
                return
        except OSError as error:
            logger.warning("the end of VM %s cannot be written down: %s", end.vm, error)
        self._look_for_a_stop(self._teller.over(end))

    def _tell_recorded(self) -> None:
        self._waiting = {}
        for path, recorded in self._recorded():
            self._alive()
            if recorded is None:
                logger.warning("%s cannot be read and is removed", path)
                _remove(path)
                continue
            end = self._teller.over(self._as_one_of_many(recorded))
            self._look_for_a_stop(end)
            if reconcile.has_consequences(end):
                self._waiting.setdefault(end.vm, []).append((path, end))
            else:
                _remove(path)
                spool.remove_intent(end.vm, end.invocation)
        self._teller.went_down()

    def _recorded(self) -> Iterator[tuple[Path, End | None]]:
        """List the records, and those that are written while we look."""
        done: set[Path] = set()
        while found := [pair for pair in self._spool.ends() if pair[0] not in done]:
            done |= {path for path, _ in found}
            yield from found

    def _look_for_a_stop(self, end: End) -> None:
        """Ask the journal about a unit that is gone although systemd should have restarted it, while nobody looked."""
        is_gone = self._hands.units.get(end.vm).state == State.ABSENT
        if end.by == "itself" and not end.is_after and is_gone and journal.was_stopped(end.vm, end.invocation):
            self.stopped_between(end.vm, end.invocation)

    def stopped_between(self, uuid: str, invocation: str) -> None:
        """Record that somebody else stopped a unit which waited to be restarted: no recorder runs then. Raises
        SystemdError."""
        if not spool.read_intent(uuid, invocation):
            with_all = self._hands.systemd.stops(SLICE)
            by, why = ("many", f"{SLICE}, all VMs of this host") if with_all else ("operator", "")
            end = End(uuid, invocation, by, why=why, result="success", ended=time.time(), is_after=True)
            with suppress(OSError):
                spool.write_end(end)

    def _as_one_of_many(self, end: End) -> End:
        """Tell the last of many VMs that were stopped at once from one that was stopped alone: the others are over."""
        if end.by == "many":
            self._many.append(end)
            del self._many[:-MANY]
        elif end.by == "operator" and (found := [one for one in self._many if abs(one.asked - end.asked) < AT_ONCE]):
            return replace(end, by="many", why=found[0].why)
        return end

    def write(self, uuid: str) -> bool:
        """Write what follows for the entry as it is now; False if its newest value must be waited for."""
        for path, end in self._waiting.get(uuid, []):
            entry, claim = self._claims.read(uuid)  # not the mirror's: our own RUNNING may not have come back yet
            desired = self._entries.desired(uuid, entry)
            actions = reconcile.after(end, desired, claim, self._hands.me, now=time.time())
            if all(self._hands.do(uuid, entry, action) for action in actions):
                _remove(path)
            if actions:
                return False
        return True


def _remove(path: Path) -> None:
    """Remove a record; on a disk that has become read-only it stays, and is not told again."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
