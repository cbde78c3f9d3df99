"""Mirror a prefix of etcd: list it, watch it, and never believe that silence means that nothing changed.

The list is paged at one revision and the watch goes on from the next one. It is resumed after the last change that was
applied. Doubt (a lost stream, no answer, a member that lags) means another stream from there on, without a new list:
etcd must survive that a thousand hosts lose it at once. It lists again only if history was compacted away or went
backwards, or if a comparison (see `drift`) finds that we are wrong.

Kept are only entries that somebody selects; others pass by and cost a few bytes. Consumers are told which keys changed
and look up what they are now: all that is told here is a hint. One thread runs it; any may ask its `replica`.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from uncloud_host.etcd import PROGRESS, Batch, Connection, EtcdError, Position, Watch, WatchError
from uncloud_host.news import Lost, Synced, Told
from uncloud_host.replica import Replica, Select

logger = logging.getLogger(__name__)

SILENT = 2  # so many intervals without an answer are doubt
CHECK = 3  # every so many intervals a read by the quorum proves where history is
CATCH_UP = 0.1
HEALTHY = 1.0
DOUBTS = 2
WAIT, WAIT_UNREACHABLE = 5.0, 0.8  # longest pauses; a refused connection costs nobody much, and back means back


class _Relist(Exception):
    """What we have cannot be brought up to date by watching."""

    def __init__(self, reason: str, *, regressed: bool = False) -> None:
        super().__init__(reason)
        self.regressed = regressed


class Mirror:
    """The entries below `prefix` for which `select(key, value)` is true, kept in step with etcd."""

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        *,
        select: Select,
        told: Callable[[Told], None],
        hints: Sequence[str] = (),
        interesting: Callable[[str], bool] = lambda key: True,  # noqa: ARG005
        interval: float = 3.0,
        audit: float = 300.0,
        soon: float = 20.0,
    ) -> None:
        """`audit` is the time between comparisons with etcd; after a resume one comes within `soon`."""
        self._connection, self._prefix, self._hints = connection, prefix, tuple(hints)
        self._told = told
        self._interval, self._audit, self._soon = interval, audit, soon
        self._stopping = threading.Event()
        self.replica = Replica(select, interesting, len(hints))
        self._known: Position | None = None
        self._position: Position | None = None  # the newest that etcd told us; None: list first
        self._proved = 0  # all changes up to this revision had been sent to us
        self._watch: Watch | None = None
        self._regressed = self._missed_hints = self._in_step = False
        self._lost = ""  # why we are out of step, as EtcdError has it, if that has been told

    @property
    def position(self) -> Position | None:
        """Where history stands as far as we know; None before the first list, and while a new one is made."""
        newest = max(*self.replica.applied, self._proved)  # the watch is ahead of what was last asked for
        return replace(position, revision=max(position.revision, newest)) if (position := self._position) else None

    def stop(self) -> None:
        """Make `run` return, after a call that may be under way."""
        self._stopping.set()
        if self._watch is not None:
            self._watch.close()

    def run(self, known: Position | None = None) -> None:
        """Keep in step until stopped.

        `known` is where history stood when somebody last looked: the first list tells if it has gone backwards since.
        """
        self._known = known
        failures = doubts = 0
        while not self._stopping.is_set():
            self._in_step, began, longest = False, time.monotonic(), WAIT
            try:
                self._session()
            except _Relist as why:
                logger.warning("listing %s again: %s", self._prefix, why)
                self._known = self.position or self._known  # an older backup may be restored before we can list
                self._position = None
                self._regressed |= why.regressed
            except WatchError as error:
                # A stream that ends is no outage as long as the next one works.
                logger.debug("no watch on %s: %s", self._prefix, error)
                doubts = 1 if self._in_step else doubts + 1
                if doubts > DOUBTS or error.problem == "denied":
                    self._lose(error)
            except EtcdError as error:
                longest = WAIT_UNREACHABLE if error.problem == "unreachable" else WAIT
                self._lose(error)
            if self._in_step and time.monotonic() - began > HEALTHY:
                failures = 0
            failures = min(failures + 1, 10)
            self._stopping.wait(random.uniform(0, min(longest, 0.025 * 2**failures)))  # noqa: S311 - no secret

    def _lose(self, error: WatchError | EtcdError) -> None:
        """Tell that we are out of step, and why; once more if that becomes another reason."""
        if self._lost != error.problem and not self._stopping.is_set():
            self._lost = error.problem
            self._told(Lost(str(error)))

    def _sync(self, revision: int, *, relisted: bool) -> None:
        regressed, self._regressed, self._lost, self._missed_hints = self._regressed, False, "", False
        self._told(Synced(revision, relisted, regressed))

    def _session(self) -> None:
        """List if need be, then watch until something is wrong."""
        resumed = self._position is not None
        if not resumed:
            self._list()
        target = self._advance(self._connection.position(self._prefix))
        after = zip((self._prefix, *self._hints), (applied + 1 for applied in self.replica.applied), strict=True)
        watch = self._watch = self._connection.watch(list(after), interval=self._interval)
        try:
            self._catch_up(watch, target)
            if self._stopping.is_set():
                return
            if self._lost or self._missed_hints:
                self._sync(target, relisted=self._missed_hints)
            # After a resume soon: a wipe that outgrew us is seen by a comparison only. At random: not all at once.
            soon = random.uniform(min(1.0, self._soon), self._soon)  # noqa: S311 - no secret
            self._follow(watch, soon if resumed else self._audit)
        finally:
            watch.close()

    def _list(self) -> None:
        listing = self.replica.listing()
        position = None
        try:
            for page in self._connection.pages(self._prefix):
                position = page.position
                listing.add(page.entries)
        except EtcdError as error:
            if error.problem == "compacted":
                raise _Relist("the history was compacted away while listing") from error
            raise
        if position is None:
            return
        if self._known and (backwards := _backwards(self._known, position)):
            logger.warning("%s", backwards)
            self._regressed = True
        self._known = None
        self.replica.replace(listing, position.revision)
        self._position, self._proved = position, position.revision
        self._sync(position.revision, relisted=True)

    def _advance(self, position: Position) -> int:
        """Compare a position proved by the quorum with what we knew before; return its revision."""
        if backwards := _backwards(self.position or position, position):
            raise _Relist(backwards, regressed=True)
        self._position = position
        return position.revision

    def _catch_up(self, watch: Watch, target: int) -> None:
        """Apply what we missed. Etcd answers a request for progress only when it has sent all, so it is asked often.

        Only etcd < 3.4.25 and < 3.5.8 answers too early (issue 15220): two answers with nothing old between them count.
        """
        created, heard, proved = 0, time.monotonic(), 0.0
        while not self._stopping.is_set():
            batch, now = watch.read(CATCH_UP), time.monotonic()
            if batch is None:
                if now - heard > SILENT * self._interval:
                    self._doubt(watch, f"no answer to a watch for {now - heard:.0f} s")
                watch.poke()
                continue
            heard = now
            created += batch.created
            self._apply(batch)
            if batch.changes and batch.changes[0][3] <= target:
                proved = 0.0
            elif batch.watch == PROGRESS and batch.revision >= target and created > len(self._hints):
                proved = proved or now
                if now - proved >= CATCH_UP:
                    self._in_step = True
                    return

    def _follow(self, watch: Watch, audit: float) -> None:
        """Apply what comes, and doubt."""
        heard = now = time.monotonic()
        check, look, behind = now + CHECK * self._interval, now + audit, 0
        steps: Iterator[float] | None = None
        while not self._stopping.is_set():
            batch = watch.read(max(0.0, min(check, look, now + self._interval) - now))
            now = time.monotonic()
            if batch is not None:
                heard = now
                self._apply(batch)
            elif now - heard > SILENT * self._interval:
                self._doubt(watch, f"no answer to a watch for {now - heard:.0f} s")
            if now >= check:
                if self._proved < behind:
                    self._doubt(watch, "the watch lags behind")
                behind = self._advance(self._connection.position(self._prefix))
                now = time.monotonic()
                check = now + CHECK * self._interval
            if now >= look:
                steps = steps or self._compare()
                pause = next(steps, None)
                now = time.monotonic()
                if pause is None:
                    steps = None
                    pause = self._audit * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
                look = now + pause

    def _doubt(self, watch: Watch, reason: str) -> None:
        watch.close(distrust=True)
        msg = f"etcd {watch.endpoint}: {reason}"
        raise WatchError(msg, "unreachable")

    def _compare(self) -> Iterator[float]:
        """Compare with etcd."""
        comparison = self.replica.compare(self._connection, self._prefix)
        yield from comparison.steps(lambda: self._proved)
        if comparison.drifted:
            some = ", ".join(comparison.drifted[:3])
            msg = f"{len(comparison.drifted)} entries are not what was told, as {some}"
            raise _Relist(msg, regressed=True)
        self.replica.agrees(comparison)

    def _apply(self, batch: Batch) -> None:
        if batch.compacted:
            self._compacted(batch)
        if batch.watch == PROGRESS:
            self._proved = max(self._proved, batch.revision)
        if changed := self.replica.apply(batch):
            self._told(changed)

    def _compacted(self, batch: Batch) -> None:
        """History that we need is gone. Of hints nothing is kept, so for them looking at everything will do."""
        if batch.watch == 0 or self._position is None:
            raise _Relist("the history since our revision was compacted away")
        self._missed_hints = True
        self.replica.skip_hints(self._position.revision)
        raise WatchError("the history of hints was compacted away", "compacted")


def _backwards(known: Position, position: Position) -> str:
    """Say how a position cannot follow from one known before; nothing if it can."""
    if position.cluster != known.cluster:
        return "this is another etcd cluster"
    if not position.follows(known):
        gone = f"from revision {known.revision} to {position.revision}, from term {known.term} to {position.term}"
        return f"etcd went backwards, {gone}"
    return ""
