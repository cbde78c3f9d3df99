"""What is an entry and what is not, and what people are told about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncloud_host.models import Entry, InvalidEntry, host_of, is_uuid, parse

NAME = "name: expected 1 to 200 printable characters without $, no space at either end, not ending in a backslash"
INVALID = [
    ("", "not JSON: EOF while parsing a value"),
    ('{"host": "a",}', "not JSON: trailing comma"),
    ("[]", "expected a JSON object, got []"),
    ("7", "expected a JSON object, got 7"),
    ("{}", "host: missing, expected the name of a VM host"),
    ('{"host": 7}', "host: expected the name of a VM host, got 7"),
    ('{"host": ""}', 'host: expected the name of a VM host, got ""'),
    ('{"host": "a", "status": "GO"}', "status: expected one of TO_START, RUNNING, TO_STOP, STOP, TO_RESTART, FAILED, "
     'got "GO"'),
    ('{"host": "a", "memory": "1G"}', 'memory: expected an integer from 8 up (MiB), got "1G"'),
    ('{"host": "a", "memory": 4}', "memory: expected an integer from 8 up (MiB), got 4"),
    ('{"host": "a", "memory": true}', "memory: expected an integer from 8 up (MiB), got true"),
    ('{"host": "a", "memory": 1e3}', "memory: expected an integer from 8 up (MiB), got 1000.0"),
    ('{"host": "a", "smp": 0}', "smp: expected an integer from 1 to 1024 (virtual CPUs), got 0"),
    ('{"host": "a", "name": "a$b"}', f'{NAME}, got "a$b"'),
    ('{"host": "a", "name": "a\\nb"}', f'{NAME}, got "a\\nb"'),
    ('{"host": "a", "name": "end\\\\"}', f'{NAME}, got "end\\\\"'),
    ('{"host": "a", "name": " a"}', f'{NAME}, got " a"'),
    ('{"host": "a", "disks": {}}', "disks: expected a list of at most 24 objects, got {}"),
    ('{"host": "a", "disks": [7]}', "disks[0]: expected an object, got 7"),
    ('{"host": "a", "disks": [{"fil": "/a"}]}', "disks[0].fil: unknown field; did you mean file?"),
    ('{"host": "a", "disks": [{"owner": 7}]}', "disks[0].owner: unknown field"),
    ('{"host": "a", "disks": [{"a\\nb\\u001b": 7}]}', "disks[0].a\\nb\\u001b: unknown field"),
    ('{"host": "a", "disks": [{"file": "/a"}, {}]}', "disks[1]: expected either file or rbd"),
    ('{"host": "a", "disks": [{"file": "/a", "rbd": "one/a"}]}', "disks[0]: expected either file or rbd"),
    ('{"host": "a", "disks": [{"rbd": "one"}]}', "disks[0].rbd: expected POOL/IMAGE or POOL/NAMESPACE/IMAGE, of "
     'letters, digits and _ . + = -, got "one"'),
    ('{"host": "a", "disks": [{"rbd": "one/a", "format": "qcow2"}]}', "disks[0].format: expected raw or qcow2 (an rbd "
     'image is raw), got "qcow2"'),
    ('{"host": "a", "disks": [{"file": "/a", "bus": "ide", "readonly": true}]}', "disks[0].readonly: expected no "
     "readonly on bus ide, whose disks are always writable (use virtio, scsi or cdrom)"),
    ('{"host": "a", "disks": [{"file": "/a"}, {"file": "/a"}]}', "disks: expected each image once, unless it is "
     "read-only"),
    ('{"host": "a", "smp": 3, "cpu": {"cores": 2}}', "cpu: expected sockets x cores x threads to be smp (3)"),
    ('{"host": "a", "machine": "microvm"}', 'machine: expected q35, pc or a version of them, like pc-q35-10.0, got '
     '"microvm"'),
    ('{"host": "a", "boot": {"order": ["disk0"]}}', "boot.order: expected none, as there are no disks and nics"),
    ('{"host": "a", "nics": [{"bridge": "b"}], "boot": {"order": ["nic0", "nic0"]}}', "boot.order: expected a list of "
     "nic0, each once"),
    ('{"host": "a", "boot": {"order": ["cd"]}}', 'boot.order[0]: expected a list of disks and nics that the entry has, '
     'like ["disk0", "nic0"], got "cd"'),
    ('{"host": "a", "boot": {"append": "quiet"}}', "boot.kernel: expected an absolute path beside initrd and "
     "append"),
    ('{"host": "a", "vnc": {"password_file": "../x"}}', "vnc.password_file: expected the name of a file in "
     '/etc/uncloud-host/secrets, got "../x"'),
    ('{"host": "a", "cloud_init": {"user_data": 7}}', "cloud_init.user_data: expected a text or an object, got 7"),
    ('{"host": "a", "cloud_init": {"user_data": "", "user_data_file": "a"}}', "cloud_init: expected only one of "
     "user_data and user_data_file"),
    ('{"host": "a", "limits": {"memory_max": 1100}}', "limits.memory_max: expected at least 1152: memory, and "
     "128 for QEMU itself"),
    ('{"host": "a", "nics": [{"bridge": "b", "model": "e1000", "mtu": 1400}]}', "nics[0].mtu: expected an integer from "
     "68 to 65521 (bytes), on a nic of model virtio, got 1400"),
    ('{"host": "a", "limits": {"cpu_shares": 7}}', "limits.cpu_shares: unknown field"),
    ('{"host": "a", "nics": [{"bridge": "b", "mac": "02:00:00:00:00:01"}, {"bridge": "b", "mac": '
     '"02:00:00:00:00:01"}]}', "nics: expected each mac once"),
    ('{"host": "a", "nics": [{"bridge": "b", "vlan": 4095}]}', "nics[0].vlan: expected an integer from 1 to 4094, got "
     "4095"),
    ('{"host": "a", "disks": [{"file": "/a/../b"}]}', "disks[0].file: expected an absolute path without . or .. and "
     'without % : $ or control characters, got "/a/../b"'),
    ('{"host": "a", "disks": [{"file": "/a", "bus": "cdrom", "readonly": false}]}', "disks[0].readonly: expected true "
     "or false (a cdrom is always read-only), got false"),
    ('{"host": "a", "nics": [{"bridge": "a bridge"}]}', "nics[0].bridge: expected the name of a bridge (at most 15 "
     'letters), got "a bridge"'),
    ('{"host": "a", "nics": [{"bridge": "br0", "mac": "ff:ff:ff:ff:ff:ff"}]}', "nics[0].mac: expected a unicast MAC "
     'address like 02:00:b3:39:79:75, got "ff:ff:ff:ff:ff:ff"'),
    ('{"host": "a", "vnc": {"tcp": "[127.0.0.1]:5901"}}', 'vnc.tcp: expected true (the next free port), false, or '
     '"ADDRESS:PORT" with a port from 5900 up, like "[::1]:5901", got "[127.0.0.1]:5901"'),
    ('{"host": "a", "cpu": {"model": "help"}}', 'cpu.model: expected a CPU model of QEMU, like "host" or "EPYC-v4", '
     'got "help"'),
    ('{"host": "a", "disks": [{"file": "/a b"}], "limits": {"io_read_iops_max": 7}}', "limits: expected no io_..._max "
     "together with a disk whose file has a space, quote, backslash or ="),
    ('{"host": "a", "vnc": 7}', "vnc: expected an object, got 7"),
    ('{"host": "a", "vnc": {"tcp": "here"}}', "vnc.tcp: expected true (the next free port), false, or "
     '"ADDRESS:PORT" with a port from 5900 up, like "[::1]:5901", got "here"'),
    ('{"host": "a", "vnc": {"tcp": "a..b:5901"}}', 'vnc.tcp: expected true (the next free port), false, or '
     '"ADDRESS:PORT" with a port from 5900 up, like "[::1]:5901", got "a..b:5901"'),
    ('{"host": "a", "restart": "never"}', 'restart: expected one of always, on-failure, no, got "never"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), INVALID, ids=[text[:40] for text, _ in INVALID])
def test_an_invalid_entry_is_one_line_that_names_the_field(text: str, reason: str) -> None:
    with pytest.raises(InvalidEntry) as error:
        parse(text.encode())
    assert str(error.value) == reason


def test_an_entry_needs_only_a_host() -> None:
    entry = parse(b'{"host": "vmhost1"}')
    assert (entry.memory, entry.cpus, entry.restart, entry.vnc.unix) == (1024, 1, "always", True)


def test_unknown_fields_at_the_top_are_somebody_elses() -> None:
    assert parse(b'{"host": "a", "owner": {"id": 7}, "status_reason": 7}').host == "a"


def test_a_mac_is_kept_in_lower_case() -> None:
    assert parse(b'{"host": "a", "nics": [{"bridge": "b", "mac": "02:AA:00:00:00:01"}]}').nics[0].mac == (
        "02:aa:00:00:00:01"
    )


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b'{"host": "a"}', "a"),
        (b'{"host": "a", "memory": []}', "a"),
        (b'{"host": "a",}', "a"),  # no JSON: found in the text
        (b'{"host": "\\u0061"}', "a"),
        (b'{"host": 7}', None),
        (b"[]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_whom_a_value_concerns(value: bytes, host: str | None) -> None:
    assert host_of(value) == host


def test_a_key_is_a_uuid_in_lower_case() -> None:
    assert is_uuid("5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11")
    assert not is_uuid("5D3B1B56-3F59-4A83-9A1A-2B7C1D9F0E11")
    assert not is_uuid("5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11\n")
    assert not is_uuid("web-1")


@pytest.mark.parametrize(
    ("entry", "fingerprint"),
    [
        ('{"host": "a"}', "44136fa355b3678a"),
        ('{"host": "a", "smp": 1, "vnc": {"unix": true}}', "44136fa355b3678a"),
        ('{"host": "a", "smp": 2}', "b3408e9393072985"),
        ('{"host": "a", "disks": [{"file": "/a"}], "nics": [{"bridge": "br0"}], "memory": 16}', "705813d395bafb64"),
    ],
)
def test_what_an_older_version_started_is_not_pending(entry: str, fingerprint: str) -> None:
    assert parse(entry.encode()).fingerprint() == fingerprint


def test_the_fingerprint_is_that_of_what_needs_a_restart() -> None:
    plain = parse(b'{"host": "a"}').fingerprint()
    assert parse(b'{"host": "b", "status": "RUNNING", "status_reason": "x", "owner": 7}').fingerprint() == plain
    assert parse(b'{"host": "a", "memory": 1024, "disks": []}').fingerprint() == plain
    assert parse(b'{"host": "a", "memory": 1025}').fingerprint() != plain
    live = b'{"host": "a", "limits": {"cpu_weight": 7}, "metadata": {"owner": 7}}'
    assert parse(live).fingerprint() == plain


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.from_regex(r'\{"host": "a", "(disks|nics|vnc)": .{,40}\}').map(str.encode)
)
def test_whatever_stands_there_is_an_entry_or_a_reason(value: bytes) -> None:
    try:
        assert isinstance(parse(value), Entry)
    except InvalidEntry as error:
        assert "\n" not in str(error)
