"""Consoles as tables: what the keyboard says, what a relay says, and what a slow terminal misses of it."""

import runpy
from pathlib import Path

import pytest

from uncloud_host import view
from uncloud_host.console import Kind, packet, until_escape

RELAY = runpy.run_path(str(Path(view.__file__).parent / "libexec/relay"))
TYPED = [
    # from the keyboard       for the guest     detach
    (b"",                     b"",              False),
    (b"ls\r",                 b"ls\r",          False),
    (b"\x03\x04\x1a\x1c\x11", b"\x03\x04\x1a\x1c\x11", False),
    (b"\x1b[A",               b"\x1b[A",        False),
    (b"\x1d",                 b"",              True),
    (b"ab\x1dcd",             b"ab",            True),
    (b"a\x1db\x1d",           b"a",             True),
    ("ä\x1d".encode(),        "ä".encode(),     True),
    (b"\xe2\x80\x9d",         b"\xe2\x80\x9d",  False),  # a quotation mark in UTF-8, which ends in 0x9d
]  # fmt: skip
PACKETS = [
    (b"h",                   Kind.HELLO,     ""),
    (b"oab\xff",             Kind.OUTPUT,    "ab\ufffd"),
    (b"nthe VM restarted",   Kind.NOTE,      "the VM restarted"),
    (b"i",                   Kind.ALL_TYPED, ""),
    (b"ethe VM has stopped", Kind.END,       "the VM has stopped"),
    (b"znew",                Kind.UNKNOWN,   "new"),
    (b"?",                   Kind.UNKNOWN,   ""),
    (b"\xff",                Kind.UNKNOWN,   ""),
]  # fmt: skip
DROPPED = b"n... output dropped ..."
BACKLOGS = [
    # limit, what comes                      what is sent
    (9,      [],                             []),
    (9,      [b"a", b"b"],                   [b"oab"]),
    (9,      [b"a", b"n1", b"b"],            [b"oa", b"n1", b"ob"]),
    (9,      [b"n1", b"n2"],                 [b"n1", b"n2"]),
    (9,      [b"12345678"],                  [b"o12345678"]),
    (9,      [b"1234", b"n1", b"56"],        [DROPPED, b"n1", b"o56"]),
    (9,      [b"1234", b"n1", b"56", b"n2"], [DROPPED, b"n1", b"o56", b"n2"]),
    (9,      [b"12", b"n12345", b"n67890"],  [DROPPED, b"n67890"]),
    (3,      [b"much too long"],             [b"omuch too long"]),  # the newest is never dropped
]  # fmt: skip
STATES = [
    # ActiveState     SubState                    it is over
    ("active",       "running",                    False),
    ("activating",   "start-pre",                  False),
    ("activating",   "auto-restart",               False),
    ("activating",   "auto-restart-queued",        False),
    ("deactivating", "stop-sigterm",               False),
    ("failed",       "failed-before-auto-restart", False),
    ("",             "",                           False),  # could not be asked
    ("failed",       "failed",                     True),
    ("inactive",     "dead",                       True),
    ("active",       "exited",                     True),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "guest", "detach"), TYPED)
def test_what_is_typed(typed: bytes, guest: bytes, detach: bool) -> None:
    assert until_escape(typed) == (guest, detach)


@pytest.mark.parametrize(("raw", "kind", "text"), PACKETS)
def test_packets(raw: bytes, kind: Kind, text: str) -> None:
    assert (packet(raw).kind, packet(raw).text) == (kind, text)


@pytest.mark.parametrize(("limit", "come", "sent"), BACKLOGS)
def test_a_backlog(limit: int, come: list[bytes], sent: list[bytes]) -> None:
    backlog = RELAY["Backlog"](limit)
    for one in come:
        backlog.add(one) if one[:1] == b"n" else backlog.output(one)
    assert list(taken(backlog)) == sent
    assert not backlog


def taken(backlog):
    while backlog:
        yield backlog.first()
        backlog.pop()


def test_a_backlog_goes_on_after_it_has_dropped() -> None:
    backlog = RELAY["Backlog"](4)
    for text in (b"12", b"nab", b"n3"):
        backlog.add(text)
    assert list(taken(backlog)) == [DROPPED, b"n3"]
    backlog.output(b"4")
    assert list(taken(backlog)) == [b"o4"]


def test_a_backlog_stays_small_however_much_comes() -> None:
    backlog = RELAY["Backlog"]()
    for number in range(1_000_000):
        backlog.output(b"%d" % (number % 10))
    sent = list(taken(backlog))
    assert sent[0] == DROPPED
    assert RELAY["BACKLOG"] - 2 * RELAY["PACKET"] < sum(map(len, sent[1:])) <= RELAY["BACKLOG"]
    assert max(map(len, sent)) == RELAY["PACKET"]
    assert b"".join(one[1:] for one in sent[1:]).endswith(b"56789")


@pytest.mark.parametrize(("active", "sub", "over"), STATES)
def test_whether_a_unit_is_over(active: str, sub: str, over: bool) -> None:
    assert RELAY["is_over"](active, sub) == over
