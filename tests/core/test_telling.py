"""What happened is kept in its order, also if there was no room for it at first."""

from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from uncloud_host.events import Event, Name
from uncloud_host.runs import Runs
from uncloud_host.spool import Spool
from uncloud_host.telling import Teller
from uncloud_host.troubles import Troubles

UUID = "00000000-0000-4000-8000-000000000001"


def event(name: Name) -> Event:
    return Event(UUID, name, name, datetime.now(UTC), "vmhost1", "web-1", "because")


def test_what_could_not_be_kept_is_kept_before_what_comes_later(tmp_path: Path) -> None:
    spool, runs = Spool(tmp_path), cast("Runs", None)  # nobody asks it
    teller = Teller(spool, Troubles(tmp_path / "troubles"), runs, "vmhost1", [])
    events, away = tmp_path / "events", tmp_path / "away"
    events.rename(away)  # as if the disk were full
    teller.tell(event(Name.KILLED))
    away.rename(events)
    teller.tell(event(Name.RESTARTED))
    assert [told.event.event for told in spool.pending("log")] == [Name.KILLED, Name.RESTARTED]
