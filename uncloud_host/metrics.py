"""Metrics for Prometheus: the only module that imports prometheus_client. Serves them over HTTP, to anybody.

Whoever asks gets a thread for a while; of too many at once the oldest gives way. So nobody who is slow, silent or
speaks nonsense holds up another, and none of them the agent.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from uncloud_host.counts import Histogram
from uncloud_host.figures import Family

MOST = 16  # at once
_KINDS = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


class _Collector:
    def __init__(self, look: Callable[[], Iterable[Family]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._look())


def registry(look: Callable[[], Iterable[Family]]) -> CollectorRegistry:
    """Make a registry with what `look` gives, and with what the process itself needs."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_Collector(look))
    ProcessCollector(registry=made)
    return made


def _metric(family: Family) -> Metric:
    labels = tuple(family.samples[0][0]) if family.samples else ()
    metric: Any = _KINDS[family.kind](family.name, family.means, labels=labels)
    for found, value in family.samples:
        if isinstance(value, Histogram):
            metric.add_metric(tuple(found.values()), buckets(value), sum_value=value.total)
        else:
            metric.add_metric(tuple(found.values()), value)
    return metric  # type: ignore[no-any-return]


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Give the buckets as Prometheus counts them: each with all that is below it."""
    counts, total = list(histogram.counts), 0
    found = []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


class Server(ThreadingHTTPServer):
    """Answers GET /metrics on an address."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, look: Callable[[], Iterable[Family]], patience: float = 10.0) -> None:
        """`patience` is in seconds, for one who asks. Raises OSError if that address cannot be had."""
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        self._registry, self.patience = registry(look), patience
        self._asking: dict[Any, float] = {}  # connections, in order, and until when they are borne with
        self._lock, self._rendering = threading.Lock(), threading.Lock()
        super().__init__(address[:2], _Answer)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Bind, and look up no names: HTTPServer asks the DNS who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "", self.socket.getsockname()[1]

    def text(self) -> bytes:
        """Write all metrics down."""
        with self._rendering:
            return generate_latest(self._registry)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread; of too many the oldest gives way."""
        with self._lock:
            self._asking[request] = time.monotonic() + self.patience
            oldest = list(self._asking)[:-MOST]
        self._end(oldest)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End those whose time is up; called after each connection, and now and then."""
        with self._lock:
            late = [request for request, until in self._asking.items() if until < time.monotonic()]
        self._end(late)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._asking.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: it is the other one's fault, and anybody may cause a thousand of them."""

    def _end(self, requests: Iterable[Any]) -> None:
        for request in requests:
            with self._lock:
                self._asking.pop(request, None)
            with suppress(OSError):  # it may have ended meanwhile
                request.shutdown(socket.SHUT_RDWR)  # its thread wakes up and closes it


class _Answer(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "uncloud-host", ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience)

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="Metrics are at /metrics.")
            return
        text = self.server.text()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_words: object) -> None:
        pass
