"""Whatever comes from outside is read, or refused with the one error that its reader names. Nothing else, ever.

Entries also in test_hostile and test_checking, what QEMU says in test_signs, records of ends in test_events, texts in
mails in test_writing: those tables say what is read; here is only that nothing breaks.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vms import UUID
from uncloud_host import cephfiles, config, logs, models, patch, runs, runtime, shown, signs, store, traces, unit
from uncloud_host.desired import read
from uncloud_host.endings import End
from uncloud_host.etcd import KeyValue
from uncloud_host.facts import Invalid
from uncloud_host.spool import Spool

WORDS = [
    *models.Entry.model_fields, *models.Disk.model_fields, *End.__slots__, *runtime.Run.__slots__, "machine_id", "id",
    "entry", "held", "event", "time", "timestamp", "seconds", "data", "INVOCATION_ID", "MESSAGE_ID", "N_RESTARTS",
    "_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP", "EXIT_CODE", "EXIT_STATUS",
]  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**400, -1, 1e308, UUID, "vmhost1", "RUNNING", "2026-11-27T10:00:00.000Z", "\ud800"])
    | st.sampled_from([traces.STARTING, traces.EXITED, traces.FAILED, traces.RESTART])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=8)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=12)
JSON = (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode())
DAMAGED = st.tuples(JSON, st.integers(0, 200), st.binary(max_size=3)).map(
    lambda d: d[0][: d[1]] + d[2] + d[0][d[1] + 1 :]
)
BYTES = st.binary(max_size=200) | JSON | DAMAGED
LINES = st.lists(st.text(max_size=40), max_size=10).map("\n".join)


# What was found, and what random examples do not come to.
ODD = (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"1" * 5000,
    b'{"memory": ' + b"1" * 5000 + b"}",
    b'{"revision": Infinity}',
    b'{"memory_peak": 1' + b"0" * 400 + b"}",
)


def refuses(call: Callable[[], object], *errors: type[Exception]) -> None:
    """It returns, or raises one of these, with one line."""
    try:
        call()
    except errors as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2000


@given(BYTES)
def test_entries(value: bytes) -> None:
    refuses(lambda: models.parse(value), models.InvalidEntry)
    models.host_of(value)
    desired = read(UUID, KeyValue(f"/v1/vm/{UUID}", value, 3, 9))
    if isinstance(desired, Invalid):
        assert desired.reason
        assert "\n" not in desired.reason
    refuses(lambda: patch.patched(value, {"status": "RUNNING"}), ValueError, RecursionError)


@given(BYTES)
def test_claims_runs_and_records_of_the_log(value: bytes) -> None:
    kv = KeyValue(f"/v1/claim/{UUID}", value, 3, 9)
    reader = store.Store(None, "/v1")  # type: ignore[arg-type]  # nothing is asked
    claim = reader.as_claim(kv)
    assert (claim.mod_revision, claim.host.encode().decode()) == (9, claim.host)  # an agent copies it into entries
    refuses(lambda: runtime.read(f"{UUID}/1-x", value), ValueError, RecursionError)
    runtime.is_old(f"{UUID}/1-x", value, "vmhost1", 10**15)
    logs.read("/v1/log/vmhost1/00000000000000000001-x", value).json()


@given(st.lists(BYTES | st.text(max_size=50), max_size=5))
def test_what_qemu_says(lines: list[bytes | str]) -> None:
    for sign in signs.signs(lines):
        assert "\n" not in sign.text


@given(BYTES)
def test_files_that_others_had_a_hand_in(value: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        the_spool(Path(directory), value)


def the_spool(directory: Path, value: bytes) -> None:
    spool = Spool(directory)
    for below in ("events", "ends", "runs"):
        (directory / below).mkdir(exist_ok=True)
        (directory / below / f"{UUID}.i1").write_bytes(value)
        (directory / below / "abc.json").write_bytes(value)
    (directory / "position").write_bytes(value)
    spool.position()
    for channel in ("log", "mail"):
        spool.pending(channel)
    runs._read(directory / "runs/abc.json")
    refuses(lambda: End.read(value), ValueError, TypeError, RecursionError, OverflowError)


@given(st.lists(OBJECTS, max_size=6))
def test_the_journal(records: list[dict[str, Any]]) -> None:
    for end in [*traces.ends(UUID, "", records), *traces.left(UUID, records)]:
        assert end.vm == UUID


@given(st.lists(st.text(max_size=40) | st.sampled_from(["UNCLOUD_REVISION=x", "UNCLOUD_HOST=h"]), max_size=8), LINES)
def test_what_systemd_says(lines: list[str], text: str) -> None:
    unit.evidence(lines)
    unit.uuid_of(text)
    unit.state(text[:10], text[10:20])
    list(shown.read(text))


NAMES = [f"UNCLOUD_{name}" for name in (
    "HOST_NAME", "ETCD", "ETCD_CA", "ETCD_USER", "ETCD_PASSWORD_FILE", "PREFIX", "MAIL_TO", "MAIL_FROM", "MAIL_ON",
    "SMTP", "SMTP_TLS", "ACCEL", "CPU", "MACHINE", "VNC_LISTEN", "IMAGE_DIRS", "BRIDGES", "CEPH_CONF", "CEPH_USER",
    "CEPH_KEYRING", "RESTART_LIMIT", "STOP_TIMEOUT", "METRICS_LISTEN", "AUDIT_REMINDER", "NO_SUCH",
)]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30), max_size=5))
def test_the_environment(environment: dict[str, str]) -> None:
    refuses(lambda: config.read({"UNCLOUD_HOST_NAME": "vmhost1"} | environment), config.ConfigError)


@given(LINES)
def test_the_files_of_an_administrator(text: str) -> None:
    config.variables(text)
    cephfiles.conf(text, "libvirt")
    cephfiles.key(text, "libvirt")


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_what_is_nested_too_deeply_or_no_number_for_anybody(value: bytes, tmp_path: Path) -> None:
    test_entries.hypothesis.inner_test(value)
    test_claims_runs_and_records_of_the_log.hypothesis.inner_test(value)
    test_what_qemu_says.hypothesis.inner_test([value])
    the_spool(tmp_path, value)
