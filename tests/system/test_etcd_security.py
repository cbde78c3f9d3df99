"""etcd lets a host do what it needs and nothing else, by certificate or by password; both may change at any time."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from system.world import World
from waiting import eventually

URL = "https://127.0.0.1:2379"
PKI = "/etc/pki"  # of etcd and of its administrator
OURS = "/etc/uncloud-host/etcd"
# An administrator's shell knows how to reach etcd.
ETCDCTL = f"""#!/bin/sh
export ETCDCTL_ENDPOINTS={URL} ETCDCTL_CACERT={PKI}/ca.pem ETCDCTL_CERT={PKI}/root.pem ETCDCTL_KEY={PKI}/root.key
exec /usr/bin/etcdctl "$@"
"""
ETCD = f"""
ETCD_LISTEN_CLIENT_URLS={URL}
ETCD_ADVERTISE_CLIENT_URLS={URL}
ETCD_CERT_FILE={PKI}/server.pem
ETCD_KEY_FILE={PKI}/server.key
ETCD_CLIENT_CERT_AUTH=true
ETCD_TRUSTED_CA_FILE={PKI}/ca.pem
"""
CERTIFICATES = """
set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=ca $1" -keyout ca.key -out ca.pem
for name in server root vmhost1; do
    openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
    echo "subjectAltName=IP:127.0.0.1" > ext
    openssl x509 -req -days 2 -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out $name.pem
done
"""
SET_UP = "etcdctl user add root --no-password; etcdctl user grant-role root root"
AGENT = "systemctl show -P MainPID uncloud-host"
DENIED = "permission denied"


def certify(world: World, directory: Path, ca: str) -> None:
    """Give etcd, its administrator and the agent certificates of a new CA."""
    directory.mkdir()
    subprocess.run(["sh", "-c", CERTIFICATES, "sh", ca], cwd=directory, check=True, capture_output=True)
    world.shell(f"mkdir -p {PKI} {OURS}; chmod 700 {OURS}")
    for name in ("ca.pem", "server.pem", "server.key", "root.pem", "root.key"):
        world.host.push(directory / name, f"{PKI}/{name}", 0o644)  # etcd is no root
    for name in ("ca.pem", "vmhost1.pem", "vmhost1.key"):
        world.host.push(directory / name, f"{OURS}/{name}", 0o600)


@pytest.fixture(scope="module")
def world(lab, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A host whose etcd asks for certificates, set up with the commands that the README gives."""
    made = World(lab.host("vmhost1"))
    made.host.boot()
    certify(made, tmp_path_factory.mktemp("pki") / "first", "first")
    made.host.push(ETCD, "/etc/default/etcd")
    made.host.push(ETCDCTL, "/usr/local/bin/etcdctl", 0o755)
    files = {"CA": "ca.pem", "CERT": "vmhost1.pem", "KEY": "vmhost1.key"}
    variables = {f"UNCLOUD_ETCD_{name}": f"{OURS}/{file}" for name, file in files.items()}
    made.install(package, UNCLOUD_ETCD=URL, UNCLOUD_STOP_TIMEOUT="5", **variables)
    made.shell(f"{SET_UP}; uncloud-host etcd-role vmhost1 | sh -e && etcdctl auth enable")
    made.wait_ready()
    yield made
    made.host.destroy()


def ctl(world: World, *words: str) -> str:
    """What etcd says to somebody who has the host's certificate."""
    identity = [
        f"--endpoints={URL}",
        f"--cacert={OURS}/ca.pem",
        f"--cert={OURS}/vmhost1.pem",
        f"--key={OURS}/vmhost1.key",
    ]
    done = world.host.run("/usr/bin/etcdctl", *identity, *words, check=False)
    return done.stdout + done.stderr


def test_a_host_can_do_all_that_it_has_to(world: World) -> None:
    uuid = world.vm(name="web-1")
    world.shell("systemctl start uncloud-host-audit")
    assert world.raw("/v1/audit/vmhost1")
    assert world.raw("/v1/host/vmhost1")
    for words in ("ls --all", f"show {uuid}", "plan", "log --all", "runtime --all", "confirm", "audit --now"):
        done = world.host.run("uncloud-host", *words.split(), check=False)
        assert (done.returncode, done.stderr.replace("nothing is held on this host\n", "")) == (0, ""), words
    assert world.host.run("uncloud-host", "stop", "--wait", uuid).returncode == 0
    world.wait_events(uuid, "started", "stopped")
    eventually(lambda: [run for run in world.runs(uuid) if run["stopped"]], what="the record of its run is closed")
    world.delete(uuid)
    assert world.agent_is_well()
    assert [line for line in world.agent_lines() if DENIED in line] == []


@pytest.mark.parametrize("key", ["/v1/host/vmhost2", "/v1/audit/vmhost2", "/v1/log/vmhost2/1-x", "/v1/vmx", "/v2/vm/x"])
def test_what_is_anothers_it_cannot_write(world: World, key: str) -> None:
    assert DENIED in ctl(world, "put", key, "{}")
    assert DENIED in ctl(world, "del", key)
    assert ctl(world, "put", "/v1/vm/no-uuid", "{}") == "OK\n"  # the limit that README.rst names


def test_what_is_anothers_by_name_it_can_read_and_nothing_beside(world: World) -> None:
    assert DENIED not in ctl(world, "get", "--prefix", "/v1/log/")
    assert DENIED in ctl(world, "get", "/other")
    assert DENIED in ctl(world, "get", "--prefix", "/v1/")


def test_nobody_but_root_reads_the_credentials(world: World) -> None:
    uuid = world.vm()
    user = world.shell(f"ps -o uid= -p {world.pid(uuid)}").strip()
    for uid in (user, "nobody"):
        cat = f"setpriv --reuid={uid} --regid=nogroup --clear-groups cat"
        for words in (cat, f"nsenter --target={world.pid(uuid)} --mount {cat}"):
            assert world.shell(f"{words} /etc/passwd")  # it reads what it may read
            assert world.shell(f"{words} {OURS}/vmhost1.key 2>&-", check=False) == ""


def test_a_right_that_is_taken_away_disturbs_no_vm(world: World) -> None:
    uuid = world.vm()
    pid, said = world.pid(uuid), len(world.agent_lines())
    role = "uncloud-host-vmhost1"
    world.shell(f"etcdctl role revoke-permission {role} --prefix /v1/vm/")
    waiting = world.new()
    eventually(lambda: [line for line in world.agent_lines()[said:] if DENIED in line], what="the agent says so")
    assert world.pid(uuid) == pid
    world.shell(f"etcdctl role grant-permission {role} readwrite --prefix /v1/vm/")
    world.wait_status(waiting, "RUNNING")
    assert world.pid(uuid) == pid
    assert world.agent_is_well()


def test_certificates_of_another_ca_are_taken_without_a_restart(world: World, tmp_path: Path) -> None:
    uuid = world.vm()
    pid, agent = world.pid(uuid), world.shell(AGENT)
    certify(world, tmp_path / "second", "second")
    world.shell("systemctl restart etcd")
    world.wait_status(world.new(), "RUNNING")
    assert (world.pid(uuid), world.shell(AGENT)) == (pid, agent)


def test_a_password_that_is_changed_is_read_anew(new_world: Callable[..., World]) -> None:
    world = new_world("vmhost2")
    secret = "/etc/uncloud-host/secrets/etcd"
    world.host.push("first\n", secret, 0o600)
    world.shell("etcdctl user add root:root; etcdctl user grant-role root root")
    world.shell(f"uncloud-host etcd-role vmhost2 --password-file {secret} | sh -e && etcdctl auth enable")
    world.host.push('#!/bin/sh\nexec /usr/bin/etcdctl --user root:root "$@"\n', "/usr/local/bin/etcdctl", 0o755)
    world.configure(UNCLOUD_ETCD_USER="vmhost2", UNCLOUD_ETCD_PASSWORD_FILE=secret)
    world.shell("systemctl restart uncloud-host")
    uuid = world.vm()
    pid, agent = world.pid(uuid), world.shell(AGENT)
    world.host.run("etcdctl", "user", "passwd", "vmhost2", "--interactive=false", input="second\n")
    world.shell("systemctl restart etcd")  # and with it the tokens are gone
    wrong = "wrong user name or password"
    eventually(lambda: [line for line in world.agent_lines() if wrong in line], what=lambda: str(world.agent_lines()))
    world.host.push("second\n", secret, 0o600)
    world.wait_status(world.new(), "RUNNING")
    assert (world.pid(uuid), world.shell(AGENT)) == (pid, agent)
