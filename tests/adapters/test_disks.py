"""Files on a real disk that becomes full, or read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from adapters.conftest import free_ports
from aiosmtpd.controller import Controller

from uncloud_host.config import Mail
from uncloud_host.endings import End, ended
from uncloud_host.events import Event, Name
from uncloud_host.facts import Me, Observed
from uncloud_host.mail import MailError
from uncloud_host.outbox import Outbox
from uncloud_host.runs import Boots, Runs
from uncloud_host.spool import KEPT, Spool, write_end
from uncloud_host.unit import Evidence, State

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
EVENT = Event("", Name.HELD, "i1", datetime.now(UTC), "vmhost1", "", "etcd seems to have lost its data")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "disk", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Take all the room that there is."""
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while os.write(filler, bytes(4096)):
            pass
    os.close(filler)
    yield
    (disk / "filler").unlink()


def runs_on(disk: Path) -> Runs:
    return Runs(Me("vmhost1", "m1", "b1"), Boots(lambda: 5000.0), directory=disk)


def over(runs: Runs, invocation: str) -> None:
    end = End(UUID, invocation, "itself", exit_code="killed", exit_status="KILL", started=1000.5, ended=1010.0)
    runs.over(end, ended(end, "vmhost1", "web-1"))


def test_a_full_disk_loses_no_run(disk: Path) -> None:
    runs = runs_on(disk)
    runs.lost_are_told()
    with full(disk):
        evidence = Evidence("vmhost1", "c1", 1, "f", "web-1", "")
        runs.began(UUID, Observed(State.RUNNING, evidence, "i1", since=1000.0))
        over(runs, "i1")
        runs.stay_awake()
        assert list(disk.glob("runs/*.json")) == []
    assert len(runs.pending()) == 1
    runs.stay_awake()
    assert [run.stopped for run in runs_on(disk).pending()] == [1010000]


def test_what_was_told_while_the_disk_was_full_is_kept_no_more(disk: Path) -> None:
    """The other thread tells one as soon as the other is kept: the disk has room again."""
    news: list[str] = []

    def told() -> None:
        if news:
            runs.told([run for run in runs.pending() if not (disk / f"runs/{run.invocation}.json").exists()])

    runs = Runs(Me("vmhost1", "m1", "b1"), Boots(lambda: 5000.0), told, disk)
    runs.lost_are_told()
    with full(disk):
        over(runs, "i1")
        over(runs, "i2")
    news.append("there is room")
    runs.stay_awake()
    assert len(runs.pending()) == 1
    runs.stay_awake()


def test_a_disk_that_became_read_only_forgets_nothing(disk: Path) -> None:
    spool = Spool(disk)
    spool.add(EVENT)
    for channel in ("log", "mail"):
        spool.told(channel, spool.pending(channel))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    spool.forget(datetime.now(UTC).timestamp() + KEPT + 1)
    assert spool.has(EVENT)


def test_a_stop_that_finds_run_full_is_kept_on_disk(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It was lost, and the agent started again what somebody had stopped."""
    other = tmp_path_factory.mktemp("ends")
    end = End(UUID, "i1", "operator", result="success", ended=1020.0, is_after=True)
    with full(disk):
        write_end(end, (disk, other))
        with pytest.raises(OSError, match="No space"):
            write_end(end, (disk,))
    assert [End.read(path.read_bytes()) for path in other.iterdir()] == [end]


class Mailbox:
    """What aiosmtpd calls with each mail."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - its name for it
        self.mails.append(envelope.content)
        return "250 OK"


@contextmanager
def serving(mailbox: Mailbox, port: int) -> Iterator[None]:
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    yield
    server.stop()


def test_a_mail_that_was_taken_is_not_sent_again_because_that_cannot_be_written_down(disk: Path) -> None:
    mailbox, (port,), spool = Mailbox(), free_ports(1), Spool(disk)
    spool.add(EVENT)
    to = Mail(("sre@example.org",), "a@example.org", frozenset(Name), f"127.0.0.1:{port}")
    outbox = Outbox(spool, to, disk)
    with pytest.raises(MailError):  # what the mail tells is written down now
        outbox.send()
    with serving(mailbox, port):
        with full(disk):
            for _ in range(3):
                with pytest.raises(OSError, match="No space"):
                    outbox.send()
        outbox.send()
    assert (len(mailbox.mails), spool.pending("mail")) == (1, [])
