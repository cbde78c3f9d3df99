"""Tell that systemd gave up a VM, from this host alone: what uncloud-host-notify@.service runs.

It needs neither the agent nor etcd nor the bus: PID 1 is asked by systemctl, the event goes into the spool, where the
agent finds it told, and the mail goes out from here. Who sees it first tells it, for the event's id is the same.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from uncloud_host import config, journal, keeping, outbox, status, traces, unit
from uncloud_host.endings import End, conclude, ended
from uncloud_host.events import Event, Name
from uncloud_host.shown import Shown
from uncloud_host.spool import Spool
from uncloud_host.troubles import Troubles
from uncloud_host.unit import State

logger = logging.getLogger(__name__)

EX_USAGE, EX_CONFIG = 64, 78


def notify(name: str) -> int:
    """Tell it, if it is so; the name is that of the unit, without its suffix. Exit status 1: the mail waits."""
    uuid = unit.uuid_of(f"{name}{unit.SUFFIX}")
    if uuid is None:
        logger.error("expected vm-UUID, got %r", name)
        return EX_USAGE
    try:
        known = config.read(os.environ)
    except config.ConfigError as error:
        logger.error("%s", error)  # noqa: TRY400 - a traceback tells an administrator nothing
        return EX_CONFIG
    spool = Spool()
    try:
        for event in _events(uuid, spool, known.host):
            keeping.keep(event, spool, Troubles())
    except OSError as error:
        logger.error("cannot keep what happened to VM %s: %s", uuid, error)  # noqa: TRY400
        return 1
    return 0 if outbox.flush(spool, known.mail) else 1


def _events(uuid: str, spool: Spool, host: str) -> Iterator[Event]:
    """Make the events that the agent makes of the same: how the last run ended, and that no other follows."""
    found = status.look([uuid]).get(uuid)
    if not found:
        return
    recorded = [end for _, end in spool.ends() if end and (end.vm, end.invocation) == (uuid, found.invocation)]
    end = recorded[-1] if recorded else _end(found)
    name, _ = conclude(end)
    if name in (Name.CRASHED, Name.COULD_NOT_START):
        end = replace(end, said=journal.last_words(end, name))
    if reason := given_up(found, end):
        if recorded:
            yield ended(end, host, found.name)
        now = datetime.now(UTC)
        yield Event(uuid, Name.GAVE_UP, found.invocation, now, host, found.name, reason, found.invocation)


def given_up(found: Shown, end: End) -> str:
    """Say why a VM does not run any more; nothing if it is about to run, or if its stop was asked for.

    OnFailure= is also for a stop that took too long.
    """
    is_stop = found.result == "timeout" or end.by in ("agent", "operator", "many", "restart", "shutdown")
    if found.state != State.FAILED or is_stop:
        return ""
    _, why = conclude(end)
    if found.restart == "no":
        return f"its restart is no, and {why}"
    return f"{found.limit} starts in an hour, at last {why}"


def _end(found: Shown) -> End:
    return End(
        vm=found.uuid,
        invocation=found.invocation,
        by="itself",
        result=found.result,
        exit_code=found.exit_code,
        exit_status=traces.exit_status(found.exit_code, found.exit_status),
        started=found.started,
        ended=found.ended,
    )
