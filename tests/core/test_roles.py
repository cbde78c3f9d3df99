"""What a host has to be allowed in etcd."""

from uncloud_host.roles import commands

CERTIFICATE = """\
etcdctl role add uncloud-host-vmhost1
etcdctl role grant-permission uncloud-host-vmhost1 readwrite --prefix /v1/vm/
etcdctl role grant-permission uncloud-host-vmhost1 readwrite --prefix /v1/claim/
etcdctl role grant-permission uncloud-host-vmhost1 readwrite --prefix /v1/runtime/
etcdctl role grant-permission uncloud-host-vmhost1 read --prefix /v1/log/
etcdctl role grant-permission uncloud-host-vmhost1 read --prefix /v1/host/
etcdctl role grant-permission uncloud-host-vmhost1 read --prefix /v1/audit/
etcdctl role grant-permission uncloud-host-vmhost1 readwrite --prefix /v1/log/vmhost1/
etcdctl role grant-permission uncloud-host-vmhost1 readwrite /v1/host/vmhost1
etcdctl role grant-permission uncloud-host-vmhost1 readwrite /v1/audit/vmhost1
etcdctl user add vmhost1 --no-password
etcdctl user grant-role vmhost1 uncloud-host-vmhost1
"""


def test_the_script_for_a_certificate() -> None:
    assert "".join(f"{line}\n" for line in commands("vmhost1", "/v1")) == CERTIFICATE


def test_a_password_comes_from_a_file() -> None:
    (line,) = [line for line in commands("h", "/v1", "/root/my file") if "user add" in line]
    assert line == "etcdctl user add h --new-user-password \"$(cat '/root/my file')\""


def test_nothing_of_a_name_is_run_by_the_shell() -> None:
    assert "etcdctl user add '$(reboot)' --no-password" in commands("$(reboot)", "/v1")
