"""What the next mail tells, of all that waits: few mails, soon, and no VM hides another. Pure.

All that waits about one VM is one mail. It goes out at once, but

  * the end of a run waits for the beginning that follows it: one mail tells both
  * of a VM about which there were many mails lately only news goes out, and all else once in ten minutes
  * what repeats a trouble that has been told goes along with the next mail about that VM
  * many mails at once are one
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from uncloud_host import events
from uncloud_host.events import LASTING, Name, Spooled

PAIR = 1.5  # seconds that an end waits for the beginning; systemd restarts after one second at first
WINDOW, MOST = 600.0, 4  # seconds; mails about one VM in them
ALONG = 3600.0  # seconds that a repetition waits for another mail about its VM
BURST, SETTLE = 5, 2.5  # mails that wait at once; seconds in which more may come
MINUTE, RUSH, PAUSE = 60.0, 20, 15.0  # more mails than that in a minute: pauses between digests
ENDS = {*events.ENDS, Name.WATCHDOG} - {Name.STOPPED, Name.MOVED, Name.STOPPED_BY_HAND}  # that nobody asked for
_AFTER_END = frozenset({Name.STARTED, Name.RESTARTED, Name.GAVE_UP, Name.STOPPED_BY_HAND, Name.STOPPED})


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail that went out: when, in seconds since 1970, and what it told, as (VM, event)."""

    at: float
    told: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """What waits about one VM, or about the host; all VMs that are held are one group."""

    about: str
    events: tuple[Spooled, ...]  # oldest first
    due: float

    @property
    def since(self) -> float:
        return _seconds(self.events[0])


def choose(waiting: Sequence[Spooled], sent: Sequence[Sent], now: float) -> Sequence[Spooled] | float | None:
    """Give the events of the next mail, or when to look again (in seconds since 1970), or None if nothing waits.

    `waiting`: oldest first. `sent`: the mails of the last ten minutes, at least.
    """
    sent = [mail for mail in sent if now - WINDOW < mail.at <= now]  # a clock that was set back delays no mail
    groups = [_group(about, [_past(each, now) for each in told], sent) for about, told in _by_vm(waiting)]
    if not groups:
        return None
    due = [group for group in groups if group.due <= now]
    soon = [group for group in groups if group.due <= now + SETTLE]
    last_minute = [mail.at for mail in sent if mail.at > now - MINUTE]
    if due and len(last_minute) > RUSH and (ends := max(last_minute) + PAUSE) > now:
        return ends
    if len(soon) > BURST or len(last_minute) > RUSH:
        settled = min(min(group.since for group in soon) + SETTLE, max(group.due for group in soon)) if soon else now
        if due and settled <= now:
            return sorted((each for group in soon for each in group.events), key=lambda each: each.ns)
        return max(settled, min(group.due for group in groups))
    if due:
        return due[0].events
    return min(group.due for group in groups)


def _by_vm(waiting: Sequence[Spooled]) -> Iterator[tuple[str, list[Spooled]]]:
    found: dict[str, list[Spooled]] = {}
    for spooled in waiting:
        is_held = spooled.event.event == Name.HELD and not spooled.quiet
        found.setdefault(Name.HELD if is_held else spooled.event.vm, []).append(spooled)
    yield from found.items()


def _past(spooled: Spooled, now: float) -> Spooled:
    return spooled if _seconds(spooled) <= now else replace(spooled, ns=int((now - ALONG) * 1e9))


def _group(about: str, events: Sequence[Spooled], sent: Sequence[Sent]) -> _Group:
    loud = [spooled for spooled in events if not spooled.quiet]
    if not loud:
        return _Group(about, tuple(events), _seconds(events[0]) + ALONG)
    lately = [mail for mail in sent if any(vm == about for vm, _ in mail.told)]
    told = {event for mail in lately for vm, event in mail.told if vm == about}
    due = max(_pair(spooled, events) for spooled in loud)
    is_news = any(_is_news(spooled.event.event, told) for spooled in loud)
    if about and not is_news and sum(_weight(about, mail) for mail in lately) >= MOST:
        due = max(due, max(mail.at for mail in lately) + WINDOW)
    return _Group(about, tuple(events), due)


def _pair(spooled: Spooled, events: Sequence[Spooled]) -> float:
    """Tell until when an event waits for the one that follows it."""
    if spooled.event.event not in ENDS:
        return _seconds(spooled)
    followed = any(other.ns > spooled.ns and other.event.event in _AFTER_END for other in events)
    return _seconds(spooled) + (0.0 if followed else PAIR)


def _is_news(event: Name, told: set[str]) -> bool:
    return event in (Name.GAVE_UP, Name.RESOLVED) or (event in LASTING and event not in told)


def _weight(about: str, mail: Sent) -> int:
    """A mail about many ends counts as so many: the VM has not become calm."""
    return max(1, sum(vm == about and event in ENDS for vm, event in mail.told))


def _seconds(spooled: Spooled) -> float:
    return spooled.ns / 1e9
