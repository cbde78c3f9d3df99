"""Do what a pass has decided, one step at a time. Each step is bound to what was seen: if that has changed, nothing is
done, and the change itself brings the next pass.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from uncloud_host import limits, machine, needs, reconcile, spool, supplies, unit, witness
from uncloud_host.actions import Action, Limit, Release, Reset, Secure, SetStatus, Start, Stop, Tell, Wait
from uncloud_host.claiming import asks_to_run
from uncloud_host.claims import Claims
from uncloud_host.config import Config
from uncloud_host.conflict import Sharing, conflict
from uncloud_host.counts import Step
from uncloud_host.desired import Entries
from uncloud_host.endings import between
from uncloud_host.etcd import KeyValue
from uncloud_host.events import Name
from uncloud_host.facts import Claim, Me
from uncloud_host.models import VM, Status
from uncloud_host.observe import Units
from uncloud_host.patience import Patience, Silence
from uncloud_host.store import Refused, Store
from uncloud_host.systemd import Refusal, Systemd, UnitExists
from uncloud_host.telling import Teller
from uncloud_host.unit import Evidence
from uncloud_host.witness import Witness


@dataclass(slots=True)
class Given:
    """What was given out in this pass; the next one finds it in the list of units."""

    screens: dict[str, str] = field(default_factory=dict)  # uuid: the VNC address, or nothing
    sharing: Sharing | None = None  # of all that have an entry here; made when a pass first starts something

    def clear(self) -> None:
        """Begin another pass."""
        self.screens, self.sharing = {}, None


@dataclass(frozen=True, slots=True)
class Hands:
    """The neighbours that actions are done with."""

    config: Config
    me: Me
    store: Store
    claims: Claims
    entries: Entries
    systemd: Systemd
    units: Units
    teller: Teller
    witness: Witness
    given: Given = field(default_factory=Given)
    patience: Patience = field(default_factory=Patience)

    def do(self, uuid: str, entry: KeyValue | None, action: Action) -> bool:
        """Do one action about a VM; False if its entry or claim has changed since, and nothing was done.

        `entry` is what it was decided from. Raises EtcdError and SystemdError.
        """
        match action:
            case Start(vm, reason):
                return self._start(vm, entry, reason)
            case Stop(_, reason, event):
                self._stop(action, reason, event, entry.mod_revision if entry else 0)
            case Reset(_, reason):
                self.teller.say(uuid, f"forgetting its failures: {reason}")
                self.systemd.reset_failed(unit.name(uuid))
                self.units.doubt(uuid)  # no signal tells that NRestarts has changed
            case Limit():
                self._limit(action)
            case SetStatus():
                return self._set_status(uuid, entry, action)
            case Secure(_, _, reason):
                self.teller.say_once(uuid, f"writing its claim: {reason}")
                return self.claims.secure(action)
            case Release(claim, reason):
                self.teller.say(uuid, f"releasing its claim: {reason}")
                supplies.remove_seed(uuid)
                return self.claims.release(claim)
            case Wait(_, reason):
                self.teller.say_once(uuid, f"not starting: {reason}")
            case Tell(event, subject, reason):
                seen = self.units.get(uuid)
                self.teller.about(uuid, event, subject, reason, seen.invocation if seen.evidence else "")
        return True

    def _start(self, vm: VM, entry: KeyValue | None, reason: str) -> bool:
        counts = self.teller.counts
        counts.decided(vm.uuid, vm.mod_revision, vm.entry.status, time.time())
        if self.systemd.is_stopping():
            return True  # PID 1 would refuse it; after the boot it is started
        if taken := conflict(vm, self._before(vm)):
            return self._fail(vm, entry, taken)
        try:
            needs.check(vm, self.config, self.patience)
            witness.prepare(vm, self.config.ceph)
            address = machine.vnc_address(vm, self.config.vnc_listen, self._vnc_addresses(vm.uuid))
        except needs.Missing as problem:
            return self._fail(vm, entry, str(problem))
        except Silence as silence:
            return self._wait(vm, entry, f"{reconcile.WAITS} the file system of {silence}, which does not answer")
        try:
            claim = self.claims.take(vm)
        except Refused as refusal:
            self.teller.say_once(vm.uuid, f"not starting: {refusal}")
            return False
        counts.step(vm.uuid, Step.CLAIMED, time.time())
        match self.witness.ask(vm, claim.id):
            case witness.Later(why):
                return self._wait(vm, entry, why)
            case witness.No(why):
                return self._fail(vm, entry, why)
        try:
            supplies.supply(vm)
        except supplies.Lacking as problem:
            return self._fail(vm, entry, str(problem))
        if hindrance := self._ask(vm, claim, address, reason):
            return self._fail(vm, entry, hindrance)
        self.given.screens[vm.uuid] = address or ""
        counts.step(vm.uuid, Step.ASKED, time.time())
        return True

    def _ask(self, vm: VM, claim: Claim, address: str | None, reason: str) -> str:
        """Ask systemd for the unit; say why there cannot be one, nothing if there will be, maybe after a boot."""
        marker = self._marker(vm, claim, address)
        choices = self.config.choices.with_vnc(address)
        is_taken_over = claim.replaces and claim.mod_revision == vm.mod_revision  # written together
        reason += "; it was taken over" if is_taken_over else ""
        self.teller.say_once(vm.uuid, f"starting: {reason}")
        self.teller.will_start(vm, reason)
        try:
            self.systemd.start(unit.name(vm.uuid), unit.properties(vm, choices, self.config.units, marker))
        except UnitExists:
            if problem := self.systemd.unit_file(unit.name(vm.uuid)):
                return problem
            raise
        except Refusal as refusal:
            if self.systemd.is_stopping():  # only since we asked
                return ""
            return f"systemd refused the unit: {refusal}"
        return ""

    def _limit(self, action: Limit) -> None:
        try:
            needs.check_images(action.vm, self.config, self.patience)  # PID 1 looks for the devices that they are on
        except needs.Missing:
            pass  # systemd says what it minds
        except Silence as silence:
            self.teller.say_once(action.vm.uuid, f"its limits wait for the file system of {silence}")
            return
        vm, is_pending = action.vm, action.evidence.fingerprint != action.vm.entry.fingerprint()
        self.teller.say(vm.uuid, f"changing its limits: {action.reason}")
        changed = limits.properties(vm, self.config.choices.accel, is_pending=is_pending)
        self.systemd.set_properties(unit.name(vm.uuid), changed)
        self.units.limited(vm.uuid, replace(action.evidence, limits=limits.fingerprint(vm, is_pending=is_pending)))

    def _marker(self, vm: VM, claim: Claim, address: str | None) -> Evidence:
        return Evidence(
            self.config.host,
            claim.id,
            vm.mod_revision,
            vm.entry.fingerprint(),
            vm.name,
            vnc=address or "",
            limits=limits.fingerprint(vm),
        )

    def _wait(self, vm: VM, entry: KeyValue | None, reason: str) -> bool:
        """Start nothing yet; people are told if it takes longer than usual."""
        if reason:
            self.teller.say_once(vm.uuid, f"not starting: {reason}")
            # FAILED keeps its reason: written in turns with this one, it would be told anew at each retry.
            if vm.entry.status != Status.FAILED and vm.entry.status_reason != reason:
                self._set_status(vm.uuid, entry, SetStatus(vm.mod_revision, None, reason, reason))
        return True

    def _fail(self, vm: VM, entry: KeyValue | None, text: str) -> bool:
        self.witness.drop(vm.uuid)
        return all(self.do(vm.uuid, entry, action) for action in reconcile.failed(vm, text))

    def _before(self, vm: VM) -> Iterator[VM]:
        """List the VMs that share something with this one and have a better right to it: they run, or were there
        earlier."""
        if self.given.sharing is None:
            all_ = (self.entries.desired(uuid, self.entries.entry(uuid)) for uuid in self.entries.uuids())
            self.given.sharing = Sharing(one for one in all_ if isinstance(one, VM))
        self.given.sharing.add(vm)  # it may be newer
        for uuid in self.given.sharing.others(vm):
            other = self.entries.desired(uuid, self.entries.entry(uuid))
            if not isinstance(other, VM) or not asks_to_run(other, self.me):
                continue
            is_started = uuid in self.units or uuid in self.given.screens
            if is_started or (other.create_revision, other.uuid) < (vm.create_revision, vm.uuid):
                yield other

    def _vnc_addresses(self, uuid: str) -> list[str]:
        """Addresses that other VMs have, or were given a moment ago: QEMU takes a while to listen."""
        given = {other: seen.evidence.vnc for other, seen in self.units.observed.items() if seen.evidence}
        return [address for other, address in (given | self.given.screens).items() if address and other != uuid]

    def _stop(self, action: Stop, reason: str, event: Name, revision: int) -> None:
        uuid, observed = action.uuid, self.units.get(action.uuid)
        self.teller.say(uuid, f"stopping: {reason}")
        invocation = self.units.invocation(uuid) or observed.invocation
        if reconcile.is_between_runs(observed, invocation):
            self.teller.about(uuid, action.event, between(invocation), reason)
        try:
            spool.write_intent(uuid, invocation, event, reason, revision)
        except OSError as error:
            self.teller.say(uuid, f"its stop will be told as one by hand: {error}")
        try:
            self.systemd.stop(unit.name(uuid))
        except Refusal:
            spool.remove_intent(uuid, invocation)  # the next stop may be somebody else's
            raise

    def _set_status(self, uuid: str, entry: KeyValue | None, action: SetStatus) -> bool:
        if entry is None or entry.mod_revision != action.mod_revision:
            return False
        changes = {"status_reason": action.text or None} | ({"status": str(action.status)} if action.status else {})
        try:
            written = self.store.set_status(entry, changes)
        except (ValueError, RecursionError):
            return True  # no JSON object: never written to; the log says it
        if written and action.status == Status.RUNNING:
            spool.remove_intent(uuid, self.units.get(uuid).invocation)  # of a stop that did not come about
            self.teller.counts.step(uuid, Step.WRITTEN, time.time())
        if written and action.status:
            self.teller.say(uuid, f"status {action.status}: {action.reason}")
        return written
