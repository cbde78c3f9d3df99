r"""The agent: one thread decides, from one queue of hints.

    etcd  --list+watch--> mirror  --\
                                     >-- queue --> pass: plan(desired, observed) --> act
    D-Bus --signals-----> systemd --/      \--> ends of runs --> spool --> log, mail
    timeout ------------------------/

Hints say "look again"; what is true is read back from etcd and systemd. If one of them cannot be read, nothing is
concluded and nothing is done: VMs run on, systemd restarts those that crash.
"""

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from uncloud_host import machine, news, reconcile, systemd
from uncloud_host.act import Hands
from uncloud_host.channels import channels
from uncloud_host.config import Config
from uncloud_host.desired import Entries
from uncloud_host.ends import Ends
from uncloud_host.etcd import Connection, EtcdError, KeyValue
from uncloud_host.models import VM, Status
from uncloud_host.observe import Units
from uncloud_host.reconcile import Action, Desired, Invalid, Observed, Release, Start
from uncloud_host.spool import Spool
from uncloud_host.store import Store
from uncloud_host.systemd import Refusal, Systemd, SystemdError
from uncloud_host.telling import Teller
from uncloud_host.unit import State

logger = logging.getLogger(__name__)

FULL_PASS = 30.0  # seconds between looks at everything, in case a hint was lost
AGAIN = 1.0  # seconds after a pass that an error cut short
ABOUT_ALL = ("unreachable", "closed", "setup")  # problems of etcd that meet every VM alike
ALIVE = 20.0  # seconds between signs of life; the unit's WatchdogSec= is three times as long


@dataclass(frozen=True, slots=True)
class UnitChanged:
    """A unit of ours changed; None: any may have."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Over:
    """Stop the agent; VMs run on. `error` is why, if it is not by request."""

    error: str = ""


Message = news.Told | UnitChanged | Over


class WrongName(Exception):
    """VMs run here that were started under another name of this host."""


class Agent:
    """Everything that the deciding thread knows. Nothing of it is needed by the next agent."""

    def __init__(self, config: Config) -> None:
        """Connect to nothing yet."""
        self._config = config
        self._me = machine.me(config.host)
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._connection = Connection(config.etcd)
        self._store = Store(self._connection, config.prefix)
        self._systemd = Systemd()
        self._units = Units(self._systemd)
        self._entries = Entries(self._connection, self._store, config.host, runs_here=self._units, told=self._queue.put)
        self._spool = Spool()
        self._channels = channels(self._spool, self._store, config.host, config.mail)
        self._teller = Teller(self._spool, config.host, self._channels)
        self._hands = Hands(config, self._me, self._store, self._systemd, self._units, self._teller)
        self._ends = Ends(self._spool, self._teller, self._store, self._entries, self._hands)
        self._in_step = self._is_ready = self._must_list = False  # with etcd; after the first full pass; our claims
        self._life = 0.0  # when the next sign of life is due
        self._claims: set[str] = set()  # VMs whose claim is ours, as far as we know
        self._quiet: dict[str, tuple[int, Observed]] = {}  # nothing is to be done about these while they are so
        self._failures: dict[str, tuple[int, float]] = {}  # how often it failed, when it is tried again
        self._unfinished: set[str] = set()  # to be looked at again: something went wrong on the way

    def run(self) -> str:
        """Work until asked to stop; return why it ended, if it was not by request. Raises WrongName."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._queue.put(Over()))
        self._start_threads()
        try:
            return self._loop()
        finally:
            self._stop_threads()

    def _loop(self) -> str:
        full_pass = time.monotonic()
        problem = ""  # what was said last
        while True:
            messages = self._messages(min(full_pass, self._life) - time.monotonic())
            over = next((message for message in messages if isinstance(message, Over)), None)
            if over:
                return over.error
            now = time.monotonic()
            self._show_life()
            everything = now >= full_pass or any(map(_is_about_everything, messages))
            try:
                self._pass(messages, everything=everything)
            except (EtcdError, SystemdError) as error:
                if str(error) != problem:
                    problem = str(error)
                    logger.warning("%s; nothing is concluded from that, the pass is made again", problem)
                full_pass = time.monotonic() + AGAIN
                continue
            if everything:
                problem = ""
                full_pass = now + FULL_PASS

    def _messages(self, timeout: float) -> list[Message]:
        """Wait for a hint and take all that are there: a hundred changes are one pass."""
        messages: list[Message] = []
        with suppress(queue.Empty):
            messages.append(self._queue.get(timeout=max(0.0, timeout)))
            while True:
                messages.append(self._queue.get_nowait())
        return messages

    def _pass(self, messages: Sequence[Message], *, everything: bool) -> None:
        names, uuids = self._take(messages)
        self._unfinished |= uuids
        changed = self._units.look(names)
        self._hands.screens.clear()  # what was started before is in the list now
        self._check_host_name()
        self._teller.retry()
        # A run's record is on disk before its unit changes its state: so the units are read first.
        self._unfinished |= self._ends.tell() | changed.keys()
        for uuid, (old, new) in changed.items():
            self._teller.unrecorded(uuid, old, new)
            self._teller.began(uuid, new)
        if self._must_list:
            self._quiet.clear()
            self._claims = {claim.uuid for claim in self._store.claims_of(self._me.machine_id)}
            self._must_list = False
        if not self._in_step:
            return
        if everything:
            self._unfinished |= self._entries.uuids() | self._units.observed.keys() | self._claims
        for uuid in sorted(self._unfinished):
            self._show_life()
            if self._finish(uuid):
                self._unfinished.discard(uuid)
        if everything:
            self._tidy()
            self._report()

    def _finish(self, uuid: str) -> bool:
        """Do all that is to be done about one VM; False if something concerning this VM alone is in the way."""
        try:
            if self._ends.write(uuid):
                self._look_after(uuid)
        except Refusal as refusal:
            self._teller.say_once(uuid, f"systemd refused: {refusal}")
            return False
        except EtcdError as error:
            if error.problem in ABOUT_ALL:
                raise
            self._teller.say_once(uuid, str(error))
            return False
        return True

    def _take(self, messages: Iterable[Message]) -> tuple[set[str | None], set[str]]:
        """Sort hints into names of units and uuids of entries, and follow how we stand with etcd."""
        names: set[str | None] = set()
        uuids: set[str] = set()
        for message in messages:
            match message:
                case UnitChanged(name):
                    names.add(name)
                case news.Changed(keys):
                    uuids |= {self._entries.uuid(key) for key in keys}
                    for uuid in uuids:
                        self._quiet.pop(uuid, None)
                case news.Lost(reason):
                    logger.warning("%s; VMs run on, starts and stops wait until it is back", reason)
                    self._in_step = False
                case news.Synced(_, relisted, _):
                    self._must_list |= relisted
                    if not self._in_step:
                        logger.info("in step with etcd")
                        self._channels[0].look()  # the log
                    self._in_step = True
        return names, uuids

    def _look_after(self, uuid: str) -> None:
        """Make one VM what it should be."""
        entry, observed = self._entries.entry(uuid), self._units.get(uuid)
        desired = self._desired(uuid, entry)
        retry = self._is_retry_due(uuid, desired)
        known = (entry.mod_revision if entry else 0, observed)
        # What changes by itself with time is never quiet.
        is_quiet = self._quiet.get(uuid) == known and not retry and observed.state in (State.ABSENT, State.FAILED)
        if is_quiet or reconcile.settled(desired, observed, self._me, now=time.time()):
            return
        claim = None
        if reconcile.needs_claim(desired, self._me):
            entry, claim = self._store.read(uuid)
            desired = self._desired(uuid, entry)
            if claim is None or claim.machine_id != self._me.machine_id:
                self._claims.discard(uuid)
                if observed.state == State.ABSENT:
                    self._entries.leave(uuid)
        if isinstance(desired, Invalid) and not self._is_ours_to_report(uuid, entry, observed):
            return
        actions = reconcile.plan(desired, observed, claim, self._me, now=time.time(), retry=retry)
        if all(self._do(uuid, entry, action, retry=retry) for action in actions) and not actions and entry:
            self._quiet[uuid] = known

    def _do(self, uuid: str, entry: KeyValue | None, action: Action, *, retry: bool) -> bool:
        if isinstance(action, Start):
            self._claims.add(uuid)
            self._count_try(uuid, retry=retry)
        if isinstance(action, Release):
            self._claims.discard(uuid)
        return self._hands.do(uuid, entry, action)

    def _desired(self, uuid: str, entry: KeyValue | None) -> Desired:
        desired = self._entries.desired(uuid, entry)
        if isinstance(desired, VM):
            self._teller.named(uuid, desired.name)
        return desired

    def _is_ours_to_report(self, uuid: str, entry: KeyValue | None, observed: Observed) -> bool:
        """An invalid entry is reported by the host that runs or claims the VM, else by the one that it names."""
        return self._entries.names_us(entry) or observed.state != State.ABSENT or uuid in self._claims

    def _is_retry_due(self, uuid: str, desired: Desired) -> bool:
        if not isinstance(desired, VM) or desired.entry.status != Status.FAILED:
            self._failures.pop(uuid, None)
            return False
        first = (1, time.monotonic() + reconcile.retry_delay(1))
        return time.monotonic() >= self._failures.setdefault(uuid, first)[1]

    def _count_try(self, uuid: str, *, retry: bool) -> None:
        if retry:
            failures = self._failures[uuid][0] + 1
            self._failures[uuid] = (failures, time.monotonic() + reconcile.retry_delay(failures))

    def _check_host_name(self) -> None:
        """Raise WrongName if our name has changed: every entry would look like a move away from here."""
        for uuid, observed in self._units.observed.items():
            if observed.evidence and observed.evidence.host != self._me.host:
                raise WrongName(
                    f"UNCLOUD_HOST_NAME: this host is {self._me.host} now, but VM {uuid} was started on it as "
                    f"{observed.evidence.host}; nothing is started or stopped until that is put right"
                )

    def _show_life(self) -> None:
        """Tell the watchdog, also in the middle of a pass: a hundred VMs may take their time."""
        if time.monotonic() >= self._life:
            systemd.notify(watchdog=1)
            self._life = time.monotonic() + ALIVE

    def _tidy(self) -> None:
        """Forget what is gone: nothing here may grow with the number of VMs that there ever were."""
        known = self._entries.uuids() | self._units.observed.keys() | self._claims
        for kept in (self._quiet, self._failures):
            for uuid in kept.keys() - known:
                del kept[uuid]
        self._entries.forget(others_than=known)
        self._teller.forget(others_than=known)
        self._spool.forget(time.time(), running=self._units.observed.keys())

    def _report(self) -> None:
        running = sum(observed.state == State.RUNNING for observed in self._units.observed.values())
        systemd.notify(status=f"{running} of {len(self._units.observed)} VMs run, {len(self._claims)} are claimed")
        if not self._is_ready:
            systemd.notify(ready=1)
            self._is_ready = True

    def _start_threads(self) -> None:
        self._thread("etcd", self._entries.mirror.run)
        self._thread("bus", lambda: systemd.watch(lambda n: self._queue.put(UnitChanged(n)), self._is_over.is_set))
        for channel in self._channels:
            self._thread(channel.name, channel.run)

    def _thread(self, name: str, body: Callable[[], None]) -> None:
        def supervised() -> None:
            try:
                body()
            except Exception:  # the one broad one: whatever it is, a new agent is better than half of one
                logger.exception("the thread %s failed", name)
                self._queue.put(Over(f"the thread {name} failed"))

        threading.Thread(target=supervised, name=name, daemon=True).start()

    def _stop_threads(self) -> None:
        systemd.notify(stopping=1)
        self._is_over.set()
        for channel in self._channels:
            channel.end()
        self._entries.mirror.stop()
        self._connection.close()


def _is_about_everything(message: Message) -> bool:
    match message:
        case UnitChanged(name):
            return name is None
        case news.Synced():
            return True
    return False
