"""How far etcd is to be believed just now: whether we are in step with it, and whose absence or change is in doubt."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from uncloud_host import holds, news
from uncloud_host.facts import Claim, Doubt

RESERVE = 60.0  # seconds after etcd went backwards: each host writes claims for what it runs before anybody starts more
LONG = 300.0  # seconds without etcd after which people are told


@dataclass(slots=True)
class Trust:
    """What the mirror told, and what follows from it for VMs that run here."""

    in_step: bool = False
    must_list: bool = False  # anything may have changed, claims too
    doubts: dict[str, Doubt] = field(default_factory=dict)
    _deleted: dict[str, int] = field(default_factory=dict)
    _regressed: bool = False
    _reserve: float = 0.0  # until when nothing is started
    _lost: float = field(default_factory=time.monotonic)

    def deleted(self, revisions: Mapping[str, int]) -> None:
        """Hear that entries were deleted."""
        self._deleted |= revisions

    def lost(self) -> None:
        """Hear that we are out of step."""
        self.in_step, self._lost = False, time.monotonic()

    def synced(self, told: news.Synced) -> None:
        """Hear that we are in step (again)."""
        self.in_step = True
        self.must_list |= told.relisted
        self._regressed |= told.regressed

    def judge(self, running: Collection[str]) -> None:
        """Doubt what was heard about VMs that run here, where it is too much at once."""
        if self._regressed:
            self._reserve = time.monotonic() + RESERVE
            doubt = Doubt("etcd's history went backwards, as if restored from a backup", everything=True)
            self.doubts |= dict.fromkeys(running, doubt)
            self._regressed = False
        self.doubts = holds.deleted_together(self._deleted, running) | self.doubts
        self._deleted = {}

    def listed(self, missing: Mapping[str, Claim | None], running: Collection[str]) -> None:
        """Doubt absences that a new list showed; `missing`: claims on VMs that run here without an entry."""
        new = {uuid for uuid, claim in missing.items() if claim is None or claim.held is None}
        self.doubts = holds.missing_at_once(new, running) | self.doubts
        self.must_list = False

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
