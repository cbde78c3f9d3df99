"""Keep what happened, once, whoever sees it: an event in the spool, a trouble if it lasts, a line in the journal."""

from contextlib import suppress
from datetime import UTC, datetime

from uncloud_host import systemd, unit
from uncloud_host.events import LASTING, Event, Name, clean, stamp
from uncloud_host.shown import clock, span
from uncloud_host.spool import Spool
from uncloud_host.troubles import Trouble, Troubles

WARNING, INFO = 4, 6  # syslog's priorities


def keep(event: Event, spool: Spool, troubles: Troubles) -> bool:
    """Keep an event and say it in the journal; False if somebody has seen it before. Raises OSError: the disk is full.

    One that only repeats an open trouble is quiet. The trouble comes first and names its event: who dies between the
    two finds it again.
    """
    if spool.has(event):
        return False
    kind, is_news = LASTING.get(event.event), True
    if kind:
        with suppress(OSError):
            is_news = troubles.begin(Trouble(kind, event.vm, stamp(event.time), event.event, event.reason, event.id))
    if not spool.add(event, quiet=not is_news):
        return False
    say(event.vm, event.sentence, WARNING if event.is_failure else INFO, event)
    return True


def over(trouble: Trouble, host: str, name: str, reason: str) -> Event:
    """Make the event that tells that a trouble is over, with what was wrong and for how long."""
    now = datetime.now(UTC)
    trail = {"was": f"{trouble.event}: {trouble.reason}"} if trouble.event else {}
    with suppress(ValueError):
        since = datetime.fromisoformat(trouble.since)
        trail["since"] = f"{clock(since.timestamp())}, for {span((now - since).total_seconds())}"
    return Event(
        vm=trouble.about if _is_vm(trouble) else "",
        event=Name.RESOLVED,
        subject=f"{trouble.kind} {trouble.since}",
        time=now,
        host=host,
        name=name,
        reason=f"{reason} ({trouble.event}: {trouble.reason})" if trouble.event else reason,
        trail=trail,
    )


def _is_vm(trouble: Trouble) -> bool:
    return trouble.kind not in ("host-silent", "agent-down")


def say(uuid: str, text: str, priority: int, event: Event | None = None) -> None:
    """Write a line that `journalctl -u vm-UUID` shows with the VM's own."""
    about = {"UNCLOUD_EVENT": event.event, "UNCLOUD_INVOCATION": event.invocation} if event else {}
    if uuid := clean(uuid):
        about |= {"OBJECT_SYSTEMD_UNIT": unit.name(uuid), "UNCLOUD_VM": uuid}
    systemd.journal(text, priority, **about)
