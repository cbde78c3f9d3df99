"""Mails to a real SMTP server, while the disk takes nothing any more."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from adapters.conftest import free_ports
from aiosmtpd.controller import Controller

from uncloud_host.config import Mail
from uncloud_host.events import Event, Name
from uncloud_host.outbox import Outbox
from uncloud_host.spool import Spool

HELD = Event("", Name.HELD, "i1", datetime.now(UTC), "vmhost1", "", "etcd seems to have lost its data")


class Mailbox:
    """What aiosmtpd calls with each mail."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - its name for it
        self.mails.append(envelope.content)
        return "250 OK"


def test_a_mail_that_was_taken_is_not_sent_again_because_that_cannot_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox, (port,) = Mailbox(), free_ports(1)
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        spool = Spool(tmp_path)
        spool.add(HELD)
        outbox = Outbox(
            spool, Mail(("sre@example.org",), "a@example.org", frozenset(Name), f"127.0.0.1:{port}"), tmp_path
        )
        write = Outbox._write

        def full(self: Outbox, batch: Any) -> None:
            if batch.sent:
                raise OSError(28, "No space left on device")
            write(self, batch)

        with monkeypatch.context() as patched:
            patched.setattr(Outbox, "_write", full)
            for _ in range(3):
                with pytest.raises(OSError, match="No space"):
                    outbox.send()
        outbox.send()
        assert (len(mailbox.mails), spool.pending("mail")) == (1, [])
    finally:
        server.stop()
