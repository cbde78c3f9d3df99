"""Notice that what is wrong with a VM and lasts is over, and tell it: the shell around `lasting`."""

import time
from datetime import datetime

from uncloud_host import lasting
from uncloud_host.claims import Claims
from uncloud_host.desired import Entries
from uncloud_host.facts import Me
from uncloud_host.models import is_uuid
from uncloud_host.observe import Units
from uncloud_host.telling import Teller
from uncloud_host.troubles import Trouble, Troubles


class Resolver:
    """Looks at all VMs with troubles: few, mostly none."""

    def __init__(
        self, troubles: Troubles, teller: Teller, entries: Entries, units: Units, claims: Claims, me: Me
    ) -> None:
        self._troubles, self._teller, self._me = troubles, teller, me
        self._entries, self._units, self._claims = entries, units, claims

    def look(self) -> None:
        """Tell what is over. Only while etcd is believed: an absent entry would end troubles, too."""
        for trouble in self._troubles.all():
            if is_uuid(trouble.about) and (why := self._over(trouble)):
                self._teller.resolved(trouble.kind, trouble.about, why)

    def _over(self, trouble: Trouble) -> str | None:
        uuid = trouble.about
        return lasting.over(
            trouble.kind,
            datetime.fromisoformat(trouble.since).timestamp(),
            self._entries.desired(uuid, self._entries.entry(uuid)),
            self._units.get(uuid),
            self._claims.get(uuid),
            self._me,
            now=time.time(),
        )
