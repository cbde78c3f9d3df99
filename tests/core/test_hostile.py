"""Whatever a field says, it is refused by its path, or it is that field's value and nothing else."""

import dataclasses
import functools
import json
import re
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hostile import (
    HARMLESS,
    NEVER_LOOKED_AT,
    NUMBERS,
    OTHERS,
    TEXTS,
    UUID,
    Path,
    fields,
    known,
    shown,
    vm,
    with_,
    words,
)
from uncloud_host import names, qemu, shell, unit, unitfile
from uncloud_host.conflict import Sharing, conflict
from uncloud_host.models import VM, InvalidEntry, host_of, parse
from uncloud_host.patch import patched
from uncloud_host.unit import Evidence

FIELDS = dict(fields())
TEXT_FIELDS = [path for path, value in FIELDS.items() if isinstance(value, str)]
NUMBER_FIELDS = [path for path, value in FIELDS.items() if isinstance(value, int) and not isinstance(value, bool)]
WITHOUT_VALUE = {"-nodefaults", "-no-user-config"}
OPTIONS = {
    "-name", "-uuid", "-machine", "-cpu", "-m", "-smp", "-nodefaults", "-no-user-config", "-display", "-msg",
    "-sandbox", "-action", "-chardev", "-mon", "-serial", "-object", "-blockdev", "-add-fd", "-device", "-boot",
    "-kernel", "-initrd", "-append", "-netdev", "-vnc",
}  # fmt: skip
# Of a few words each, checked by the golden files, or of a strict pattern.
MANY_SHAPES = re.compile(r"disks.*(bus|format|cache|rbd)|nics.*model|firmware|machine|vnc.tcp|boot.order.*")
# Where a rule between fields is told.
RULES: dict[str | int, list[str]] = {
    "smp": ["cpu: "], "memory": ["limits.memory_max: "], "disks": ["boot.order: ", "limits: "],
    "nics": ["boot.order: "], "boot": ["boot.kernel: "],
}  # fmt: skip
NAME = {shown(path): path for path in FIELDS}


def test_the_harmless_entry_has_every_field() -> None:
    said = {re.sub(r"\[\d+\]", "", name) for name in NAME}
    assert set(known()) - said == {
        "metadata",
        "status_reason",
        "disks.readonly",
        "disks.discard",
        "cloud_init.user_data_file",
    }


def command(machine: VM) -> list[tuple[str, Any]]:
    """The command line as QEMU reads it: options, each with its value taken apart."""
    tcp = machine.entry.vnc.tcp
    words = iter(unit.command(machine, qemu.Choices().with_vnc(tcp if isinstance(tcp, str) else None)))
    assert qemu.BINARY in words  # what is before it has been read then
    return [(word, None if word in WITHOUT_VALUE else _value(word, next(words))) for word in words]


def _value(option: str, word: str) -> Any:
    if option in {"-append", "-cpu", "-uuid"}:  # QEMU looks for no comma in these, or finds none
        return word
    if word.startswith("{"):
        return json.loads(word)
    # QEMU's key=value: a comma ends a value, two commas are one.
    pieces = [piece.replace("\0", ",") for piece in word.replace(",,", "\0").split(",")]
    return [piece.partition("=")[::2] for piece in pieces]


def leaves(value: object, path: tuple[object, ...] = ()) -> dict[tuple[object, ...], object]:
    """Every value with the way to it: of two command lines of one shape, the ways are the same."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {path: value}
    return {way: leaf for key, item in items for way, leaf in leaves(item, (*path, key)).items()} | {path: len(value)}


@functools.cache
def harmless_leaves() -> dict[tuple[object, ...], object]:
    return leaves(command(vm(HARMLESS)))


def properties(machine: VM) -> list[tuple[str, unit.Value]]:
    marker = Evidence(machine.entry.host, "c1", 9, "f", machine.name, "")
    return unit.properties(machine, qemu.Choices(), unit.Settings(), marker)


def texts(value: object) -> Iterator[str]:
    """All texts in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts(part)


def is_itself_or_refused(path: Path, value: object) -> None:
    entry, name = with_(path, value), shown(path)
    try:
        machine = vm(entry)
    except InvalidEntry as error:
        assert all(len(problem) < 400 and "\n" not in problem and problem.isprintable() for problem in error.args)
        ways = [name, *(shown(path[:n]) for n in range(1, len(path))), *RULES.get(path[0], ())]
        assert re.match("|".join(map(re.escape, ways)), str(error)), error
        return
    found = command(machine)
    assert {option for option, _ in found} <= OPTIONS
    if isinstance(value, str) and value and not MANY_SHAPES.fullmatch(name):
        harmless, changed = harmless_leaves(), leaves(found)
        assert harmless.keys() == changed.keys()
        # What is not as in the harmless entry is the text itself.
        assert {leaf for way, leaf in changed.items() if leaf != harmless[way]} <= {value, value.lower()}
    listed = properties(machine)
    assert "$" not in str(unit.command(machine, qemu.Choices()))
    assert "$" not in unitfile.text(listed)
    assert not [text for text in texts(listed) if set(text) & set("\0\n")]
    marker = unit.evidence(dict(listed)["Environment"])  # type: ignore[arg-type]
    assert marker
    assert (marker.name, marker.host) == (machine.name, machine.entry.host)


@pytest.mark.parametrize("path", TEXT_FIELDS, ids=shown)
def test_no_text_is_anything_else_than_the_value_of_its_field(path: Path) -> None:
    for text in TEXTS:
        is_itself_or_refused(path, text)


@settings(max_examples=200)
@given(st.sampled_from(TEXT_FIELDS), st.text(max_size=40) | st.lists(st.sampled_from(TEXTS[:-9])).map("".join))
def test_no_other_text_either(path: Path, text: str) -> None:
    is_itself_or_refused(path, text)


@pytest.mark.parametrize("path", FIELDS, ids=shown)
def test_no_value_of_another_kind(path: Path) -> None:
    for value in [*NUMBERS, *OTHERS]:
        is_itself_or_refused(path, value)


@pytest.mark.parametrize("path", NUMBER_FIELDS, ids=shown)
@pytest.mark.parametrize("value", [-1, 2**63, 10**30, 1.0, 1e400, float("nan"), True, "7", [7]], ids=repr)
def test_a_number_is_an_integer_of_a_size_that_makes_sense(path: Path, value: object) -> None:
    with pytest.raises(InvalidEntry, match=rf"^{re.escape(shown(path))}: expected an integer from \d+ "):
        vm(with_(path, value))


@given(st.text(max_size=60))
def test_a_name_that_is_accepted_can_be_read_back_from_the_unit(text: str) -> None:
    try:
        machine = vm({"host": "a", "name": text})
    except InvalidEntry:
        return
    assert command(machine)[0] == ("-name", [("guest", text), ("debug-threads", "on")])


def test_what_is_never_looked_at_may_be_anything() -> None:
    for name in NEVER_LOOKED_AT:
        for value in [*TEXTS, *NUMBERS, *OTHERS]:
            vm({"host": "a", name: value})


TWICE = [
    ('{"host": "a", "memory": 16, "memory": 16}', "memory"),
    ('{"host": "a", "memory": 32, "name": "x", "\\u006demory": 64}', "memory"),
    ('{"host": "b", "memory": 16, "host": "a"}', "host"),
    ('{"host": "a", "disks": [{"file": "/a"}, {"file": "/b", "file": "/c"}]}', "disks[1].file"),
    ('{"host": "a", "cloud_init": {"user_data": {"x": {"y": 1, "y": 2}}}}', "cloud_init.user_data.x.y"),
]


@pytest.mark.parametrize(("text", "path"), TWICE)
def test_a_key_that_stands_twice_is_refused_because_readers_differ(text: str, path: str) -> None:
    with pytest.raises(InvalidEntry, match=rf"^{re.escape(path)}: expected once, stands there more than once$"):
        parse(text.encode())


def test_a_key_of_somebody_else_may_stand_twice() -> None:
    parse(
        b'{"host": "a", "owner": 1, "owner": 2, "status_reason": "", "status_reason": 7, "metadata": {"a": 1, "a": 2}}'
    )


def test_a_mac_that_is_another_nics_by_default_is_refused() -> None:
    derived = names.mac(UUID, 0)
    machine = vm({"host": "a", "nics": [{"bridge": "b"}, {"bridge": "b", "mac": derived}]})
    assert conflict(machine, []) == f"nics[1].mac: {derived} is that of nics[0] too"


def test_who_shares_nothing_with_a_vm_need_not_be_compared_with_it() -> None:
    entries: dict[str, dict[str, object]] = {
        "file": {"disks": [{"file": "/images/a"}]},
        "rbd": {"disks": [{"rbd": "one/a"}]},
        "mac": {"nics": [{"bridge": "b", "mac": names.mac(UUID, 0)}]},
        "none": {"disks": [{"file": "/images/b"}, {"rbd": "one/b"}], "nics": [{"bridge": "b"}]},
    }
    others = {name: dataclasses.replace(vm({"host": "a"} | entry), uuid=name) for name, entry in entries.items()}
    disks = [{"file": "/images/a"}, {"rbd": "one/a"}]
    machine = vm({"host": "a", "disks": disks, "nics": [{"bridge": "c"}]})
    assert Sharing([machine, *others.values()]).others(machine) == {"file", "rbd", "mac"}
    assert {name for name, other in others.items() if conflict(machine, [other])} == {"file", "rbd", "mac"}


MIB = 1 << 20
BIG = {
    "a list of bad disks": {"disks": [{}] * (MIB // 4)},
    "a list of numbers": {"disks": [1] * (MIB // 3)},
    "a list of nics": {"nics": [{"bridge": "b"}] * (MIB // 20)},
    "a long order": {"boot": {"order": ["x"] * (MIB // 5)}},
    "unknown fields": {"disks": [{f"k{n}": 1 for n in range(MIB // 12)}]},
    "unknown fields at the top": {f"k{n}": 1 for n in range(MIB // 12)},
    "an address": {"vnc": {"tcp": f"[{'1:' * (MIB // 2)}]:5901"}},
    "a seed": {"cloud_init": {"user_data": {f"k{n}": n for n in range(MIB // 16)}}},
    "something free": {"metadata": ["x"] * (MIB // 5)},
}
DEEP = [
    b'{"host": "a", "%s": %s%s}' % (key, b"[" * n, b"]" * n) for key in (b"metadata", b"disks") for n in (150, 10**5)
]


@pytest.mark.parametrize("what", BIG)
def test_a_big_entry_does_not_hold_up_the_others(what: str) -> None:
    value = json.dumps({"host": "a"} | BIG[what]).encode()
    before = time.thread_time()
    try:
        parse(value).fingerprint()
    except InvalidEntry as error:
        assert len(error.args) <= 101
        assert len(str(error)) < 400
    assert host_of(value) == "a"
    patched(value, {"status": "FAILED", "status_reason": None})
    assert time.thread_time() - before < 5


@pytest.mark.parametrize("value", DEEP, ids=len)
def test_a_deep_entry_is_one_or_is_refused(value: bytes) -> None:
    try:
        parse(value).fingerprint()
    except InvalidEntry as error:
        assert str(error).startswith(("not JSON: recursion limit", "disks[0]: expected an object"))


def test_a_key_that_stands_a_hundred_thousand_times_is_changed_at_once() -> None:
    value = b"{" + b",".join([b'"status_reason":1'] * (MIB // 20)) + b"}"
    before = time.thread_time()
    assert patched(value, {"status_reason": None}) == b"{}"
    assert patched(value, {"status_reason": "x"}).count(b'"x"') == MIB // 20
    assert time.thread_time() - before < 5


PRINTABLE = [text for text in TEXTS if text.isprintable() and len(text) < 1000]


@pytest.mark.parametrize("text", PRINTABLE)
def test_a_word_in_a_unit_file_or_a_shell_is_that_word(text: str) -> None:
    argv = ["/usr/bin/qemu", "-append", text, "-S"]
    assert words(unitfile.command(argv).replace("\\\n", " ").replace("%%", "%")) == argv
    assert shlex.split(shell.command(argv).replace("\\\n", " ")) == argv


def test_what_root_copies_to_a_shell() -> None:
    disks = [{"file": f"/images/{name}", "readonly": name != "a b"} for name in ("a b", *"cdefghi")]
    entry = {
        "disks": disks,
        "nics": [{"bridge": "br0", "vlan": 7}],
        "vnc": {"password_file": "web"},
        "firmware": "uefi",
        "cloud_init": {},
    }
    machine = vm({"host": "a", "name": "web"} | entry)
    script = shell.script(machine, qemu.Choices(), properties(machine), "web 1").splitlines()
    directory = f"/run/uncloud-vm/{UUID}"
    variables = f"/var/lib/uncloud-host/uefi/{UUID}.fd"
    assert [line for line in script if not line.startswith("  -")] == [
        "# VM web, as root in bash; without the user and the sandbox that its unit gives it",
        "(",
        "set -e",
        f'[ -z "$(systemctl list-units --all --no-legend vm-{UUID}.service)" ]'
        f' || {{ echo "there is a unit vm-{UUID}.service" >&2; exit 1; }}',
        f"install -d -m 0750 {directory}",
        f"[ -e {variables} ] || install -D -m 0600 /usr/share/OVMF/OVMF_VARS_4M.fd {variables}",
        "install -d -m 0700 /run/uncloud-host/seeds",
        f"(umask 077; uncloud-host render --seed 'web 1' > /run/uncloud-host/seeds/{UUID}.iso)",
        f"install -d -m 0700 /run/credentials/vm-{UUID}.service/",
        f"install -m 0400 /etc/uncloud-host/secrets/web /run/credentials/vm-{UUID}.service/vnc",
        f"/usr/libexec/uncloud-host/prepare {directory} {names.tap(UUID, 0)}=br0,vlan=7",
        f"cd {directory}",
        "exec /usr/bin/qemu-system-x86_64 \\",
        script[-2],
        ")",
    ]
    assert script[-2].startswith("  3<>'/images/a b' 4</images/c 5</images/d ")
    assert script[-2].endswith(f" 11<>{variables} 12</run/uncloud-host/seeds/{UUID}.iso </dev/ptmx")
