"""What is wrong with an entry, in words: the path of each field and what was expected there. Pure.

pydantic finds the faults; its own texts never reach a person.
"""

import difflib
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from uncloud_host.devices import Expected

_SHOWN = 60  # characters of a wrong value, or of a name that we do not know
_MOST = 100  # problems of one entry: a hundred thousand would take seconds


def problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Say what is wrong, a line each; what matters most comes first."""
    # A mistyped name makes two errors, "unknown" and "missing": the first tells more.
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    told = list(dict.fromkeys(_problem(one, root) for one in found[:_MOST]))  # each branch of a union makes an error
    return told + [f"and {len(found) - _MOST} more"] * (len(found) > _MOST)


def repeated(value: bytes, root: type[BaseModel], besides: Container[str]) -> list[str]:
    """Say which keys stand more than once in an object, a line each, `besides` those of the top that are not read.

    Readers differ in which one they take: json the last, pydantic sometimes the one and sometimes the other.
    """
    entry = json.loads(value, object_pairs_hook=_Members)
    ours = {name: member for name, member in entry.items() if name in root.model_fields and name not in besides}
    paths = [name for name in entry.twice if name in ours]
    paths += [path for name, member in ours.items() for path in _repeated(member, name)]
    return [f"{path}: expected once, stands there more than once" for path in paths[:_MOST]]


def notes(value: bytes, root: type[BaseModel]) -> list[str]:
    """Say what is allowed in an entry but may be a mistake, a line each."""
    with suppress(ValueError, RecursionError):
        entry = json.loads(value)
        if isinstance(entry, dict):
            unknown = sorted(entry.keys() - root.model_fields.keys())[:_MOST]
            return [f"{_key(name)}: {_meant(name, root) or 'unknown field, kept'}" for name in unknown]
    return []


class _Members(dict[str, Any]):
    """An object that knows which of its keys stand more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _repeated(value: object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated(item, f"{path}[{index}]")
    elif isinstance(value, _Members):
        yield from (f"{path}.{_key(key)}" for key in value.twice)
        for key, member in value.items():
            yield from _repeated(member, f"{path}.{_key(key)}")


def _meant(name: str, model: type[BaseModel]) -> str:
    """Say which field was probably meant; nothing if none was."""
    meant = difflib.get_close_matches(name[:_SHOWN].lower(), model.model_fields, n=1, cutoff=0.75)
    return f"unknown field; did you mean {meant[0]}?" if meant else ""


def _problem(error: Any, root: type[BaseModel]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {error['ctx']['error'].partition(' at line')[0]}"  # our own write moves the place
    path, expected, model = _place(error["loc"], root)
    if not path:
        return f"expected a JSON object, got {_short(error['input'])}"
    if error["type"] == "extra_forbidden":
        return f"{path}: {(_meant(str(error['loc'][-1]), model) if model else '') or 'unknown field'}"
    if error["type"] == "missing":
        return f"{path}: missing, expected {expected}"
    if isinstance(told := error.get("ctx", {}).get("error"), Expected):
        return f"{path}{f'.{told.field}' * bool(told.field)}: expected {told}"
    return f"{path}: expected {expected}, got {_short(error['input'])}"


def _place(loc: Iterable[int | str], root: type[BaseModel]) -> tuple[str, str, type[BaseModel] | None]:
    """Turn pydantic's loc into a path as people write it; find what is expected there, and the object that it is in."""
    path, expected, model, inside = "", "an object", root, root  # type: str, str, type[BaseModel] | None, Any
    for part in loc:
        if isinstance(part, int):
            path, expected = f"{path}[{part}]", "an object" if model else expected
        elif model is not None:  # else the name of a union's branch, which pydantic appends to the path
            path = f"{path}.{_key(part)}" if path else _key(part)
            field = model.model_fields.get(part)
            expected = (field.description or "") if field else ""
            inside, model = model, _model_in(field.annotation) if field else None
    return path, expected, inside


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the nested model of a field's type: Vnc itself, or Disk in tuple[Disk, ...]."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _key(name: str) -> str:
    """Write a name from an entry so that a message stays one line."""
    return name[:_SHOWN] if name.isprintable() else json.dumps(name[:_SHOWN])[1:-1]


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
