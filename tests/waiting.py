"""Wait for a condition, with a deadline: no test sleeps for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

SELDOM = 0.3  # seconds; most conditions run programs in a host, and four workers that wait would keep two cores busy

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], *, within: float = 30.0, every: float = 0.05, what: str | Callable[[], str] = ""
) -> T:
    """Call `condition` until it gives something true, and return that; when time is up tell `what` was waited for.

    The longer it takes the more seldom it is called, at first after `every` second; 0: always at once.
    """
    began = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        waited = time.monotonic() - began
        if waited > within:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {within:g} s: {told}; last seen: {found!r}")
        time.sleep(max(every, min(waited / 10, SELDOM)) if every else 0)
