"""Say in the journal what happens to a VM, so that `journalctl -u vm-UUID` shows it with the VM's own lines."""

from uncloud_host import systemd, unit
from uncloud_host.events import Event, clean

WARNING, INFO = 4, 6  # syslog's priorities


def say(uuid: str, text: str, priority: int = INFO, event: Event | None = None) -> None:
    """Write a line about a VM, or, without a uuid, about the host."""
    about = {"UNCLOUD_EVENT": event.event, "UNCLOUD_INVOCATION": event.invocation} if event else {}
    if uuid := clean(uuid):
        about |= {"OBJECT_SYSTEMD_UNIT": unit.name(uuid), "UNCLOUD_VM": uuid}
    systemd.journal(text, priority, **about)


def say_event(event: Event) -> None:
    """Write what is told of an event."""
    say(event.vm, event.sentence, WARNING if event.is_failure else INFO, event)
