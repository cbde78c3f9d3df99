"""How far etcd is to be believed just now: whether we are in step with it, and whose absence or change is in doubt."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from uncloud_host import holds, news
from uncloud_host.facts import Claim, Doubt

RESERVE = 60.0  # seconds after etcd went backwards: each host writes claims for what it runs before anybody starts more
HEARSAY = 30.0  # seconds after which an absence is believed that nobody told of
JUDGED = -math.inf  # an absence that was told is as old as need be
LONG = 300.0  # seconds without etcd after which people are told


@dataclass(slots=True)
class Trust:
    """What the mirror told, and what follows from it for VMs that run here.

    In each pass, in this order: `judge` what was told of deletions and of history; if `must_list`, `listed`;
    then VM by VM `there` or `not_there`, and `settled` when the claim says what came of a doubt.
    """

    in_step: bool = False
    connections: int = 0  # how often we came in step
    must_list: bool = False  # anything may have changed, claims too
    doubts: dict[str, Doubt] = field(default_factory=dict)
    _deleted: dict[str, int] = field(default_factory=dict)
    _regressed: bool = False
    _reserve: float = 0.0  # until when nothing is started
    may_forget: bool = False  # the history known before is over
    _gone: dict[str, float] = field(default_factory=dict)  # since when entries are known to be absent
    _lost: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 - looked up late: tests have clocks

    def deleted(self, revisions: Mapping[str, int]) -> None:
        """Hear that entries were deleted."""
        self._deleted |= revisions

    def lost(self) -> None:
        """Hear that we are out of step."""
        self._lost = time.monotonic() if self.in_step else self._lost
        self.in_step = False

    def synced(self, told: news.Synced) -> None:
        """Hear that we are in step (again)."""
        self.connections += not self.in_step
        self.in_step = True
        self.must_list |= told.relisted
        self._regressed |= told.regressed

    def judge(self, running: Collection[str]) -> None:
        """Doubt what was heard about VMs that run here, where it is too much at once."""
        if self._regressed:
            self._reserve = time.monotonic() + RESERVE
            doubt = Doubt("etcd's history went backwards, as if restored from a backup", everything=True)
            self.doubts |= dict.fromkeys(running, doubt)
            self._regressed, self.may_forget = False, True
        self.doubts = holds.deleted_together(self._deleted, running) | self.doubts
        self._gone = {uuid: since for uuid, since in self._gone.items() if uuid in running}
        self._gone |= dict.fromkeys(self._deleted, JUDGED)
        self._deleted = {}

    def listed(self, entries: Mapping[str, int], claims: Mapping[str, Claim], running: Collection[str]) -> None:
        """Doubt absences that a new list showed; `entries`: the create_revisions of the entries of what runs here.

        An entry that is not the one that was claimed counts as absent: somebody may have put all back.
        """
        missing = {uuid for uuid in running if uuid not in entries}
        other = {uuid for uuid, created in entries.items() if uuid in claims and claims[uuid].entry not in (0, created)}
        new = {uuid for uuid in missing | other if uuid not in claims or claims[uuid].held is None}
        self.doubts = holds.missing_at_once(new, running) | self.doubts
        self._gone |= dict.fromkeys(missing, JUDGED)
        self.must_list = False

    def there(self, uuid: str) -> None:
        """Hear that an entry is there."""
        self._gone.pop(uuid, None)

    def settled(self, uuid: str) -> None:
        """Hear that what is doubted of a VM has had its consequences, if anything was."""
        self.doubts.pop(uuid, None)

    def not_there(self, uuid: str) -> bool:
        """Hear that an entry is absent; tell whether that is judged: what is read may be newer than what was told."""
        return time.monotonic() - self._gone.setdefault(uuid, time.monotonic()) >= HEARSAY

    @property
    def wait(self) -> str:
        """Why nothing is started now."""
        if time.monotonic() < self._reserve:
            return f"etcd's history went backwards; for {RESERVE:.0f} s nothing is started"
        return ""

    @property
    def is_lost_for_long(self) -> bool:
        """Tell whether people should know that etcd is away."""
        return not self.in_step and time.monotonic() - self._lost >= LONG
