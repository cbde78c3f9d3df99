"""The Ceph of the lab is a Ceph: images, who has them open, and a monitor that dies and comes back."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from lab import Ceph, Lab, guests, tree
from waiting import eventually


@pytest.fixture
def ceph() -> Iterator[Ceph]:
    with Lab(f"ceph-{os.getpid() % 100000}", [tree.base()]) as lab:
        made = Ceph(lab.host("ceph1", [tree.ceph()]))
        made.boot()
        yield made


def test_it_keeps_images_and_knows_who_has_them_open(ceph: Ceph) -> None:
    ceph.load("one/a", guests.tiny())
    assert ceph.content("one/a") == guests.tiny().read_bytes()
    assert (ceph.boots("one/a"), ceph.watchers("one/a")) == (0, [])
    with ceph.host.popen("rbd", "watch", "one/a", stdin=subprocess.PIPE) as watch:
        (watcher,) = eventually(lambda: ceph.watchers("one/a"))
        assert watcher.startswith(ceph.host.address)
        ceph.blocklist(watcher)
        assert watcher in ceph.host.run("ceph", "osd", "blocklist", "ls").stdout
        watch.kill()
    assert len(ceph.key()) == 40
    ceph.kill_monitor()
    done = ceph.host.run("ceph", "--connect-timeout", "1", "mon", "stat", check=False)
    assert done.returncode != 0
    ceph.heal()
    ceph.remove("one/a")
