"""Records of /v1/log as people and programs read them: which ones are meant, and how they look. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from uncloud_host.events import clean

SIZES = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
HEAD = ("TIME", "HOST", "VM", "EVENT", "REASON")
_WIDTHS = (19, 0, 0, 9, 0)  # at least


@dataclass(frozen=True, slots=True)
class Record:
    """One record. Whoever may write to etcd may have written it: every field may be anything."""

    ns: int  # when it was recorded, nanoseconds since 1970; 0 if its key does not say
    host: str
    fields: Mapping[str, object]

    def word(self, name: str) -> str:
        """A field; empty if it is no text."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def json(self) -> str:
        """One line for programs; ASCII, so that no text can do anything to a terminal."""
        return json.dumps(dict(self.fields) | {"host": self.host})


def when(key: str) -> int:
    """Tell from a key when its record was written, in nanoseconds since 1970."""
    found = re.fullmatch(r"(\d{20})-.*", key.rpartition("/")[2], re.ASCII)
    return int(found[1]) if found else 0


def read(key: str, value: bytes) -> Record:
    """Read a record; one that is damaged says so."""
    host = key.split("/")[-2] if "/" in key else ""
    try:
        fields = json.loads(value, parse_constant=str)  # NaN is no JSON to others
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        fields = {"reason": f"{key}: this record cannot be read"}
    return Record(when(key), host, fields)


def since(text: str, now: datetime) -> int:
    """Read a point in time: a duration before `now`, today, yesterday, or a date with or without a time.

    In nanoseconds since 1970. Raises ValueError.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": midnight, "yesterday": midnight - timedelta(days=1)}
    try:
        if found := re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII):
            at = now - timedelta(**{SIZES[found[2]]: int(found[1])})
        else:
            at = days.get(text) or datetime.fromisoformat(text)
        return max(0, int(at.timestamp())) * 10**9  # without a zone: local time
    except (OverflowError, OSError):
        raise ValueError from None


class Table:
    """Lays out records in lines as they come: columns grow, and never shrink."""

    def __init__(self, *, hosts: bool) -> None:
        """`hosts`: with a column for the host."""
        self._hosts = hosts
        self._widths = list(_WIDTHS)

    def lines(self, records: Sequence[Record], *, head: bool = False) -> Iterator[str]:
        """Give a line for each, the same width for those that are given together."""
        rows = [HEAD] * head + [_cells(record) for record in records]
        shown = [[clean(cell) for cell in row] for row in rows]
        self._widths = [max(width, *(len(row[n]) for row in shown), 0) for n, width in enumerate(self._widths)]
        for row in shown:
            cells = [cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)]
            yield "  ".join(cells if self._hosts else cells[:1] + cells[2:]).rstrip()


def _cells(record: Record) -> tuple[str, ...]:
    name = record.word("name") or record.word("vm") or "-"
    return (_local(record), record.host, name, record.word("event") or "?", record.word("reason"))


def _local(record: Record) -> str:
    """When it happened, in the time zone of the reader."""
    try:
        at = datetime.fromisoformat(record.word("time")).astimezone()
    except (ValueError, OverflowError, OSError):
        at = datetime.fromtimestamp(record.ns / 1e9, UTC).astimezone()
    return at.isoformat(sep=" ", timespec="seconds")[:19]
