"""Keep what happened, once, whoever sees it: an event in the spool, a trouble if it lasts, a line in the journal."""

from contextlib import suppress
from datetime import UTC, datetime

from uncloud_host.events import LASTING, Event, Name, stamp
from uncloud_host.models import is_uuid
from uncloud_host.saying import say_event
from uncloud_host.shown import clock, span
from uncloud_host.spool import Spool
from uncloud_host.troubles import Trouble, Troubles


def keep(event: Event, spool: Spool, troubles: Troubles, about: str = "") -> bool:
    """Keep an event and say it in the journal; False if somebody has seen it before. Raises OSError: the disk is full.

    `about`: what lasts, if that is no VM. An event that only repeats an open trouble is quiet. The trouble comes first
    and names its event: who dies between the two finds it again.
    """
    if spool.has(event):
        return False
    kind, is_news = LASTING.get(event.event), True
    if kind:
        with suppress(OSError):
            time = stamp(event.time)
            is_news = troubles.begin(Trouble(kind, about or event.vm, time, event.event, event.reason, event.id))
    if not spool.add(event, quiet=not is_news):
        return False
    say_event(event)
    return True


def resolved(trouble: Trouble, host: str, name: str, reason: str) -> Event:
    """Make the event that tells that a trouble is over, with what was wrong and for how long."""
    now = datetime.now(UTC)
    trail = {"was": f"{trouble.event}: {trouble.reason}"} if trouble.event else {}
    with suppress(ValueError):
        since = datetime.fromisoformat(trouble.since)
        trail["since"] = f"{clock(since.timestamp())}, for {span((now - since).total_seconds())}"
    vm = trouble.about if is_uuid(trouble.about) else ""
    return Event(
        vm=vm,
        event=Name.RESOLVED,
        subject=f"{trouble.kind} {'' if vm else trouble.about} {trouble.since}",
        time=now,
        host=host,
        name=name,
        reason=f"{reason} ({trouble.event}: {trouble.reason})" if trouble.event else reason,
        trail=trail,
    )
