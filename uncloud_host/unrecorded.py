"""The ends of runs that left no record: `systemctl kill -s KILL` kills a VM's recorder, too. The journal is asked."""

import time
from collections.abc import Callable
from dataclasses import replace

from uncloud_host import journal, spool
from uncloud_host.endings import End
from uncloud_host.facts import Observed
from uncloud_host.unit import State

TRIES, AGAIN = 5, 0.1  # seconds between them


class Unrecorded:
    """`here`: the first open run of each VM, which an earlier agent saw begin; `is_told`: whether an end has been."""

    def __init__(self, here: dict[str, str], is_told: Callable[[str, str], bool]) -> None:
        self._recalled, self._is_told = here, is_told

    def recalled(self) -> set[str]:
        """List VMs which an earlier agent saw begin a run and not end it, and which nobody has looked at since."""
        return set(self._recalled)

    def find(self, uuid: str, old: Observed, new: Observed) -> list[End]:
        """Find the ends of a VM's runs that nobody has told, from how its unit was and how it is."""
        may_have_missed = uuid in self._recalled or new.restarts > old.restarts + 1  # whole runs
        before = self._recalled.pop(uuid, "") or (old.invocation if old.evidence else "")
        is_between = new.state in (State.RESTARTING, State.FAILED)
        if not before and new.evidence and (is_between or new.restarts):
            return self._never_seen(uuid)
        if not before or not (is_between or new.invocation != before):
            return []
        found = []
        if not self._is_told(uuid, before):
            found = _ends(uuid, before)
        elif may_have_missed:
            found = journal.unrecorded(uuid, before)
        # A run that began and ended since the last look, and whose recorder was killed.
        known = {before, *(end.invocation for end in found)}
        if is_between and new.invocation not in known and not self._is_told(uuid, new.invocation):
            found += _from_journal(uuid, new.invocation, tries=2)
        return [end for end in found if not self._is_told(uuid, end.invocation)]

    def _never_seen(self, uuid: str) -> list[End]:
        """Find the ends of a VM of which no agent saw a run begin: its agent ended as soon as it had asked for it."""
        found = journal.unrecorded(uuid, "")
        return [
            end for end in found if end.ended > time.time() - spool.FRESH and not self._is_told(uuid, end.invocation)
        ]


def _ends(uuid: str, before: str) -> list[End]:
    """Ask the journal how runs ended, from this one on; what it does not know ended as the recorder did: killed."""
    found = _from_journal(uuid, before, TRIES)
    if not found:
        found = [End(uuid, before, "itself", exit_code="killed", exit_status="KILL", ended=time.time())]
    if intent := spool.read_intent(uuid, before):
        found[0] = replace(found[0], by="agent", event=intent[0], why=intent[1])
    return found


def _from_journal(uuid: str, since: str, tries: int) -> list[End]:
    for _ in range(tries):  # journald may be a moment behind PID 1
        if found := journal.unrecorded(uuid, since):
            return found
        time.sleep(AGAIN)
    return []
