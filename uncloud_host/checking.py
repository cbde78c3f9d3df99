"""The commands validate and schema: what an entry is, without etcd, systemd or a configuration."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uncloud_host.events import clean
from uncloud_host.models import Entry, InvalidEntry, parse
from uncloud_host.problems import notes

STDIN = "-"
INVALID, UNREADABLE = 1, 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said about one entry; notes make it no less valid."""

    file: str
    valid: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def validate(arguments: Namespace) -> int:
    """Check entries. Return 0 if all are valid, 1 if one is not, 2 if one cannot be read."""
    verdicts, status = [], 0
    for file in arguments.files:
        try:
            verdicts.append(judge(file, read(file)))
        except OSError as error:
            print(f"uncloud-host: {clean(file)}: {error.strerror}", file=sys.stderr)
            status = UNREADABLE
    if arguments.json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        print("".join(f"{clean(one.file)}: {line}\n" for one in verdicts for line in one.problems + one.notes), end="")
    return status or (0 if all(verdict.valid for verdict in verdicts) else INVALID)


def schema(_arguments: Namespace) -> int:
    """Print the JSON Schema of an entry."""
    print(json.dumps(json_schema(), indent=2))
    return 0


def json_schema() -> dict[str, Any]:
    """Describe an entry for programs. It refuses nothing that `parse` takes; rules between fields are not in it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Entry.model_json_schema()}


def read(file: str) -> bytes:
    """Read an entry from a file, or from standard input. Raises OSError."""
    return sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()


def judge(file: str, value: bytes) -> Verdict:
    """Say all that is wrong with an entry, and what may be a mistake."""
    try:
        parse(value)
    except InvalidEntry as error:
        problems = tuple(
            f"{problem}{_place(value) if problem.startswith('not JSON') else ''}" for problem in error.args
        )
        return Verdict(file, valid=False, problems=problems, notes=tuple(notes(value, Entry)))
    return Verdict(file, valid=True, problems=(), notes=tuple(notes(value, Entry)))


def _place(value: bytes) -> str:
    """Say where JSON ends to be JSON, as far as another reader sees it too."""
    try:
        json.loads(value)
    except json.JSONDecodeError as error:
        return f", at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError):
        pass
    return ""
