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
    found = [member for member in _members(text) if member.key == key]
    if not found:
        brace = text.index("{") + 1
        comma = ", " if any(_members(text)) else ""
        return f"{text[:brace]}{json.dumps(key)}: {new}{comma}{text[brace:]}"
    for member in reversed(found):  # a key may stand twice, and readers differ in which one they take
        text = text[: member.value] + new + text[member.end :]
    return text


def _without(text: str, key: str) -> str:
    while True:
        members = list(_members(text))
        index = next((i for i, member in enumerate(members) if member.key == key), None)
        if index is None:
            return text
        if index + 1 < len(members):  # up to the next key
            text = text[: members[index].start] + text[members[index + 1].start :]
        elif index:  # the last one: with the comma before it
            text = text[: members[index - 1].end] + text[members[index].end :]
        else:
            text = text[: members[index].start] + text[members[index].end :].lstrip(_SPACE)


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
