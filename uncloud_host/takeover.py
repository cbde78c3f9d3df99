"""Taking over a VM from a host that is dead, by a person's word: what is refused, and what is written. Pure.

The claim that is written names the one which it replaces. That is the only reason for which a host that comes back, and
never knew that it was given up, stops what it still runs.
"""

from datetime import UTC, datetime

from uncloud_host.events import stamp
from uncloud_host.facts import Claim, Desired, Gone, Invalid, Me


def refusal(desired: Desired, claim: Claim | None, alive: Me | None, to: Me) -> str:
    """Say why a VM cannot be taken over; nothing if it can be.

    `alive`: who shows signs of life under the name of the host that has its claim.
    """
    if isinstance(desired, Gone):
        return "it has no entry in etcd"
    if isinstance(desired, Invalid):
        return desired.reason
    if claim is None:
        return "no host has its claim: change its entry's host, and it starts there"
    if not claim.machine_id:
        return "its claim cannot be read"
    if claim.is_of(to):
        return f"{to.host} has its claim already"
    if alive and claim.is_of(alive):
        return f"{claim.host} is alive: change its entry's host, and it moves"
    return ""


def taken(claim: Claim, desired: Desired, to: Me, id_: str, *, now: float) -> Claim:
    """Give the claim that replaces another one, for a host that is alive."""
    entry = 0 if isinstance(desired, Gone) else desired.create_revision
    since = stamp(datetime.fromtimestamp(now, UTC))
    replaces, revision = claim.id, claim.mod_revision
    return Claim(
        claim.uuid, to.host, to.machine_id, to.boot_id, id_, entry, since, replaces=replaces, mod_revision=revision
    )
