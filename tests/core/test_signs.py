"""What QEMU says while a VM runs, in its own words (10.0)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncloud_host.signs import Kind, Sign, lately, of_interest, signs


def said(name: str, **data: object) -> bytes:
    at = {"seconds": 1795500936, "microseconds": 922102}
    return json.dumps({"timestamp": at, "event": name, "data": data}).encode()


FULL = {
    "device": "",
    "node-name": "disk0",
    "operation": "write",
    "action": "stop",
    "nospace": True,
    "reason": "No space",
}
WORDS = [
    (said("RESET", guest=True, reason="guest-reset"), Kind.REBOOT, "the guest rebooted"),
    (said("WATCHDOG", action="reset"), Kind.WATCHDOG, "the guest did not answer its watchdog: reset"),
    (said("BLOCK_IO_ERROR", **FULL), Kind.DISK_ERROR,
     "writing to disks[0]: there is no space left; the guest is paused"),
    (said("BLOCK_IO_ERROR", **FULL | {"operation": "read", "nospace": False, "reason": "Input/output error"}),
     Kind.DISK_ERROR, "reading from disks[0]: Input/output error; the guest is paused"),
    (said("BLOCK_IO_ERROR", **FULL | {"node-name": "#block1"}), Kind.DISK_ERROR,
     "writing to a disk: there is no space left; the guest is paused"),
    (said("RESUME"), Kind.GOES_ON, "the guest goes on"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "kind", "text"), WORDS, ids=[kind for _, kind, _ in WORDS])
def test_what_it_means(line: bytes, kind: Kind, text: str) -> None:
    (sign,) = signs(of_interest([line, said("ACPI_DEVICE_OST", info={})]))
    assert (sign.kind, sign.text, sign.time) == (kind, text, 1795500936.922)


def test_all_else_is_nothing() -> None:
    by_host = said("RESET", guest=False, reason="host-qmp-system-reset")
    ignored = said("BLOCK_IO_ERROR", **FULL | {"action": "report"})
    assert (
        signs([b'{"QMP": {}}', b'{"return": {}}', b"", by_host, ignored, said("STOP"), said("RTC_CHANGE", offset=1)])
        == []
    )


@given(st.binary() | st.dictionaries(st.sampled_from(["event", "data", "timestamp"]), st.text()).map(json.dumps))
def test_garbage_is_nothing(line: str | bytes) -> None:
    assert signs([line]) == []


NAMES = st.sampled_from(["seconds", "microseconds", "action", "node-name", "guest"])
VALUES = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(NAMES, inner))


@given(st.sampled_from(["WATCHDOG", "BLOCK_IO_ERROR", "RESET"]), VALUES)
def test_whatever_a_hostile_qemu_writes_is_read_or_left_out(name: str, value: object) -> None:
    signs([json.dumps({"event": name, "data": value, "timestamp": value})])


def test_what_is_old_or_has_not_happened_yet_is_left_out() -> None:
    times = (-62135596800.0, 100.0, 900.0, 1000.0, 1030.0, 1e11)
    said = [Sign(Kind.WATCHDOG, time, "") for time in times]
    assert [sign.time for sign in lately(said, 1000.0, 500.0)] == [900.0, 1000.0, 1030.0]
