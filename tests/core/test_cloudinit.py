"""What cloud-init finds: tables of entries and files."""

import json

import pytest

from core.vms import UUID, vm
from uncloud_host import cloudinit

META = f'{{"instance-id": "{UUID}", "local-hostname": "{UUID}"}}\n'
HARD = '"\u00fc\U0001f600\\u2028\\u007f\\n",'
FILES = [  # cloud_init, what of the files is not the default
    ({}, {}),
    ({"user_data": "#!/bin/sh\necho hello"}, {"user-data": "#!/bin/sh\necho hello"}),
    ({"user_data": {"packages": ["vim"]}}, {"user-data": '#cloud-config\n{"packages": ["vim"]}\n'}),
    ({"user_data": {}}, {"user-data": ""}),
    ({"meta_data": {"instance-id": "\u00fc\U0001f600\u2028\x7f\n"}}, {"meta-data": META.replace(f'"{UUID}",', HARD)}),
    ({"meta_data": "instance-id: i\n"}, {"meta-data": "instance-id: i\n"}),
    ({"meta_data": {"local-hostname": "web"}}, {"meta-data": META.replace(f'"{UUID}"}}', '"web"}')}),
    ({"meta_data": {"instance-id": "i"}}, {"meta-data": META.replace(f'"{UUID}",', '"i",')}),
    ({"network_config": "version: 2\n"}, {"network-config": "version: 2\n"}),
    ({"network_config": {"version": 2}}, {"network-config": '{"version": 2}\n'}),
]  # fmt: skip
HOST_NAMES = [
    ("web-1", "web-1"),
    ("Web 1", "web-1"),
    ("B\u00fcro Nr. 1", "buro-nr.1"),
    ("db.example.org.", "db.example.org"),
    ("-a_b-", "a-b"),
    ("\u732b", UUID),
    ("a" * 62 + "-b", "a" * 62),
]


@pytest.mark.parametrize(("asked", "different"), FILES)
def test_the_files_say_what_the_entry_says(asked: dict[str, object], different: dict[str, str]) -> None:
    found = cloudinit.files(vm(cloud_init=asked), None)
    assert {name: content.decode() for name, content in found.items()} == {
        "meta-data": META, "user-data": "",
    } | different  # fmt: skip


def test_a_secret_file_is_the_user_data_to_the_byte() -> None:
    found = cloudinit.files(vm(cloud_init={"user_data_file": "web-1", "network_config": ""}), b"\xff\x00")
    assert (found["user-data"], found["network-config"]) == (b"\xff\x00", b"")


@pytest.mark.parametrize(("name", "host_name"), HOST_NAMES)
def test_a_name_becomes_a_host_name(name: str, host_name: str) -> None:
    assert json.loads(cloudinit.files(vm(name=name, cloud_init={}), None)["meta-data"])["local-hostname"] == host_name
