"""Make a VM what it should be: read as much as must be read, let `reconcile` decide, do it."""

import time
from collections.abc import Container

from uncloud_host import reconcile
from uncloud_host.act import Hands
from uncloud_host.actions import Action, Start
from uncloud_host.ends import Ends
from uncloud_host.etcd import EtcdError, KeyValue
from uncloud_host.facts import Desired, Invalid, Observed
from uncloud_host.models import VM
from uncloud_host.retries import Retries
from uncloud_host.standing import Standing
from uncloud_host.systemd import Refusal, UnitExists
from uncloud_host.trust import Trust
from uncloud_host.unit import State


class Reconciler:
    """For the deciding thread. What it remembers lets it look at VMs less often; the next agent needs nothing of it."""

    def __init__(self, hands: Hands, ends: Ends, trust: Trust, standing: Standing) -> None:
        self._hands, self._ends, self._trust, self._standing = hands, ends, trust, standing
        self._me, self._units, self._witness = hands.me, hands.units, hands.witness
        self._entries, self._claims, self._teller = hands.entries, hands.claims, hands.teller
        self._retries = Retries()
        self._quiet: dict[str, tuple[int, Observed]] = {}  # nothing is to be done about these while they are so

    def changed(self, uuid: str) -> None:
        """Note that the entry or the claim of a VM is not what it was."""
        self._quiet.pop(uuid, None)

    def all_changed(self) -> None:
        """Note that history is another one: no entry and no claim need be what it was."""
        self._quiet.clear()

    def forget(self, others_than: Container[str]) -> None:
        """Forget VMs that are gone."""
        self._quiet = {uuid: quiet for uuid, quiet in self._quiet.items() if uuid in others_than}
        self._retries.forget(others_than)

    def finish(self, uuid: str) -> bool:
        """Do all that is to be done about one VM; False if something concerning this VM alone is in the way."""
        try:
            if self._ends.write(uuid):
                self._look_after(uuid)
        except UnitExists:
            # Somebody was faster, or systemd keeps a unit that failed until its OnFailure= is over. A signal tells.
            return False
        except Refusal as refusal:
            self._teller.say_once(uuid, f"systemd refused: {refusal}")
            return False
        except EtcdError as error:
            if error.is_about_all:
                raise
            self._teller.say_once(uuid, str(error))
            return False
        return True

    def _look_after(self, uuid: str) -> None:
        """Make one VM what it should be."""
        entry, observed = self._entries.entry(uuid), self._units.get(uuid)
        claim, doubt = self._claims.get(uuid), self._trust.doubts.get(uuid)
        if entry:
            self._trust.there(uuid)
        desired = self._desired(uuid, entry)
        retry = self._retries.is_due(uuid, desired)
        known = (entry.mod_revision if entry else 0, observed)
        # What changes by itself with time is never quiet.
        is_quiet = self._quiet.get(uuid) == known and not retry and observed.state in (State.ABSENT, State.FAILED)
        if not doubt and (is_quiet or reconcile.settled(desired, observed, claim, self._me, now=time.time())):
            return
        if doubt or reconcile.must_read(desired, observed, claim, self._me):
            entry, claim = self._claims.read(uuid)
            desired = self._desired(uuid, entry)
            if observed.state == State.ABSENT and uuid not in self._claims.mine():
                self._entries.leave(uuid)
        if isinstance(desired, Invalid) and not self._is_ours_to_report(uuid, entry, observed):
            self._trust.settled(uuid)
            return
        if entry is None and observed.state != State.ABSENT and not self._trust.not_there(uuid):
            return  # whether others were deleted with it is not known yet
        wait, now = self._standing.wait, time.time()
        actions = reconcile.plan(desired, observed, claim, self._me, now=now, retry=retry, doubt=doubt, wait=wait)
        if not all(self._do(uuid, entry, action, retry=retry) for action in actions):
            return
        self._trust.settled(uuid)
        if not actions and entry and not wait:  # else what is left undone is due when the wait is over
            self._quiet[uuid] = known

    def _do(self, uuid: str, entry: KeyValue | None, action: Action, *, retry: bool) -> bool:
        if isinstance(action, Start) and retry:
            self._retries.tried(uuid)
        known = self._claims.get(uuid)
        done = self._hands.do(uuid, entry, action)
        if isinstance(action, Start) and retry and self._witness.is_asked(uuid):
            self._retries.not_yet(uuid)
        claim = self._claims.get(uuid)
        if isinstance(action, Start) and not done and claim and claim != known:
            self._look_after(uuid)  # by the claim that is in the way
        return done

    def _desired(self, uuid: str, entry: KeyValue | None) -> Desired:
        desired = self._entries.desired(uuid, entry)
        if isinstance(desired, VM):
            self._teller.named(uuid, desired.name)
        return desired

    def _is_ours_to_report(self, uuid: str, entry: KeyValue | None, observed: Observed) -> bool:
        """An invalid entry is reported by the host that runs or claims the VM, else by the one that it names."""
        return self._entries.names_us(entry) or observed.state != State.ABSENT or uuid in self._claims.mine()
