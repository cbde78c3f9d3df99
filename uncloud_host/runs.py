"""The runs of VMs on this host: each a file until it has ended and its closed record is in etcd.

runs/INVOCATION.json      the record, from the beginning of the run on
told/runtime/INVOCATION   the same file, when its closed record is in etcd: so nobody makes another one;
                          an empty one if it ended before there was a QEMU
told/runtime/....open     an empty file: its open record is in etcd
awake/BOOT_ID             when an agent was last there in that boot: if the host loses power, its runs end then

The deciding thread opens and closes; that of `registering` takes what is new, and removes what is done.
"""

import json
import logging
import os
import time
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from uncloud_host import journal, runtime, spool
from uncloud_host.endings import End, has_run
from uncloud_host.events import Event
from uncloud_host.facts import Me, Observed
from uncloud_host.runtime import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Boots:
    """Who knows of this boot and earlier ones."""

    began: Callable[[], float]  # this one, in seconds since 1970
    last_entry: Callable[[str], tuple[str, float]] = journal.last_entry
    left: Callable[[str, float], list[End]] = journal.left


class Runs:
    """Those that go on, and those whose end is not in etcd yet. `told` is called when there is news for etcd."""

    def __init__(
        self, me: Me, boots: Boots, told: Callable[[], None] = lambda: None, directory: Path = spool.DIRECTORY
    ) -> None:
        self._me, self._boots, self._news = me, boots, told
        self._files, self._told, self._awake = directory / "runs", directory / "told/runtime", directory / "awake"
        for made in (self._files, self._told, self._awake):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = [run for path in sorted(self._files.glob("*.json")) if (run := _read(path))]
        # One that is open and another host's: this is a copy of that installation, and it may go on there.
        self._runs = {run.invocation: run for run in kept if run.stopped is not None or run.host == me.host}
        self._unkept: set[str] = set()  # the disk is full
        self._open_in_etcd = {mark.stem for mark in self._told.glob("*.open")}
        self._has_lost = True  # perhaps: nobody has looked yet
        self._forgot = 0.0

    def began(self, uuid: str, seen: Observed) -> None:
        """Open the record of what runs, with the start that its unit tells."""
        if seen.evidence and not self._is_known(seen.invocation):
            name, vnc = seen.evidence.name, seen.evidence.vnc
            self._keep(runtime.opened(uuid, seen.invocation, name, seen.since, self._me, vnc))

    def over(self, end: End, event: Event) -> None:
        """Close the record of a run; make one of a run that nobody saw begin, none of one in which QEMU never was."""
        run = self._runs.get(end.invocation)
        if run is None and end.started and has_run(end) and not self._is_known(end.invocation):
            run = runtime.opened(end.vm, end.invocation, event.name, end.started, self._me)
        if run and run.stopped is None and not end.is_after:
            self._keep(runtime.closed(run, end, event))
        elif not run and not end.is_after and not self._is_known(end.invocation):
            with suppress(OSError):  # the disk is full: it is told once more if the host then loses its power
                (self._told / end.invocation).touch(mode=0o600)

    def is_over(self, invocation: str) -> bool:
        """Tell whether the end of a run is known."""
        run = self._runs.get(invocation)
        return run.stopped is not None if run else self._is_known(invocation)

    def name(self, invocation: str) -> str:
        """Tell what the VM was called when this run began; nothing if that is not known."""
        run = self._runs.get(invocation)
        return run.name if run else ""

    def here(self) -> dict[str, str]:
        """Give the first open run of each VM in this boot: its end has not been told."""
        found = sorted(self._open(), key=lambda run: -run.started)
        return {run.vm: run.invocation for run in found if run.boot_id == self._me.boot_id}

    def lost(self) -> list[End]:
        """End what ran in an earlier boot and has no recorded end: the host lost power. To be asked after those.

        PID 1's words in the journal tell what began or ended there while no agent looked.
        """
        if not self._has_lost:
            return []
        runs = [run for run in self._open() if run.boot_id != self._me.boot_id]
        boots = {_plain(run.boot_id or "") for run in runs}
        if not (self._awake / _plain(self._me.boot_id)).exists():  # else an agent of this boot has looked
            boots |= {self._boots.last_entry("-1")[0]} & {path.name for path in self._awake.iterdir()}
        return [end for boot in sorted(boots - {""}) for end in self._lost_in(boot, runs)]

    def lost_are_told(self) -> None:
        """Note that an agent was there in this boot: only now, or the next one would not look."""
        if self._has_lost:
            self._has_lost = False
            self.stay_awake()

    def _lost_in(self, boot: str, runs: Sequence[Run]) -> list[End]:
        awake = self._last_awake(boot)
        began = self._boots.began()
        last = runtime.last_seen(awake, self._boots.last_entry(boot)[1], began)
        open_ = [run for run in runs if _plain(run.boot_id or "") == boot]
        since = awake or min((run.started / 1000 for run in open_), default=began)
        left = [end for end in self._boots.left(boot, since) if not self.is_over(end.invocation)]
        return runtime.cut_short(str(uuids.UUID(boot)), open_, left, last)

    def stay_awake(self) -> None:
        """Note that the host runs; try again to keep what could not be kept; forget boots of which no run is left."""
        for invocation in list(self._unkept):
            if run := self._runs.get(invocation):
                self._keep(run)
            else:  # it is in etcd
                self._unkept.discard(invocation)
        with suppress(OSError):  # the disk is full: the journal is the other witness
            if not self._has_lost:  # else earlier boots are still to be asked about
                spool.replace(self._awake / _plain(self._me.boot_id), repr(time.time()))
                boots = {
                    _plain(boot_id) for boot_id in [self._me.boot_id, *(run.boot_id or "" for run in self._open())]
                }
                for name in os.listdir(self._awake):
                    if name not in boots:
                        (self._awake / name).unlink()

    def forget(self, now: float) -> None:
        """Remove marks of runs whose end nobody tells again, once an hour. `now` in seconds since 1970."""
        if abs(now - self._forgot) < spool.HOUR:
            return
        self._forgot = now
        with suppress(OSError):  # read-only
            for mark in list(self._told.iterdir()):
                if mark.stat().st_mtime < now - spool.KEPT:
                    mark.unlink()

    def reopen(self) -> None:
        """Have the open ones pending again, for an etcd that may have lost them."""
        self._open_in_etcd.clear()

    def closed_lately(self) -> list[Run]:
        """List those of the last week whose closed records were written to etcd."""
        return [run for path in sorted(self._told.iterdir()) if path.stat().st_size and (run := _read(path))]

    def pending(self) -> list[Run]:
        """List what etcd does not know yet."""
        return [run for run in list(self._runs.values()) if run.stopped or run.invocation not in self._open_in_etcd]

    def told(self, runs: Sequence[Run]) -> None:
        """Remember that these are in etcd; what is closed there is done."""
        for run in runs:
            mark = self._told / f"{run.invocation}.open"
            if run.stopped is None:
                mark.touch(mode=0o600)
                self._open_in_etcd.add(run.invocation)
                continue
            try:
                self._path(run.invocation).rename(self._told / run.invocation)
            except FileNotFoundError:  # the disk was full
                (self._told / run.invocation).touch(mode=0o600)
            mark.unlink(missing_ok=True)
            self._open_in_etcd.discard(run.invocation)
            del self._runs[run.invocation]

    def _open(self) -> Iterator[Run]:
        return (run for run in list(self._runs.values()) if run.stopped is None)

    def _is_known(self, invocation: str) -> bool:
        return invocation in self._runs or not invocation.isalnum() or (self._told / invocation).exists()

    def _path(self, invocation: str) -> Path:
        return self._files / f"{invocation}.json"

    def _keep(self, run: Run) -> None:
        try:
            spool.replace(self._path(run.invocation), json.dumps(asdict(run)))
            self._unkept.discard(run.invocation)
        except OSError as error:
            if not self._unkept:
                logger.warning("runs cannot be kept on disk (%s); they are kept in memory meanwhile", error)
            self._unkept.add(run.invocation)
        self._runs[run.invocation] = run  # last: then the other thread may see it, and remove the file
        self._news()

    def _last_awake(self, boot: str) -> float:
        """Tell when an agent of an earlier boot last was there, in seconds since 1970."""
        try:
            return float((self._awake / boot).read_text())
        except (OSError, ValueError):
            return 0.0


def _plain(boot_id: str) -> str:
    """Write a boot's id as journalctl does."""
    return boot_id.replace("-", "")


def _read(path: Path) -> Run | None:
    try:
        found = json.loads(path.read_text())
        return Run(**{name: found[name] for name in Run.__slots__ if name in found})
    except (OSError, ValueError, TypeError, RecursionError) as error:
        logger.warning("%s cannot be read and is left out: %s", path, error)
        return None
