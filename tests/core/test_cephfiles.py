"""What QEMU gets of the administrator's files for Ceph."""

import pytest

from uncloud_host import cephfiles

ADMINS = """# ours
[global]
  fsid = 6c3f1d3e-6f0c-4b0e-9d57-0d8a1f5a4c11
  mon host = [v2:10.0.0.1:3300,v1:10.0.0.1:6789], \\
             10.0.0.2 ; two
  auth_client_required=cephx
  keyring = /etc/ceph/$cluster.$name.keyring
  log file = /var/log/ceph/$name.log
[mon]
mon_data = /srv
[client]
rbd_cache = true
admin_socket = /var/run/ceph/$name.$pid.asok
[client.libvirt]
client mount timeout = 300
rbd cache size = 67108864
key = AQAj9gRr4jfPHxAAr9yy6j2FXXPxkDy+hPqg3Q==
[client.admin]
rbd_cache = false
"""
GIVEN = """# Made by uncloud-host out of UNCLOUD_CEPH_CONF, for QEMU; changes are overwritten.
[global]
fsid = 6c3f1d3e-6f0c-4b0e-9d57-0d8a1f5a4c11
mon host = [v2:10.0.0.1:3300,v1:10.0.0.1:6789],               10.0.0.2 ; two
auth_client_required = cephx
[client]
rbd_cache = true
[client.libvirt]
rbd cache size = 67108864
client_mount_timeout = 10
"""


def test_qemu_gets_what_finds_the_cluster_and_no_secret() -> None:
    assert cephfiles.conf(ADMINS, "libvirt") == GIVEN


def test_an_extract_of_an_extract_is_the_same() -> None:
    assert cephfiles.conf(GIVEN, "libvirt") == GIVEN


def test_without_a_word_about_the_client_it_still_does_not_hang() -> None:
    assert cephfiles.conf("", "vms").splitlines()[1:] == ["[client.vms]", "client_mount_timeout = 10"]


@pytest.mark.parametrize(
    ("keyring", "key"),
    [
        ("[client.libvirt]\n\tkey = AQAj9gRr4jfPHxAAr9yy6g==\n", "AQAj9gRr4jfPHxAAr9yy6g=="),
        ('[client.libvirt]\nkey="AQAj9gRr4jfPHxAAr9yy6g=="\ncaps mon = "profile rbd"\n', "AQAj9gRr4jfPHxAAr9yy6g=="),
        ("[client.admin]\nkey = AQAA\n[client.libvirt]\nkey = AQAB\n", "AQAB"),
        ("[client.admin]\nkey = AQAA\n", None),
        ("[client.libvirt]\nkey = what?\n", None),
        ("[client.libvirt]\nkey =\n", None),
        ("AQAA\n", None),
        ("", None),
    ],
)
def test_the_key_is_found_under_its_user(keyring: str, key: str | None) -> None:
    assert cephfiles.key(keyring, "libvirt") == key
