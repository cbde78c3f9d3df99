"""The command `audit`: look, look again at what has to last, show it or tell it."""

import contextlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

from uncloud_host import audit, machine, outbox, view
from uncloud_host.config import Config
from uncloud_host.etcd import EtcdError
from uncloud_host.events import clean, stamp
from uncloud_host.findings import Finding, Key
from uncloud_host.looking import show_json
from uncloud_host.reporting import Reporter
from uncloud_host.snapshot import Wrong
from uncloud_host.spool import Spool
from uncloud_host.survey import Survey
from uncloud_host.troubles import Troubles

LOCK = "/run/uncloud-host/audit.lock"
MOST = 1000  # findings that are shown in etcd
HEAD = ("CODE", "SINCE", "ABOUT", "WHAT")
CLEAN, FINDINGS, COULD_NOT_LOOK = 0, 1, 2


def run(arguments: Namespace, known: Config) -> int:
    """Make one audit; return its exit status. Raises SystemdError."""
    if os.geteuid() != 0:
        raise Wrong("audit: only root sees what all processes are; expected root")
    if arguments.tell and machine.lock(LOCK) is None:
        print("uncloud-host: another audit is under way", file=sys.stderr)
        return CLEAN
    spool, troubles = Spool(), Troubles()
    survey = Survey(known, spool, troubles)
    if arguments.tell and survey.is_stopping():
        return CLEAN  # what stops now is no finding
    reporter = Reporter(spool, troubles, known.host) if arguments.tell else None
    findings = _look(survey, reporter, wait=not arguments.now)
    if reporter:
        reporter.remind(known.reminder, time.time())
        _show_in_etcd(survey, findings)
        outbox.flush(spool, known.mail)  # the agent may be dead
    _print(findings, as_json=arguments.json)
    if survey.problem:
        print(
            f"uncloud-host: {clean(survey.problem)}; only what this host alone shows has been looked at",
            file=sys.stderr,
        )
        return COULD_NOT_LOOK
    return FINDINGS if findings else CLEAN


def _look(survey: Survey, reporter: Reporter | None, *, wait: bool) -> list[Finding]:
    """Look, and again when what was seen the first time may have lasted long enough; give what counts."""
    since: dict[Key, float] = {}
    watched: set[Key] | None = None
    while True:
        found = survey.look()
        findings = audit.remembered(audit.classify(found), since, found.open)
        since = {one.key: one.since for one in findings}
        ripe = [one for one in findings if one.due <= found.now]
        if reporter:
            reporter.tell(ripe, found.now)
            reporter.resolve(found, findings)
        young = {one.key: one.due for one in findings if one.due > found.now}
        watched = set(young) if watched is None else watched & young.keys()
        if not watched or not wait:
            return ripe
        _wait(min(young[key] for key in watched) - found.now, len(watched))


def _wait(seconds: float, number: int) -> None:
    seconds = min(max(seconds, 0.0), audit.SILENT) + 0.1  # by a clock that may be set meanwhile
    if sys.stderr.isatty():
        print(f"uncloud-host: {number} to be looked at again in {seconds:.0f} s, if they last", file=sys.stderr)
    time.sleep(seconds)


def _show_in_etcd(survey: Survey, findings: Sequence[Finding]) -> None:
    me = survey.me
    shown = {"time": stamp(datetime.now(UTC)), "host": me.host, "machine_id": me.machine_id}
    with contextlib.suppress(EtcdError):  # that it is away has been found out already, or will be
        if not survey.problem:
            survey.store.write_audit(me.host, shown | {"findings": [one.record() for one in findings[:MOST]]})


def _print(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        show_json([one.record() for one in findings])
    elif findings:
        print(view.columns([HEAD, *(_cells(one) for one in findings)]), end="")


def _cells(one: Finding) -> tuple[str, ...]:
    about = one.about if one.name in ("", one.about) else f"{one.about} ({one.name})"
    return (one.code, view.short(time.time() - one.since), about, one.sentence)
