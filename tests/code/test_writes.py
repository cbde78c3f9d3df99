"""What tests/faults/test_killed.py tries is all that there is; said here, where it is said at once."""

from faults.boundaries import CALLS
from faults.writes import ELSEWHERE, writers


def test_no_write_is_without_its_death() -> None:
    """A function that writes and is not in the table is a boundary that nobody has tried."""
    tried = {call.removeprefix("uncloud_host.") for call in CALLS}
    assert writers() - ELSEWHERE.keys() - tried == set()
    assert ELSEWHERE.keys() - writers() == set()  # no longer there
    assert {where for where in ELSEWHERE.values() if ":" in where} - set(CALLS) - ELSEWHERE.keys() == set()
