"""Change members of a JSON object and leave every other byte as its user wrote it. Pure.

Reading and writing the whole object would reformat it: spaces, order, 1.0 or 1e3, escapes, a key that stands twice.
"""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_SPACE = " \t\r\n"
_value = json.JSONDecoder().raw_decode


class _Member(NamedTuple):
    key: str
    start: int  # of the key
    value: int
    end: int  # behind the value


def patched(value: bytes, changes: Mapping[str, str | None]) -> bytes:
    """Set the members in `changes`, remove those that are None. Raises ValueError if `value` is no JSON object."""
    text = value.decode()
    if not isinstance(json.loads(text), dict):
        raise ValueError("not a JSON object")
    for key, new in changes.items():
        text = _without(text, key) if new is None else _with(text, key, json.dumps(new))
    return text.encode()


def _with(text: str, key: str, new: str) -> str:
    members = list(_members(text))
    if all(member.key != key for member in members):
        brace = text.index("{") + 1
        comma = ", " if members else ""
        return f"{text[:brace]}{json.dumps(key)}: {new}{comma}{text[brace:]}"
    pieces, at = [], 0
    for member in members:
        if member.key == key:  # it may stand twice, and readers differ in which one they take
            pieces += [text[at : member.value], new]
            at = member.end
    return "".join([*pieces, text[at:]])


def _without(text: str, key: str) -> str:
    members = list(_members(text))
    kept = [index for index, member in enumerate(members) if member.key != key]
    if len(kept) == len(members):
        return text
    if not kept:
        return text[: members[0].start] + text[members[-1].end :].lstrip(_SPACE)
    # Each goes with what is between it and the next key; those behind the last that is kept with the comma before.
    pieces = [text[members[index].start : members[index + 1].start] for index in kept[:-1]]
    last = members[kept[-1]]
    return "".join([text[: members[0].start], *pieces, text[last.start : last.end], text[members[-1].end :]])


def _members(text: str) -> Iterator[_Member]:
    """Walk the members of a text that json.loads has accepted."""
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        start = at
        key, at = _value(text, at)
        at = _skip(text, _skip(text, at) + 1)  # the colon
        value = at
        _, at = _value(text, at)
        yield _Member(key, start, value, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
