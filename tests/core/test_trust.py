"""Whose absence is believed, and when: mass deletions, new lists, histories that went backwards."""

import pytest
from freezegun import freeze_time

from core.vms import MINE
from uncloud_host import holds, news
from uncloud_host.trust import HEARSAY, LONG, RESERVE, Trust

HERE = [f"vm{number}" for number in range(9)]


@pytest.mark.parametrize(
    ("deleted", "doubted"),
    [
        ({"vm0": 7}, set()),
        ({"vm0": 7, "vm1": 8}, set()),  # one after the other: somebody means it
        ({"vm0": 7, "vm1": 7}, {"vm0", "vm1"}),
        ({"vm0": 7, "vm1": 7, "vm2": 8}, {"vm0", "vm1"}),
        ({"vm0": 7, "stopped": 7, "elsewhere": 7}, set()),  # one of them runs here
    ],
)
def test_running_vms_that_are_deleted_in_one_revision(deleted: dict[str, int], doubted: set[str]) -> None:
    assert holds.deleted_together(deleted, HERE).keys() == doubted


@pytest.mark.parametrize(
    ("missing", "running", "is_doubted"), [(3, 3, False), (4, 9, True), (4, 12, False), (9, 9, True)]
)
def test_running_vms_that_are_missing_at_a_new_list(missing: int, running: int, is_doubted: bool) -> None:
    here = [str(number) for number in range(running)]
    assert bool(holds.missing_at_once(here[:missing], here)) == is_doubted


def test_entries_that_were_all_put_back_meanwhile_are_doubted_like_missing_ones() -> None:
    trust = Trust()
    claims = dict.fromkeys(HERE, MINE)
    trust.listed(dict.fromkeys(HERE, MINE.entry), claims, HERE)
    assert trust.doubts == {}
    trust.listed(dict.fromkeys(HERE, MINE.entry + 50), claims, HERE)
    assert trust.doubts.keys() == set(HERE)


def test_after_a_regress_all_that_runs_here_is_doubted_and_nothing_starts_for_a_minute() -> None:
    with freeze_time() as clock:
        trust = Trust()
        trust.synced(news.Synced(9, relisted=True, regressed=True))
        trust.judge(HERE)
        assert {uuid: doubt.everything for uuid, doubt in trust.doubts.items()} == dict.fromkeys(HERE, True)
        assert "nothing is started" in trust.wait
        clock.tick(RESERVE)
        assert trust.wait == ""


def test_an_absence_that_nobody_told_of_is_believed_late() -> None:
    with freeze_time() as clock:
        trust = Trust()
        trust.deleted({"vm0": 7})
        trust.judge(HERE)
        assert trust.not_there("vm0")
        assert not trust.not_there("vm1")
        clock.tick(HEARSAY)
        assert trust.not_there("vm1")
        trust.there("vm0")
        assert not trust.not_there("vm0")


def test_etcd_is_lost_for_long_after_five_minutes() -> None:
    with freeze_time() as clock:
        trust = Trust()
        clock.tick(LONG - 1)
        assert not trust.is_lost_for_long
        clock.tick(1)
        assert trust.is_lost_for_long
        trust.synced(news.Synced(9, relisted=False, regressed=False))
        assert not trust.is_lost_for_long
