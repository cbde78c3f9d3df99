"""Our two members change; every other byte stays as its user wrote it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncloud_host.patch import patched

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from(["status", "status_reason", "host"]) | st.text(), VALUES)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ('{"a": 1}', {"status": "STOP"}, '{"status": "STOP", "a": 1}'),
        ("{}", {"status": "STOP"}, '{"status": "STOP"}'),
        ('{ "a" : 1.0 ,\n "status":"X" , "b": 1e3}', {"status": "Y"}, '{ "a" : 1.0 ,\n "status":"Y" , "b": 1e3}'),
        ('{"a": 1, "status": "X"}', {"status": None}, '{"a": 1}'),
        ('{"status": "X", "a": 1}', {"status": None}, '{"a": 1}'),
        ('{"status": "X"}', {"status": None}, "{}"),
        ('{"status": 1, "a": {"status": 2}, "status": 3}', {"status": "Y"}, '{"status": "Y", "a": {"status": 2}, '
         '"status": "Y"}'),
        ('{"a": "\\u00fc"}', {"b": "ü"}, '{"b": "\\u00fc", "a": "\\u00fc"}'),
    ],
)  # fmt: skip
def test_patched(before: str, changes: dict[str, str | None], after: str) -> None:
    assert patched(before.encode(), changes).decode() == after


@given(OBJECTS, st.none() | st.text(), st.sampled_from([None, 0, 2]))
def test_nothing_else_changes(value: dict[str, object], status: str | None, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    wanted = {key: old for key, old in value.items() if key != "status"} | ({"status": status} if status else {})
    assert json.loads(patched(text.encode(), {"status": status or None})) == wanted


@pytest.mark.parametrize("text", ["[]", "7", "", '{"a": }', "\x00"])
def test_what_is_no_object_is_not_written_to(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever words the parser has
        patched(text.encode(), {"status": "STOP"})
