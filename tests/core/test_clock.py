"""When a clock is believed that says that something is old."""

import pytest

from uncloud_host.clock import HOUR, SET, Clock

MONTH = 30 * 86400.0


@pytest.mark.parametrize(
    ("looks", "is_steady"),
    [
        ([(1000, 0)], False),
        ([(1000, 0), (1000 + HOUR - 1, HOUR - 1)], False),
        ([(1000, 0), (1000 + HOUR, HOUR)], True),
        ([(1000, 0), (1000 + HOUR + SET, HOUR)], True),  # it was slow, and NTP makes it run faster
        ([(1000, 0), (MONTH + 1000 + HOUR, HOUR)], False),  # set
        ([(MONTH + 1000, 0), (1000 + HOUR, HOUR)], False),  # set back: it was wrong from the beginning
        ([(1000, 0), (MONTH + 1000 + HOUR, HOUR), (MONTH + 1000 + 2 * HOUR, 2 * HOUR)], True),
        ([(1000, 0), (MONTH + 1000 + HOUR, HOUR), (1000 + 2 * HOUR, 2 * HOUR)], False),  # set, and set back
    ],
)
def test_a_clock_is_believed_when_it_ran_for_an_hour_unset(looks: list[tuple[float, float]], is_steady: bool) -> None:
    clock = Clock()
    assert [clock.is_steady(*look) for look in looks][-1] == is_steady
