r"""The agent: one thread decides, from one queue of hints.

    etcd  --list+watch--> mirror  --\
                                     >-- queue --> pass: plan(desired, observed) --> act
    D-Bus --signals-----> systemd --/      \--> ends of runs --> spool --> log, mail
    timeout ------------------------/

Hints say "look again"; what is true is read back from etcd and systemd. If one of them cannot be read, nothing is
concluded and nothing is done: VMs run on, systemd restarts those that crash.
"""

import importlib.metadata
import logging
import signal
import time
from collections.abc import Iterable, Mapping

from uncloud_host import machine, news, spool, supplies, systemd
from uncloud_host.act import Hands
from uncloud_host.channels import channels
from uncloud_host.claims import Claims
from uncloud_host.clock import Clock
from uncloud_host.config import Config
from uncloud_host.desired import Entries
from uncloud_host.ends import Ends
from uncloud_host.etcd import Connection, EtcdError
from uncloud_host.exporting import Exporter
from uncloud_host.facts import Observed
from uncloud_host.inbox import Claimed, Inbox, LookedAt, Message, Over, Said, UnitChanged, is_about_everything
from uncloud_host.leftover import Leftovers
from uncloud_host.observe import Units
from uncloud_host.presence import Presence
from uncloud_host.reconciling import Reconciler
from uncloud_host.recordings import Recordings
from uncloud_host.registering import Register
from uncloud_host.resolving import Resolver
from uncloud_host.runs import Boots
from uncloud_host.spool import Spool
from uncloud_host.standing import Standing
from uncloud_host.store import Store
from uncloud_host.systemd import Systemd, SystemdError, text_of
from uncloud_host.taps import Sweeper
from uncloud_host.telling import Teller
from uncloud_host.threads import Threads
from uncloud_host.troubles import Troubles
from uncloud_host.trust import Trust
from uncloud_host.unit import State
from uncloud_host.unrecorded import Unrecorded
from uncloud_host.witness import Witness

logger = logging.getLogger(__name__)

FULL_PASS = 30.0  # seconds between looks at everything, in case a hint was lost
AGAIN = 1.0  # seconds after a pass that an error cut short
ALIVE = 20.0  # seconds between signs of life; the unit's WatchdogSec= is three times as long
CHECK = 300.0  # seconds between looks at the claims on what runs here, in case etcd was restored without our noticing


class Agent:
    """Everything that the deciding thread knows. Nothing of it is needed by the next agent."""

    def __init__(self, config: Config) -> None:
        """Connect to nothing yet."""
        self._config = config
        self._me = machine.me(config.host)
        self._inbox = Inbox()
        self._connection = Connection(config.etcd)
        self._store = Store(self._connection, config.prefix)
        self._systemd = Systemd()
        self._units = Units(self._systemd)
        self._spool = Spool()
        self._clock = Clock()
        self._entries = Entries(self._connection, self._store, config.host, runs_here=self._units, told=self._inbox.put)
        self._claims = Claims(self._store, self._me)
        self._register = Register(self._me, Boots(self._systemd.booted), self._store, self._is_steady)
        events = channels(self._spool, self._store, config.host, config.mail, self._is_steady)
        self._channels = (*events, self._register.channel)
        self._troubles = Troubles()
        self._teller = Teller(self._spool, self._troubles, self._register.runs, config.host, self._channels)
        self._resolver = Resolver(self._troubles, self._teller, self._entries, self._units, self._claims, self._me)
        self._recordings = Recordings(lambda *said: self._inbox.put(Said(*said)))
        self._witness = Witness(config.ceph, lambda uuid: self._inbox.put(LookedAt(uuid)))
        self._hands = Hands(
            config, self._me, self._store, self._claims, self._entries, self._systemd, self._units, self._teller,
            self._witness,
        )  # fmt: skip
        unrecorded = Unrecorded(self._register.runs.here(), self._teller.is_told)
        self._ends = Ends(
            self._spool, self._teller, unrecorded, self._claims, self._entries, self._hands, self._show_life
        )
        self._leftovers = Leftovers(self._store, self._me, lambda uuids: self._inbox.put(Claimed(uuids)))
        self._threads = Threads(
            self._inbox, self._entries.mirror, self._leftovers, self._channels, self._witness, self._recordings
        )
        self._trust = Trust()
        self._exporter = Exporter(
            self._teller.counts, self._units, self._trust, self._spool, self._channels, self._threads
        )
        presence = Presence(self._connection, config.prefix, self._me, importlib.metadata.version("uncloud-host"))
        self._standing = Standing(self._me, presence, self._trust, self._teller)
        self._reconciler = Reconciler(self._hands, self._ends, self._trust, self._standing)
        self._sweeper = Sweeper(self._systemd)
        self._is_ready = False  # after the first full pass
        self._life = self._check = 0.0  # when the next sign of life and the next look at claims are due
        self._untold: dict[str, tuple[Observed, Observed]] = {}  # units, and nobody has been told
        self._unfinished: set[str] = set()  # to be looked at again: something went wrong on the way
        self._said: list[Said] = []  # by QEMU, and nobody has been told

    def run(self) -> str:
        """Work until asked to stop; return why it ended, if it was not by request. Raises WrongName."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._inbox.put(Over()))
        self._threads.start(self._spool.position())
        self._exporter.begin(self._config.metrics_listen)
        try:
            return self._loop()
        finally:
            systemd.notify(stopping=1)
            self._threads.stop()
            self._connection.close()

    def _loop(self) -> str:
        full_pass = time.monotonic()
        problem = ""  # what was said last
        while True:
            messages = self._inbox.take(min(full_pass, self._life) - time.monotonic())
            over = next((message for message in messages if isinstance(message, Over)), None)
            if over:
                return over.error
            now = time.monotonic()
            everything = now >= full_pass or any(map(is_about_everything, messages))
            names = self._take(messages)  # before anything can fail: it is not said again
            try:
                self._show_life()
                self._pass(names, everything=everything)
            except (EtcdError, SystemdError, OSError) as error:  # the last: no descriptor is left, or a disk is ill
                if text_of(error) != problem:
                    problem = text_of(error)
                    logger.warning("%s; nothing is concluded from that, the pass is made again", problem)
                full_pass = time.monotonic() + AGAIN
                continue
            self._teller.counts.passes.observe(time.monotonic() - now)
            if everything:
                problem = ""
                full_pass = now + FULL_PASS

    def _pass(self, names: set[str | None], *, everything: bool) -> None:
        for said in list(self._said):
            self._teller.seen(said.uuid, said.invocation, said.signs)
            self._said.remove(said)
        self._note(self._units.look(names))
        self._hands.given.clear()
        self._standing.check_name(self._units.observed)
        self._unfinished |= self._untold.keys()
        self._tell()
        if self._trust.in_step:
            self._reconcile(everything=everything)
        self._teller.end_pass()
        if everything:
            self._sweeper.sweep()

    def _note(self, changed: Mapping[str, tuple[Observed, Observed]]) -> None:
        """Remember how units were and are, also if an error cuts this pass short."""
        for uuid, (old, new) in changed.items():
            first, _ = self._untold.get(uuid, (old, new))
            is_between = old.state == State.RESTARTING and old.invocation == first.invocation
            self._untold[uuid] = (old if is_between else first, new)

    def _tell(self) -> None:
        """Tell what units that have changed say of runs."""
        for uuid, (old, new) in self._untold.items():
            is_gone = old.evidence and old.state == State.RESTARTING and new.state == State.ABSENT
            if is_gone and not self._systemd.is_stopping():
                self._ends.stopped_between(uuid, old.invocation)
        # A run's record is on disk before its unit changes its state: so the units are read first.
        self._unfinished |= self._ends.tell(self._untold)
        for uuid, (old, new) in self._untold.items():
            self._teller.began(uuid, new)
            if new.state == State.RUNNING:
                if old.state == State.ABSENT:
                    spool.remove_intent(uuid, new.invocation)  # of an agent that died before it asked for the stop
                self._recordings.follow(uuid, new.invocation)
        self._untold.clear()

    def _reconcile(self, *, everything: bool) -> None:
        """Make the VMs that may have changed what they should be, or all."""
        running = self._units.ours()
        self._trust.judge(running)
        if self._trust.must_list:
            self._reconciler.all_changed()
            self._entries.forget(others_than=())  # the same revision of another history says something else
            entries = self._claims.read_all(running | self._entries.uuids() | self._claims.mine())
            created = {uuid: entry.create_revision for uuid in running if (entry := entries[uuid])}
            self._trust.listed(created, self._claims.all(), running)
            self._leftovers.look()
            self._check = time.monotonic() + CHECK
        if everything:
            if time.monotonic() >= self._check:
                self._claims.read_all(running)
                self._check = time.monotonic() + CHECK
            self._standing.show(len(running))
            self._unfinished |= self._entries.uuids() | self._units.observed.keys() | self._claims.mine()
        for uuid in sorted(self._unfinished | self._trust.doubts.keys()):
            self._show_life()
            if self._reconciler.finish(uuid):
                self._unfinished.discard(uuid)
        if not self._trust.doubts and not self._trust.wait:
            self._resolver.look()
        position = self._entries.mirror.position
        if position and not self._trust.doubts and not self._trust.wait:  # else the next agent must find them, too
            self._spool.remember(position, backwards=self._trust.may_forget)
            self._trust.may_forget = False
        if everything:
            self._tidy()
            self._report()

    def _take(self, messages: Iterable[Message]) -> set[str | None]:
        """Give the names of units that may have changed, remember which VMs, and follow how we stand with etcd."""
        names: set[str | None] = set()
        for message in messages:
            match message:
                case UnitChanged(name):
                    names.add(name)
                case LookedAt(uuid):
                    self._unfinished.add(uuid)
                case Claimed(uuids):
                    self._unfinished |= uuids
                case Said():
                    self._said.append(message)
                case news.Changed(keys, deleted):
                    self._unfinished |= self._changed(keys)
                    self._trust.deleted({self._entries.uuid(key): revision for key, revision in deleted.items()})
                case news.Lost(reason):
                    logger.warning("%s; VMs run on, starts and stops wait until it is back", reason)
                    self._trust.lost()
                case news.Synced():
                    self._synced(message)
        return names

    def _synced(self, told: news.Synced) -> None:
        if not self._trust.in_step:
            logger.info("in step with etcd")
            self._channels[0].look()  # the log
            self._register.channel.look()
        if told.regressed:
            self._register.repeat()
        self._trust.synced(told)

    def _changed(self, keys: Mapping[str, int]) -> set[str]:
        for key, revision in keys.items():
            self._reconciler.changed(self._entries.uuid(key))
            if self._entries.is_claim(key):
                self._claims.changed(self._entries.uuid(key), revision)
            else:
                self._teller.counts.heard(self._entries.uuid(key), revision, time.time())
        return {self._entries.uuid(key) for key in keys}

    def _show_life(self) -> None:
        """Tell the watchdog, also in the middle of a pass: a hundred VMs may take their time."""
        if time.monotonic() >= self._life:
            systemd.notify(watchdog=1)
            self._life = time.monotonic() + ALIVE
            self._clock.look(time.time(), time.monotonic())
            self._standing.stay()
            self._standing.tell_of_etcd()
            self._register.runs.stay_awake()

    def _is_steady(self) -> bool:
        """Tell whether the clock is to be believed; other threads ask, too."""
        return self._clock.is_steady(time.time(), time.monotonic())

    def _tidy(self) -> None:
        """Forget what is gone: nothing here may grow with the number of VMs that there ever were."""
        known = self._entries.uuids() | self._units.observed.keys() | self._claims.mine()
        self._reconciler.forget(others_than=known)
        self._claims.forget(others_than=known)
        self._witness.forget(others_than=known)
        self._entries.forget(others_than=known)
        self._teller.forget(others_than=known)
        spool.tidy(self._units.observed.keys())
        supplies.tidy(known, now := time.time())
        if self._is_steady():
            self._spool.forget(now, self._troubles.events)
            self._register.runs.forget(now)
            supplies.forget(known, now)
        self._teller.pass_on()

    def _report(self) -> None:
        running = sum(observed.state == State.RUNNING for observed in self._units.observed.values())
        claimed = len(self._claims.mine())
        systemd.notify(status=f"{running} of {len(self._units.observed)} VMs run, {claimed} are claimed")
        if not self._is_ready:
            systemd.notify(ready=1)
            self._is_ready = True
