"""Tell what an audit has found, each once while it lasts, and what of it is over.

An event is in the spool before its trouble ends: whoever dies in between leaves something for the next audit, which
finds the event there and goes on.
"""

from collections.abc import Sequence
from datetime import datetime

from uncloud_host import audit, keeping
from uncloud_host.facts import Observed
from uncloud_host.findings import Finding, Found
from uncloud_host.models import VM
from uncloud_host.spool import Spool
from uncloud_host.troubles import Troubles
from uncloud_host.unit import State


class Reporter:
    """Makes events of findings, on this host."""

    def __init__(self, spool: Spool, troubles: Troubles, host: str) -> None:
        self._spool, self._troubles, self._host = spool, troubles, host

    def tell(self, findings: Sequence[Finding], now: float) -> None:
        """Tell those that nobody has told yet."""
        for one in findings:
            if one.event and not self._troubles.is_open(*one.key):
                keeping.keep(one.told(self._host, now), self._spool, self._troubles, one.about)

    def resolve(self, found: Found, findings: Sequence[Finding]) -> None:
        """Tell what has lasted and is not found any more; not what one cannot know now."""
        lasts = {one.key for one in findings}
        for trouble in self._troubles.all():
            since = found.open.get((trouble.kind, trouble.about))
            if since is None or (trouble.kind, trouble.about) in lasts:
                continue  # begun since
            if why := audit.over(trouble.kind, trouble.about, since, found):
                name = _name(trouble.about, found)
                keeping.keep(keeping.resolved(trouble, self._host, name, why), self._spool, self._troubles)
                self._troubles.end(trouble.kind, trouble.about)

    def remind(self, hours: int, now: float) -> None:
        """Tell again what lasts, once in so many hours."""
        troubles = self._troubles.all()
        oldest = min((datetime.fromisoformat(one.since).timestamp() for one in troubles), default=now)
        lasts = [(one.about, f"{one.event} since {one.since}") for one in troubles]
        if event := audit.reminder(lasts, oldest, self._host, hours, now):
            keeping.keep(event, self._spool, self._troubles)


def _name(uuid: str, found: Found) -> str:
    """What people call a VM."""
    desired = found.etcd.vms.get(uuid, (None, None))[0] if found.etcd else None
    if isinstance(desired, VM):
        return desired.name
    evidence = found.units.get(uuid, Observed(State.ABSENT)).evidence
    return evidence.name if evidence else uuid
