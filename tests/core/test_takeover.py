"""Whose VMs may be taken over, and the claim that says so."""

from datetime import UTC, datetime

import pytest

from core.vms import UUID, vm
from uncloud_host.facts import Claim, Desired, Gone, Invalid, Me
from uncloud_host.takeover import refusal, taken

DEAD, TO = Me("vmhost1", "1" * 32, "boot1"), Me("vmhost2", "2" * 32, "boot2")
REINSTALLED = Me("vmhost1", "3" * 32, "boot3")
CLAIM = Claim(UUID, "vmhost1", "1" * 32, "boot1", "old", 7, "2026-11-27T10:00:00.000Z", mod_revision=9)
ENTRY = vm()


@pytest.mark.parametrize(
    ("desired", "claim", "alive", "why"),
    [
        (ENTRY, CLAIM, None, ""),
        (ENTRY, CLAIM, REINSTALLED, ""),  # another machine has the name now
        (ENTRY, CLAIM, DEAD, "vmhost1 is alive: change its entry's host, and it moves"),
        (ENTRY, None, None, "no host has its claim: change its entry's host, and it starts there"),
        (ENTRY, Claim(UUID, "vmhost2", "2" * 32, "b", "new", 7, ""), TO, "vmhost2 has its claim already"),
        (ENTRY, Claim(UUID, "", "", "", "", 0, ""), None, "its claim cannot be read"),
        (Gone(UUID), CLAIM, None, "it has no entry in etcd"),
        (Invalid(UUID, "memory: expected a number", 7, 8, told=False), CLAIM, None, "memory: expected a number"),
    ],
)
def test_who_is_refused(desired: Desired, claim: Claim | None, alive: Me | None, why: str) -> None:
    assert refusal(desired, claim, alive, TO) == why


def test_the_new_claim_names_the_one_that_it_replaces() -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
    new = taken(CLAIM, ENTRY, TO, "new", now=now)
    assert (new.host, new.machine_id, new.boot_id) == ("vmhost2", "2" * 32, "boot2")
    assert (new.id, new.replaces, new.mod_revision) == ("new", "old", 9)
    assert (new.entry, new.since, new.held) == (ENTRY.create_revision, "2026-11-27T12:00:00.000Z", None)
