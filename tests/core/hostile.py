"""Texts and values that no field may let through as anything else than itself; and every field that there is."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from uncloud_host.models import VM, Entry, parse
from uncloud_host.problems import _model_in

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
Path = tuple[str | int, ...]
SEED = {"user_data": "#cloud-config\n", "meta_data": "x: y", "network_config": "version: 2"}
HARMLESS: dict[str, Any] = {
    "host": "vmhost1", "status": "TO_START", "name": "web", "memory": 16, "smp": 2, "machine": "pc-q35-10.0",
    "cpu": {"model": "max", "sockets": 1, "cores": 2, "threads": 1}, "firmware": "bios", "restart": "always",
    "disks": [
        {"file": "/images/a.img", "serial": "A", "bus": "virtio", "format": "raw", "cache": "none"},
        {"rbd": "one/a", "serial": "B", "bus": "scsi"},
    ],
    "nics": [{"bridge": "br0", "model": "virtio", "mac": "02:00:00:00:00:01", "vlan": 7, "mtu": 1500}],
    "boot": {"order": ["disk0"], "kernel": "/images/k", "initrd": "/images/i", "append": "quiet"},
    "vnc": {"unix": True, "tcp": "127.0.0.1:5907", "password_file": "secret"},
    "cloud_init": SEED, "rng": True, "balloon": True, "pvpanic": True, "guest_agent": True,
    "limits": {
        "cpu_weight": 7, "cpu_quota": 7, "io_weight": 7, "io_read_bandwidth_max": 7, "io_write_bandwidth_max": 7,
        "io_read_iops_max": 7, "io_write_iops_max": 7, "memory_max": 2000,
    },
    "stop_timeout": 7,
}  # fmt: skip
NEVER_LOOKED_AT = {"status_reason", "metadata"}  # by us; the first is written by us

TEXTS = [
    "", " ", "a b", " a", "a ", "-S", "--", "-", "-daemonize", "on,readonly=off", "a,process=evil", "a,,b", ",", ",,",
    ",help", "help", "?", "a,help", "a=b", "=", "a;b", ";", "\\", "a\\", "\\x20", "\\\\", "%n", "%", "%%i", "$HOME",
    "${x}", "$$", "a$", "'", '"', '"}', '","readonly":true,"x":"', "{}", '{"driver":"null-co"}', "json:{}",
    'json:{"driver":"file"}', "`id`", "$(id)", "|id", "&", "#", "!", "~", "*", "\0", "a\0b", "\n", "a\nb",
    "a\r\nExecStart=/bin/id", "\t", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202eabc", "\u200b", "\ufeff", "e\u0301",
    "\u00fc", "\u4e2d\u6587", "\U0001f600", "\uffff", "\ufdd0", "rbd:one/a", "nbd:host:1", "nbd+unix:///x?socket=/y",
    "file:/etc/shadow", "fat:rw:/etc", "http://x/y", "ssh://h/x", "one/a@snap", "one/a:conf=/etc/x", "one/a:id=admin",
    "one//a", "one/", "/one", "one/a/b/c", "one/../b", "../", "..", ".", "/", "//", "//etc/shadow", "/..",
    "/../etc/shadow", "/images/../etc/shadow", "/images/./a", "/images/a/", "/images/a,readonly=on", "/images/a:b",
    "/images/a b", "/images/\u00fc", "/images/-S", "/images/a\\", '/images/"', "/images/a=b", "/etc/shadow",
    "/dev/sda", "/dev/fdset/1", "/dev/fd/3", "/dev/stdin", "/proc/self/fd/3", "/proc/self/mem",
    "/proc/1/root/etc/shadow", "/sys/kernel", "/run/systemd/private", "a/b", "a\\b", "unix:/run/x", "/images/\n",
    "/images/a\nb", "/images/%n", "/images/$x", "[::]:5900", "[::1]:05901", "[0:0::1]:5901", "[::1%lo]:5901",
    "[127.0.0.1]:5901", "0:5901", "127.1:5901", "127.0.0.1:5901,to=99", "127.0.0.1:5901,password=off",
    "127.0.0.1:65536", "127.0.0.1:5899", "127.0.0.1:-1", "localhost:5901", ":5901", "[]:5901",
    "127.0.0.1:\u0665\u0669\u0660\u0661", "ff:ff:ff:ff:ff:ff", "01:00:00:00:00:01", "02:00:00:00:00:0g",
    "02-00-00-00-00-01", "2:0:0:0:0:1", "02:00:00:00:00:01,x=y", "02:00:00:00:00:AB", "disk0", "disk00", "disk1",
    "disk9", "nic0", "cdrom", "br0", "br0,script=/bin/sh", "br/0", "a-bridge-of-16-b", "br0;id", "eth0", "..br",
    "host", "max", "EPYC-v4", "host,migratable=off", "host,+vmx", "q35", "pc", "q35,accel=tcg",
    "pc-q35-10.0,dumpdtb=/etc/x", "pc-q35-10.0\n", "microvm", "none", "isapc", "on", "off", "true", "null", "0", "1e3",
    "virtio", "raw", "qcow2", "TO_START", "to_start", "no", "always", "x" * 15, "x" * 21, "x" * 64, "x" * 201,
    "x" * 256, "/" + "x" * 300, "/" + "x" * 1100, "/x" * 2100, "x" * (1 << 20), "/" + "x" * (1 << 20), "9" * 5000,
]  # fmt: skip
NUMBERS = [
    -1,
    0,
    1,
    7,
    2**31,
    2**32,
    2**53,
    2**63,
    2**64,
    10**30,
    -(10**30),
    1.0,
    0.5,
    1e400,
    -1e400,
    float("nan"),
    True,
    False,
]
OTHERS = [None, "7", "", [], {}, [7], {"a": 7}, [[]], [None]]


def vm(entry: dict[str, Any]) -> VM:
    return VM(UUID, parse(json.dumps(entry).encode()), create_revision=7, mod_revision=9)


def fields(value: object = HARMLESS, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every field, by its path, with what a harmless entry says there; objects and lists, too."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, member in value.items():
            yield from fields(member, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from fields(item, (*path, index))


def with_(path: Path, value: object) -> dict[str, Any]:
    """The harmless entry with another value in one field."""
    entry = deepcopy(HARMLESS)
    *way, last = path
    place: Any = entry
    for step in way:
        place = place[step]
    place[last] = value
    return entry


def shown(path: Path) -> str:
    """A path as people write it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def known(model: Any = Entry, path: str = "") -> Iterator[str]:
    """Every field of the entry as the model knows it."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        if inner := _model_in(field.annotation):
            yield from known(inner, f"{path}{name}.")


def words(text: str) -> list[str]:
    """Words as systemd reads them: quotes of both kinds, and a backslash before what is meant as it is."""
    found = re.findall(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\.|[^\s"'])+""", text)
    quoted = [
        re.sub(r"""(?s)"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'""", lambda m: m[1] or m[2] or "", word) for word in found
    ]
    return [re.sub(r"\\(.)", r"\1", word) for word in quoted]
