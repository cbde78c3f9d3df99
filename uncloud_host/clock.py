"""Whether what is old may be deleted: a clock that is months ahead makes all of it old."""

from contextlib import suppress
from pathlib import Path

from uncloud_host import spool

FILE = Path("/run/uncloud-host/clock")  # of this boot: the next agent goes on counting
HOUR = 3600.0
SET = 60.0  # seconds; less makes nothing old


class Clock:
    """When the clock was set last, as far as one thread has looked; any may ask. All times are seconds."""

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self._last = _read(file)  # uptime, and what the clock had more

    def look(self, now: float, uptime: float) -> None:
        """See whether it has been set since the last look. What only runs slower or faster is not: uptime does, too."""
        if not self._last or abs(now - uptime - self._last[1]) > SET:
            self._last = uptime, now - uptime
            with suppress(OSError):  # the next agent begins to count
                spool.replace(self._file, f"{uptime} {now - uptime}")

    def is_steady(self, now: float, uptime: float) -> bool:
        """Tell whether it has run for an hour unset: until then NTP may yet find that it is wrong."""
        if not self._last:
            return False
        since, more = self._last
        return abs(now - uptime - more) <= SET and uptime - since >= HOUR


def _read(file: Path) -> tuple[float, float] | None:
    try:
        uptime, more = map(float, file.read_text().split())
    except (OSError, ValueError):
        return None
    return uptime, more
