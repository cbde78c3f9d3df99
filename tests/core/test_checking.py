"""validate tells all that is wrong with an entry; the schema never refuses what validate takes."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from core.hostile import HARMLESS, NUMBERS, OTHERS, TEXTS, fields, shown, with_
from uncloud_host.checking import json_schema, judge, validate
from uncloud_host.models import Entry

SCHEMA = Draft202012Validator(json_schema())
CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


def check(*files: str, as_json: bool = False) -> int:
    return validate(Namespace(files=files, json=as_json))


def test_all_problems_are_told_and_notes_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    file.write_text(
        '{"host": "", "memmory": 7, "owner": {"id": 7}, "memory": "1G", "status": "GO",'
        ' "vnc": {"tcp": "x", "unx": true}, "disks": [{"fil": "/a"},'
        ' {"file": "/a/../b", "bus": "usb"}], "nics": [{"bridge": "a b"}], "smp": 0}'
    )
    assert check(str(file)) == 1
    told = [line.removeprefix(f"{file}: ").partition(", got")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "disks[0].fil: unknown field; did you mean file?",
        "vnc.unx: unknown field; did you mean unix?",
        "host: expected the name of a VM host",
        "status: expected one of TO_START, RUNNING, TO_STOP, STOP, TO_RESTART, FAILED",
        "memory: expected an integer from 8 up (MiB)",
        "smp: expected an integer from 1 to 1024 (virtual CPUs)",
        "disks[1].file: expected an absolute path without . or .. and without % : $ or control characters",
        "disks[1].bus: expected one of virtio, scsi, ide, cdrom",
        "nics[0].bridge: expected the name of a bridge (at most 15 letters)",
        'vnc.tcp: expected true (the next free port), false, or "ADDRESS:PORT" with a port from 5900 up, like '
        '"[::1]:5901"',
        "memmory: unknown field; did you mean memory?",
        "owner: unknown field, kept",
    ]


def test_a_note_makes_no_entry_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text('{"host": "a", "Disks": []}')
    assert check(str(tmp_path / "a.json")) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.json: Disks: unknown field; did you mean disks?\n"


def test_one_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text('{"host": "a",\n "memory" 7}')
    (tmp_path / "b.json").write_text('{"host": "a"}')
    assert check(*(str(tmp_path / name) for name in ("none", "a.json", "b.json"))) == 2
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/a.json: not JSON: expected `:`, at line 2 column 11\n"
    assert said.err == f"uncloud-host: {tmp_path}/none: No such file or directory\n"
    assert check(str(tmp_path / "a.json"), str(tmp_path / "b.json"), as_json=True) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["valid"], second) == (
        False, {"file": f"{tmp_path}/b.json", "valid": True, "problems": [], "notes": []}
    )  # fmt: skip


def test_standard_input() -> None:
    program = "from argparse import Namespace; from uncloud_host import checking; "
    program += "raise SystemExit(checking.validate(Namespace(files=['-'], json=False)))"
    words, here = [sys.executable, "-c", program], Path(__file__).parents[2]
    done = subprocess.run(words, input="{}", stdout=subprocess.PIPE, text=True, cwd=here, check=False)
    assert (done.returncode, done.stdout) == (1, "-: host: missing, expected the name of a VM host\n")


def test_validate_needs_none_of_the_slow_libraries() -> None:
    program = "import sys, uncloud_host.checking; print(sorted({'etcd3', 'grpc', 'pystemd'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=Path(__file__).parents[2]) == "[]\n"


# The schema


def is_valid(entry: Any) -> bool:
    return judge("-", json.dumps(entry).encode()).valid


def agrees(entry: Any) -> None:
    """It is never stricter than validate."""
    if is_valid(entry):
        SCHEMA.validate(json.loads(json.dumps(entry)))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())


def described(schema: dict[str, Any], path: str = "") -> list[str]:
    """Every field that has no description."""
    found = [f"{path}{name}" for name, field in schema.get("properties", {}).items() if not field.get("description")]
    return found + [one for name, part in schema.get("$defs", {}).items() for one in described(part, f"{name}.")]


def test_every_field_is_described() -> None:
    assert described(json_schema()) == []
    assert set(json_schema()["properties"]) == set(Entry.model_fields)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_schema_takes_every_golden_entry(case: Path) -> None:
    SCHEMA.validate(json.loads(case.read_text()))


FIELDS = dict(fields())
SHORT = [text for text in TEXTS if len(text) < 1000]  # regular expressions of Python are slow


@pytest.mark.parametrize("path", FIELDS, ids=shown)
def test_the_schema_takes_what_validate_takes(path: tuple[str | int, ...]) -> None:
    for value in [*SHORT, *NUMBERS, *OTHERS, str(FIELDS[path]).upper(), str(FIELDS[path]).lower()]:
        agrees(with_(path, value))


@given(st.sampled_from(list(FIELDS)), st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.booleans())
def test_the_schema_takes_whatever_validate_takes(path: tuple[str | int, ...], value: object) -> None:
    agrees(with_(path, value))


REFUSED = {
    "memory": ["1G", 4, None, True],
    "smp": [0, 1025],
    "host": ["", 7, None, "a$b", "x" * 256],
    "machine": ["microvm"],
    "name": ["", "x" * 201, "a$b", "a ", "a\\", "a\nb"],
    "disks": [{}, [7], [{"fil": "/a"}], [{"file": "a"}], [{"rbd": "one"}], [{"file": "/a", "bus": "usb"}]],
    "nics": [[{}], [{"bridge": "a bridge"}], [{"bridge": "b", "mac": "ff:ff:ff:ff:ff:ff"}]],
    "vnc": [7, {"tcp": "here"}, {"unix": 1}, {"password_file": "../x"}],
    "boot": [{"order": ["cd"]}, {"append": "x" * 2001}, {"append": "a$b"}, {"kernel": "/a:b"}],
    "cpu": [{"model": "a,b"}, {"model": "help"}, {"cores": 0}],
    "restart": ["never"],
    "status": ["GO"],
    "firmware": ["efi"],
    "limits": [{"cpu_shares": 7}, {"cpu_weight": 0}],
    "cloud_init": [{"user_data": 7}],
    "stop_timeout": [0, 86401],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_the_schema_refuses_what_it_can(name: str, value: object) -> None:
    entry = {"host": "a", name: value}
    assert not is_valid(entry)
    assert not SCHEMA.is_valid(entry)


def test_the_schema_takes_the_harmless_entry() -> None:
    assert is_valid(HARMLESS)
    SCHEMA.validate(HARMLESS)
