"""The command that tells how long VMs ran."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from uncloud_host import accounts, runtime, view
from uncloud_host.accounts import Period
from uncloud_host.events import clean
from uncloud_host.looking import show_json
from uncloud_host.runtime import Run
from uncloud_host.snapshot import Snapshot, Unknown, Wrong

T = TypeVar("T")


def show(arguments: Namespace, now: Snapshot) -> int:
    """List VMs with their sums, or the runs of one VM."""
    at = datetime.now(UTC)
    period, milliseconds = _period(arguments, at), round(at.timestamp() * accounts.SECOND)
    is_one = arguments.vm is not None
    found = _of_one(now, arguments.vm) if is_one else list(accounts.settled(_read(now)))
    if not is_one and not arguments.all:
        found = [run for run in found if run.host == now.me.host]
    lines = (accounts.runs if is_one else accounts.vms)(found, period, milliseconds)
    if arguments.json:
        show_json(lines)
    elif arguments.csv:
        print(accounts.as_csv(lines, of_runs=is_one), end="")
    else:
        print(accounts.table(lines, of_runs=is_one, hosts=arguments.all or is_one), end="")
    return 0


def _period(arguments: Namespace, now: datetime) -> Period:
    month = _option(arguments.month, "--month", "a month like 2026-11", accounts.month)
    time = "a date like 2026-11-25, or a time like 2026-11-25T16:00:00Z"
    since = _option(arguments.since, "--since", time, accounts.moment)
    until = _option(arguments.until, "--until", time, accounts.moment)
    if since is None and until is None:
        return month or accounts.this_month(now)
    if month:
        raise Wrong("--month: expected without --since and --until")
    if since is not None and until is not None and since >= until:
        raise Wrong("--since: expected a time before --until")
    return Period(since, until)


def _option(text: str | None, name: str, expected: str, read: Callable[[str], T]) -> T | None:
    try:
        return None if text is None else read(text)
    except (ValueError, OverflowError):
        raise Wrong(f"{name}: expected {expected}, got {text!r}") from None


def _of_one(now: Snapshot, word: str) -> list[Run]:
    """Read the runs of the VM that is meant, which may have no entry any more. Raises Wrong."""
    try:
        return list(accounts.settled(_read(now, now.find(word))))
    except Unknown:
        found = list(accounts.settled(_read(now)))
        uuids = view.matching(word, {run.vm: run.name for run in found})
        if len(uuids) > 1:
            raise Wrong(f"{word!r}: expected one VM, this may be {', '.join(uuids)}") from None
        if not uuids:
            raise
        return [run for run in found if run.vm in uuids]


def _read(now: Snapshot, uuid: str = "") -> Iterator[Run]:
    """Read records; tell in one line which could not be read."""
    bad: list[str] = []
    for path, value in now.store.runs(uuid):
        try:
            yield runtime.read(path, value)
        except (ValueError, RecursionError):
            bad.append(path)
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        line = f"the runtime record {bad[0]}{more} cannot be read and is left out"
        print(f"uncloud-host: {clean(line)}", file=sys.stderr)
