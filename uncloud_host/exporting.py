"""Serving metrics, if that is asked for: what is counted and what can be looked up, put together when somebody asks."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from uncloud_host import figures
from uncloud_host.channels import Channel
from uncloud_host.counts import Counts
from uncloud_host.figures import Family, Seen
from uncloud_host.observe import Units
from uncloud_host.spool import CHANNELS, Spool
from uncloud_host.threads import Threads
from uncloud_host.troubles import Trouble, Troubles
from uncloud_host.trust import Trust
from uncloud_host.unit import State
from uncloud_host.usage import usage

logger = logging.getLogger(__name__)

AGAIN = 30.0  # seconds between attempts to get an address that is taken


@dataclass(frozen=True, slots=True)
class Exporter:
    """Whom to ask. All of it is the deciding thread's and only read here, in the threads of those who want to know."""

    counts: Counts
    units: Units
    trust: Trust
    spool: Spool
    channels: Sequence[Channel]
    threads: Threads

    def begin(self, listen: tuple[str, int] | None) -> None:
        """Serve metrics from now on, in a thread; nothing at all without an address."""
        if listen:
            threading.Thread(target=self._serve, args=listen, name="metrics", daemon=True).start()

    def _serve(self, host: str, port: int) -> None:
        from uncloud_host.metrics import Server  # noqa: PLC0415 - who wants no metrics does not pay for them

        said = False
        while True:
            try:
                server = Server(host, port, self.look)
                break
            except OSError as error:
                if not said:
                    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                    logger.warning("UNCLOUD_METRICS_LISTEN: %s: %s; it is tried again", where, error.strerror or error)
                said = True
                time.sleep(AGAIN)
        if said:
            logger.info("metrics are served now")
        server.serve_forever(poll_interval=5.0)

    def look(self) -> Iterator[Family]:
        """Look how things stand."""
        units = dict(self.units.observed)
        running = [uuid for uuid, unit in units.items() if unit.evidence and unit.state == State.RUNNING]
        waiting = dict.fromkeys(CHANNELS, 0)
        open_: list[Trouble] = []
        with suppress(OSError):
            waiting = {channel: self.spool.waiting(channel) for channel in CHANNELS}
            open_ = Troubles().all()
        return figures.families(
            Seen(
                counts=self.counts,
                units=units,
                usage={uuid: usage(uuid) for uuid in running},
                etcd_connected=self.trust.in_step,
                etcd_reconnects=max(0, self.trust.connections - 1),
                bus_reconnects=max(0, self.threads.bus_connections - 1),
                waiting=waiting,
                failures={channel.name: channel.failures for channel in self.channels},
                troubles=[(trouble.kind, trouble.event) for trouble in open_],
            )
        )
