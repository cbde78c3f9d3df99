"""What can be done about a VM, each step with its reason; `act` does it. Pure."""

from dataclasses import dataclass

from uncloud_host.events import Name
from uncloud_host.facts import Claim
from uncloud_host.models import VM, Status
from uncloud_host.unit import Evidence


@dataclass(frozen=True, slots=True)
class Start:
    """Claim the VM and start its unit."""

    vm: VM
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the unit; `event` is what its end will be told as."""

    uuid: str
    reason: str
    event: Name = Name.STOPPED


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget failures: frees the name of a unit that systemd has given up, renews the backoff of one that runs."""

    uuid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limit:
    """Change the limits of a unit that runs, perhaps with an older entry: `evidence` tells."""

    vm: VM
    evidence: Evidence
    reason: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Write status (None: leave it) and status_reason (no text: remove it), unless the entry has changed since."""

    mod_revision: int
    status: Status | None
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Secure:
    """Write our claim on a VM that runs here: it was lost, is out of date, or is to be held from now on.

    `claim.mod_revision` and `entry` are those of claim and entry as they were read (0: absent): if one of them has
    changed, nothing is written.
    """

    claim: Claim
    entry: int
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give up the claim: the VM is proven not to run here."""

    claim: Claim
    reason: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell people, once for each subject."""

    event: Name
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Start nothing for now."""

    uuid: str
    reason: str


Action = Start | Stop | Reset | Limit | SetStatus | Secure | Release | Tell | Wait
