"""Metrics over a real socket: nobody who is slow, silent or speaks nonsense holds up another."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from uncloud_host import metrics
from uncloud_host.counts import Histogram
from uncloud_host.figures import Family

HISTOGRAM = Histogram((0.1, 1.0))
HISTOGRAM.observe(0.5)
FAMILIES = [
    Family("uncloud_vms", "gauge", "VMs.", [({"state": "running"}, 2.0), ({"state": 'a"\n\\'}, 0.0)]),
    Family("uncloud_starts", "counter", "Starts.", [({}, 3.0)]),
    Family("uncloud_pass_seconds", "histogram", "Passes.", [({}, HISTOGRAM)]),
    Family("uncloud_vm_info", "gauge", "Nobody.", []),
]


@contextmanager
def serving(host: str, patience: float = 10.0) -> Iterator[metrics.Server]:
    made = metrics.Server(host, 0, lambda: FAMILIES, patience)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[metrics.Server]:
    with serving(request.param) as made:
        yield made


def connect(server: metrics.Server) -> socket.socket:
    return socket.create_connection(server.socket.getsockname()[:2], timeout=20)


def get(server: metrics.Server, path: str = "/metrics") -> str:
    host, port = server.socket.getsockname()[:2]
    url = f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - it is http
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return str(answer.read().decode())


def test_what_is_told_is_what_prometheus_reads(server: metrics.Server) -> None:
    lines = get(server).splitlines()
    assert 'uncloud_vms{state="running"} 2.0' in lines
    assert 'uncloud_vms{state="a\\"\\n\\\\"} 0.0' in lines
    assert "uncloud_starts_total 3.0" in lines
    assert 'uncloud_pass_seconds_bucket{le="0.1"} 0.0' in lines
    assert 'uncloud_pass_seconds_bucket{le="+Inf"} 1.0' in lines
    assert "uncloud_pass_seconds_sum 0.5" in lines
    assert any(line.startswith("process_cpu_seconds_total ") for line in lines)


def test_there_is_nothing_else(server: metrics.Server) -> None:
    for path in ("/", "/metrics/x", "/../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            get(server, path)
        error.value.close()


def test_those_who_are_silent_give_way(server: metrics.Server) -> None:
    silent = [connect(server) for _ in range(3 * metrics.MOST)]
    try:
        for half in silent[::2]:
            half.sendall(b"GET /met")
        assert "uncloud_vms" in get(server)
        assert silent[0].recv(1) == b""  # the oldest
    finally:
        for one in silent:
            one.close()


def test_nonsense_holds_up_nobody(server: metrics.Server) -> None:
    for nonsense in (
        b"\x16\x03\x01\x00\xff\x00\n",
        b"GET\n\n",
        b"\n\n",
        b"A" * 70_000,
        b"GET /metrics HTTP/9.9\r\n\r\n",
    ):
        with connect(server) as one:
            one.sendall(nonsense)
            assert "uncloud_vms" in get(server)


def test_nobody_has_a_thread_for_long() -> None:
    over = threading.Event()

    def drip(slow: socket.socket) -> None:
        with suppress(OSError):
            while not over.wait(0.05):
                slow.sendall(b"X")

    with serving("127.0.0.1", patience=0.5) as server, connect(server) as slow:
        dripping = threading.Thread(target=drip, args=[slow])
        dripping.start()
        try:
            assert slow.recv(1) == b""
        except ConnectionResetError:
            pass  # it may have sent something that nobody reads any more
        finally:
            over.set()
            dripping.join()


def test_an_address_that_is_taken_is_an_error(server: metrics.Server) -> None:
    host, port = server.socket.getsockname()[:2]
    with pytest.raises(OSError, match="in use"):
        metrics.Server(host, port, lambda: FAMILIES)
