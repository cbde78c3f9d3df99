"""When a clock is believed that says that something is old."""

from pathlib import Path

import pytest

from uncloud_host.clock import HOUR, SET, Clock

MONTH = 30 * 86400.0


@pytest.mark.parametrize(
    ("looks", "is_steady"),
    [
        ([(1000, 0)], False),
        ([(1000, 0), (1000 + HOUR - 1, HOUR - 1)], False),
        ([(1000, 0), (1000 + HOUR, HOUR)], True),
        ([(1000, 0), (1000 + HOUR + SET, HOUR)], True),
        ([(1000, 0), (MONTH + 1000 + HOUR, HOUR)], False),  # set
        ([(MONTH + 1000, 0), (1000 + HOUR, HOUR)], False),  # set back: it was wrong from the beginning
        ([(1000, 0), (MONTH + 1000 + HOUR, HOUR), (MONTH + 1000 + 2 * HOUR, 2 * HOUR)], True),
        ([(1000, 0), (MONTH + 1000 + HOUR, HOUR), (1000 + 2 * HOUR, 2 * HOUR)], False),  # set, and set back
    ],
)
def test_a_clock_is_believed_when_it_ran_for_an_hour_unset(
    looks: list[tuple[float, float]], is_steady: bool, tmp_path: Path
) -> None:
    clock = Clock(tmp_path / "clock")
    for look in looks:
        clock.look(*look)
    assert clock.is_steady(*looks[-1]) == is_steady
    assert Clock(tmp_path / "clock").is_steady(*looks[-1]) == is_steady  # the next agent


def test_a_clock_that_has_just_been_set_is_not_believed_before_anybody_has_looked(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    clock.look(1000, 0)
    assert not clock.is_steady(MONTH + 1000 + HOUR, HOUR)
    assert not Clock(tmp_path / "none").is_steady(1000, HOUR)


@pytest.mark.parametrize("text", ["", "1", "a b", "1 2 3"])
def test_a_file_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "clock").write_text(text)
    clock = Clock(tmp_path / "clock")
    clock.look(1000, HOUR)
    assert not clock.is_steady(1000, HOUR)
