"""What is kept of what etcd tells, and what is told further."""

import pytest

from uncloud_host.etcd import Batch, KeyValue
from uncloud_host.news import Changed
from uncloud_host.replica import Replica

MINE, FOREIGN = b'{"host": "vmhost1"}', b'{"host": "vmhost2"}'


def listed(**entries: bytes) -> Replica:
    """All of them at revision 10."""
    replica = Replica(lambda _key, value: value == MINE, lambda key: key == "claim/a", hints=1)
    listing = replica.listing()
    listing.add(KeyValue(key, value, 5, 5) for key, value in entries.items())
    replica.replace(listing, 10)
    return replica


def put(key: str, value: bytes | None, revision: int) -> Changed | None:
    return listed(a=MINE, b=FOREIGN).apply(Batch(0, 99, ((key, value, 5, revision),)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("a", MINE, 11), Changed({"a": 11}, {})),
        (("a", FOREIGN, 11), Changed({"a": 11}, {})),  # it moves away, which concerns us
        (("a", None, 11), Changed({"a": 11}, {"a": 11})),
        (("b", MINE, 11), Changed({"b": 11}, {})),
        (("b", FOREIGN, 11), None),
        (("b", None, 11), None),
        (("a", None, 10), None),  # the list had it already
    ],
)
def test_what_concerns_us_is_told(change: tuple[str, bytes | None, int], told: Changed | None) -> None:
    assert put(*change) == told


def test_what_moved_away_is_kept_until_it_is_forgotten() -> None:
    replica = listed(a=MINE)
    replica.apply(Batch(0, 99, (("a", FOREIGN, 5, 11),)))
    assert replica.snapshot() == {"a": KeyValue("a", FOREIGN, 5, 11)}
    replica.forget("a")
    assert replica.get("a") is None


def test_what_came_back_is_not_forgotten() -> None:
    replica = listed(a=MINE)
    replica.forget("a")
    assert replica.get("a") is not None


def test_of_hints_only_interesting_keys_are_told_and_nothing_is_kept() -> None:
    replica = listed()
    changes = (("claim/a", b"", 11, 11), ("claim/b", b"", 12, 12), ("claim/a", None, 13, 13))
    assert replica.apply(Batch(1, 99, changes)) == Changed({"claim/a": 13}, {})
    assert (replica.applied, replica.snapshot()) == ([10, 13], {})


def test_a_deletion_is_told_though_the_entry_is_back() -> None:
    changes = (("a", None, 0, 11), ("a", MINE, 12, 12))
    assert listed(a=MINE).apply(Batch(0, 99, changes)) == Changed({"a": 12}, {"a": 11})
