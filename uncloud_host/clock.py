"""Whether what is old may be deleted: a clock that is months ahead makes all of it old. Pure."""

HOUR = 3600.0
SET = 60.0  # seconds that a clock gains by being set; to keep it right adds 1.8 s an hour at most (adjtimex(2))


class Clock:
    """Remembers when the clock was set last, as far as it has been looked at. For one thread."""

    def __init__(self) -> None:
        self._since: float | None = None  # uptime
        self._offset = 0.0

    def is_steady(self, now: float, uptime: float) -> bool:
        """Tell whether it has run for an hour unset: until then NTP may yet find that it is wrong. Both in seconds."""
        offset = now - uptime
        if self._since is None or abs(offset - self._offset) > SET:
            self._since, self._offset = uptime, offset
        return uptime - self._since >= HOUR
