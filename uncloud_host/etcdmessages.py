"""What is said to etcd and what it answers: our plain types, and their way into and out of etcd3's messages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from uncloud_host.etcd3compat import messages as pb
from uncloud_host.etcderror import Position


class KeyValue(NamedTuple):  # made in a third of a dataclass's time, and there may be a hundred thousand
    """An entry as it is in etcd. `value` is empty where only keys were asked for."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; `position` is that of the first page, and all pages are of its revision."""

    position: Position
    entries: list[KeyValue]


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on a key: every field that is given must be equal. A create_revision of 0 means: does not exist."""

    key: str
    mod_revision: int | None = None
    create_revision: int | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or all keys from `key` up to but not including `end`."""

    key: str
    end: str | None = None


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What became of a transaction; `entries` are those of `otherwise`, and empty if it succeeded."""

    succeeded: bool
    revision: int
    entries: tuple[KeyValue | None, ...] = ()


def prefix_end(prefix: str) -> bytes:
    """Return the first key after all keys with this prefix. etcd3's own function fails on a last byte of 0xff."""
    start = raw(prefix).rstrip(b"\xff")
    return start[:-1] + bytes([start[-1] + 1]) if start else b"\0"


def raw(key: str) -> bytes:
    """Return a key as etcd has it."""
    return key.encode(errors="surrogateescape")  # keys are bytes to etcd; any of them must survive a round trip


def position_of(header: Any) -> Position:
    """Read a header."""
    return Position(header.revision, header.cluster_id, header.raft_term)


def entry(kv: Any) -> KeyValue:
    """Read an entry."""
    return KeyValue(kv.key.decode(errors="surrogateescape"), kv.value, kv.create_revision, kv.mod_revision)


def first(answer: Any) -> KeyValue | None:
    """Read the only entry of an answer."""
    return entry(answer.kvs[0]) if answer.kvs else None


def conditions(wanted: Compare) -> Iterator[Any]:
    """Spell out the parts of a condition."""
    for target, field in (("MOD", "mod_revision"), ("CREATE", "create_revision"), ("VALUE", "value")):
        value = getattr(wanted, field)
        if value is not None:
            condition = {"target": getattr(pb.Compare, target), "result": pb.Compare.EQUAL, field: value}
            yield pb.Compare(key=raw(wanted.key), **condition)


def operation_message(operation: Put | Delete) -> Any:
    """Spell out an operation."""
    if isinstance(operation, Put):
        put = pb.PutRequest(key=raw(operation.key), value=operation.value, lease=operation.lease)
        return pb.RequestOp(request_put=put)
    end = b"" if operation.end is None else raw(operation.end)
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=raw(operation.key), range_end=end))


def names(keys: Sequence[str]) -> str:
    """Name the first keys of a call."""
    different = list(dict.fromkeys(keys))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")  # noqa: PLR2004
