"""When what is wrong with a VM and lasts is over. Pure."""

from uncloud_host.claiming import asks_to_run
from uncloud_host.facts import Claim, Desired, Invalid, Me, Observed
from uncloud_host.models import VM
from uncloud_host.reconcile import HEALTHY
from uncloud_host.unit import State


def over(
    kind: str, since: float, desired: Desired, observed: Observed, claim: Claim | None, me: Me, *, now: float
) -> str | None:
    """Say why a trouble of this kind (events.LASTING), which began at `since`, is over; None while it is not.

    Times in seconds since 1970. What is gone here is over here: nobody is to look for it on this host.
    """
    is_asked = isinstance(desired, VM) and asks_to_run(desired, me)
    runs = observed.state == State.RUNNING
    match kind:
        case "down":
            if runs and now - observed.since >= HEALTHY:
                return "it runs again"
            return None if is_asked or observed.state != State.ABSENT else "it is not asked to run here any more"
        case "disk":
            return None if runs and observed.since <= since else "that run is over"
        case "invalid":
            return None if isinstance(desired, Invalid) else "its entry is valid, or gone"
        case "held":
            return None if claim and claim.is_of(me) and claim.held else _why_not_held(is_asked, claim)
        case "wrong-host" | "duplicate-host":
            is_ours = claim is None or claim.is_of(me)
            return "its claim is this host's, or gone" if is_ours or observed.state == State.ABSENT else None
    return None


def _why_not_held(is_asked: bool, claim: Claim | None) -> str:
    if is_asked:
        return "its entry is there again"
    return "somebody confirmed it" if claim and claim.held is False else "its claim was released"
