"""When is it over?"""

import pytest

from core.vms import ME, vm
from uncloud_host.facts import Claim, Desired, Gone, Invalid, Observed
from uncloud_host.lasting import over
from uncloud_host.unit import State

ABSENT, FAILED = Observed(State.ABSENT), Observed(State.FAILED, since=50)
OURS = Claim("u", ME.host, ME.machine_id, ME.boot_id, "c", 1, "")
HELD = Claim("u", ME.host, ME.machine_id, ME.boot_id, "c", 1, "", held=True)
CONFIRMED = Claim("u", ME.host, ME.machine_id, ME.boot_id, "c", 1, "", held=False)
THEIRS = Claim("u", "vmhost2", "m2", "b2", "c", 1, "")
BAD = Invalid("u", "why", 1, 1, told=True)


def runs(since: float) -> Observed:
    return Observed(State.RUNNING, since=since)


TABLE: list[tuple[str, Desired, Observed, Claim | None, str | None]] = [
    ("down", vm("RUNNING"), runs(95), OURS, None),  # not yet: it may end at once
    ("down", vm("RUNNING"), runs(90), OURS, "it runs again"),
    ("down", vm("FAILED"), FAILED, OURS, None),
    ("down", vm("FAILED"), ABSENT, OURS, None),
    ("down", vm("STOP"), ABSENT, None, "it is not asked to run here any more"),
    ("down", Gone("u"), FAILED, OURS, None),  # its unit is still to be cleared away
    ("down", Gone("u"), ABSENT, None, "it is not asked to run here any more"),
    ("disk", vm("RUNNING"), runs(5), OURS, None),
    ("disk", vm("RUNNING"), runs(15), OURS, "that run is over"),
    ("disk", vm("STOP"), ABSENT, None, "that run is over"),
    ("invalid", BAD, runs(5), OURS, None),
    ("invalid", vm("RUNNING"), runs(5), OURS, "its entry is valid, or gone"),
    ("held", Gone("u"), runs(5), HELD, None),
    ("held", Gone("u"), runs(5), CONFIRMED, "somebody confirmed it"),
    ("held", vm("RUNNING"), runs(5), OURS, "its entry is there again"),
    ("held", Gone("u"), ABSENT, None, "its claim was released"),
    ("wrong-host", vm("RUNNING"), runs(5), THEIRS, None),
    ("wrong-host", vm("RUNNING"), runs(5), OURS, "its claim is this host's, or gone"),
    ("duplicate-host", vm("RUNNING"), runs(5), THEIRS, None),
    ("foreign", Gone("u"), ABSENT, None, None),  # the audit's
]


@pytest.mark.parametrize(("kind", "desired", "observed", "claim", "why"), TABLE)
def test_it_is_over(kind: str, desired: Desired, observed: Observed, claim: Claim | None, why: str | None) -> None:
    assert over(kind, 10, desired, observed, claim, ME, now=100) == why
