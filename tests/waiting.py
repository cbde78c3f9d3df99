"""Wait for a condition, with a deadline: no test sleeps for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], *, within: float = 30.0, every: float = 0.05, what: str | Callable[[], str] = ""
) -> T:
    """Call `condition` until it gives something true, and return that; when time is up tell `what` was waited for."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {within:g} s: {told}; last seen: {found!r}")
        time.sleep(every)
