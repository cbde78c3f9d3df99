"""What Ceph said of a VM's disks counts once, soon, and for the claim under which it was asked."""

import time

import pytest

from core.vms import UUID
from uncloud_host import witness
from uncloud_host.config import Ceph
from uncloud_host.models import VM, parse
from uncloud_host.witness import Free, Later, No, Witness

BUSY = Later("waits for 10.0.0.7 (client.4123) to close disks[0].rbd: one/a")


def vm(disks: str = '{"rbd": "one/a"}', revision: int = 7) -> VM:
    return VM(UUID, parse(f'{{"host": "vmhost1", "disks": [{disks}]}}'.encode()), 5, revision)


@pytest.fixture
def asked() -> Witness:
    """It has been asked once, and nobody has looked yet."""
    made = Witness(Ceph("/etc/ceph/ceph.conf", "libvirt", "/etc/ceph/keyring"), lambda _uuid: None)
    assert made.ask(vm(), "claim-1") == Later()
    return made


def look(asked: Witness, answer: witness.Answer, ago: float = 0.0) -> None:
    """Do what a worker does."""
    found = asked._queue.get(timeout=10)
    found.at, found.answer = time.monotonic() - ago, answer


def is_to_look(asked: Witness) -> bool:
    return not asked._queue.empty()


@pytest.mark.parametrize("answer", [Free(), No("disks[0].rbd: one/a is open elsewhere")])
def test_an_answer_is_used_once(asked: Witness, answer: witness.Answer) -> None:
    look(asked, answer)
    assert asked.ask(vm(), "claim-1") == answer
    assert not is_to_look(asked)
    assert asked.ask(vm(), "claim-1") == Later()
    assert is_to_look(asked)


def test_while_nobody_has_looked_nobody_else_is_sent(asked: Witness) -> None:
    assert [asked.ask(vm(), "claim-1") for _ in range(3)] == [Later()] * 3
    assert asked._queue.qsize() == 1


def test_an_old_answer_is_none(asked: Witness) -> None:
    look(asked, Free(), ago=witness.FRESH + 1)
    assert asked.ask(vm(), "claim-1") == Later()
    assert is_to_look(asked)


def test_an_answer_is_for_its_claim_and_its_disks(asked: Witness) -> None:
    look(asked, Free())
    assert asked.ask(vm(), "claim-2") == Later()
    look(asked, Free())
    assert asked.ask(vm('{"rbd": "one/b"}'), "claim-2") == Later()
    look(asked, Free())
    assert asked.ask(vm('{"rbd": "one/b"}', revision=8), "claim-2") == Free()


def test_who_is_told_to_wait_is_looked_at_again(asked: Witness) -> None:
    look(asked, BUSY)
    assert asked.ask(vm(), "claim-1") == BUSY
    assert asked.is_asked(UUID)
    look(asked, Free())
    assert asked.ask(vm(), "claim-1") == Free()
    assert not asked.is_asked(UUID)


@pytest.mark.parametrize("disks", ["", '{"file": "/images/a"}', '{"rbd": "one/iso", "readonly": true}'])
def test_what_is_not_written_to_is_not_looked_at(asked: Witness, disks: str) -> None:
    assert asked.ask(vm(disks), "claim-1") == Free()


def test_disks_are_called_as_in_the_entry() -> None:
    (disk,) = witness.disks(vm('{"file": "/images/a"}, {"rbd": "one/tenant-7/b"}'))
    assert str(disk) == "disks[1].rbd: one/tenant-7/b"
    assert (disk.pool, disk.namespace, disk.image) == ("one", "tenant-7", "b")
