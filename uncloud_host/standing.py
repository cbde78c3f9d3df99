"""How this host stands: whether its name is its own, and whether it has etcd."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from uncloud_host.etcd import EtcdError
from uncloud_host.events import Name, stamp
from uncloud_host.facts import Me, Observed
from uncloud_host.presence import LEASE, Presence
from uncloud_host.telling import Teller
from uncloud_host.trust import Trust

logger = logging.getLogger(__name__)

STAY = LEASE / 3  # seconds after which our sign of life is renewed in the middle of a pass
ALONE = 180.0  # seconds without a sign of another machine with our name; what is read may be what we wrote ourselves


class WrongName(Exception):
    """VMs run here that were started under another name of this host."""


class Standing:
    """What concerns the host as a whole."""

    def __init__(self, me: Me, presence: Presence, trust: Trust, teller: Teller) -> None:
        self._me, self._presence, self._trust, self._teller = me, presence, trust, teller
        self._double = self._lost = ""  # since when another machine has our name, and since when etcd is away, if told
        self._seen = time.monotonic()  # when the other machine was last seen, or might have been
        self._shown = time.monotonic()
        self._problem = ""  # said last

    @property
    def wait(self) -> str:
        """Why nothing is started now."""
        return self._trust.wait or (f"another machine is also called {self._me.host}" if self._double else "")

    def check_name(self, observed: Mapping[str, Observed]) -> None:
        """Raise WrongName if our name has changed: every entry would look like a move away from here."""
        for uuid, unit in observed.items():
            if unit.evidence and unit.evidence.host != self._me.host:
                raise WrongName(
                    f"UNCLOUD_HOST_NAME: this host is {self._me.host} now, but VM {uuid} was started on it as "
                    f"{unit.evidence.host}; nothing is started or stopped until that is put right"
                )

    def show(self, vms: int) -> None:
        """Show that we are alive, and notice another machine with our name."""
        self._shown = time.monotonic()
        try:
            other = self._presence.show(vms)
        except EtcdError as error:
            if error.is_about_all:
                raise
            if str(error) != self._problem:
                self._problem = str(error)
                logger.warning("%s; this host cannot show that it is alive", error)
            return
        if other:
            self._seen = time.monotonic()
        if other and not self._double:
            self._double = f"{other} {_now()}"
            text = f"{other} also says that it is {self._me.host}; neither of the two starts anything"
            self._teller.about_host(Name.DUPLICATE_HOST, self._double, text)
        elif time.monotonic() - self._seen >= ALONE:
            self._teller.resolved("duplicate-host", "", "no other machine has its name any more")
            self._double = ""

    def stay(self) -> None:
        """Go on to show that we are alive: on a slow etcd a pass over a thousand VMs takes longer than a lease."""
        if self._trust.in_step and time.monotonic() - self._shown >= STAY:
            with suppress(EtcdError):  # the pass itself will tell
                self._presence.stay()
                self._shown = time.monotonic()

    def tell_of_etcd(self) -> None:
        """Tell people that etcd is away for long, and that it is back."""
        if self._trust.is_lost_for_long and not self._lost:
            self._lost = _now()
            text = "it could not be read for 5 minutes; VMs run on, but nothing is started or stopped"
            self._teller.about_host(Name.ETCD_LOST, self._lost, text)
        elif self._trust.in_step and self._lost:
            self._teller.about_host(Name.ETCD_BACK, self._lost, "what was asked meanwhile is done now")
            self._lost = ""


def _now() -> str:
    return stamp(datetime.now(UTC))
