"""Mail servers fail in every way; no event is lost, and a mail that comes twice can be told."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from system.world import World
from waiting import eventually

# What the server does, and what the agent says, once.
FAULTS = {
    "closes": "Connection unexpectedly closed",
    "hangs": "timed out",
    "defers": "451 4.3.0 later",
    "denies": "sre@example.org: 550 5.7.1 relaying denied",
}
POSTBOX, MODE = Path(__file__).with_name("postbox.py"), "/run/postbox"  # see there
WAITS = "what is to be told waits and is not lost"
CERTIFICATES = """
set -e
for ca in ca other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$ca" -keyout $ca.key -out $ca.pem
done
openssl req -newkey rsa:2048 -nodes -subj /CN=mx -keyout mx.key -out mx.csr
echo "subjectAltName=IP:127.0.0.1" > mx.ext
openssl x509 -req -days 2 -in mx.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile mx.ext -out mx.pem
"""


def certify(world: World, directory: Path) -> None:
    """Give the host a certificate, its CA and another one, and passwords."""
    subprocess.run(["sh", "-c", CERTIFICATES], cwd=directory, check=True, capture_output=True)
    for name in ("mx.pem", "mx.key"):
        world.host.push(directory / name, f"/root/{name}")
    for name in ("ca.pem", "other.pem"):
        world.host.push(directory / name, f"/etc/uncloud-host/{name}")
    world.host.push(b"secret\n", "/etc/uncloud-host/secrets/smtp", mode=0o600)
    world.host.push(b"wrong\n", "/etc/uncloud-host/secrets/wrong", mode=0o600)


def serve(world: World, *words: str) -> None:
    world.shell("systemctl stop lab-smtp")
    world.host.push(POSTBOX, "/root/postbox.py")
    world.shell(f"systemd-run --quiet --unit=lab-smtp python3 /root/postbox.py {' '.join(words)}")
    eventually(lambda: f":{words[0]} " in world.shell("ss -ltn"), what="the SMTP server listens")


def waits(world: World, why: str) -> list[str]:
    return [line for line in world.agent_lines() if why in line and WAITS in line]


def copies(world: World, name: str) -> list[str]:
    """The Message-IDs of all mails that tell of an event."""
    return [mail["Message-ID"] for mail in world.mails(name)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails(world: World, fault: str) -> None:
    serve(world, "25")
    world.shell(f"echo {fault} > {MODE}")
    uuid = world.vm()
    eventually(lambda: waits(world, FAULTS[fault]), what=lambda: f"{FAULTS[fault]} in {world.agent_lines()}")
    began = world.wait_events(uuid, "started")[0]
    world.shell(f"rm {MODE}")
    world.wait_told(uuid)
    if fault == "closes":  # it had the mail, and could not say so
        eventually(lambda: len(copies(world, began["id"])) > 1, what="it is sent again")
    assert len(waits(world, FAULTS[fault])) == 1
    assert len(set(copies(world, began["id"]))) == 1
    world.ask(uuid, status="TO_STOP", stop_timeout=1)
    world.wait_status(uuid, "STOP")
    world.wait_told(uuid)


def test_a_mail_that_is_refused_for_good_is_given_up_alone(world: World) -> None:
    serve(world, "25")
    world.shell(f"echo refuses > {MODE}")
    world.vm()
    eventually(lambda: any("554 5.6.0 not that one; that mail is given up" in line for line in world.agent_lines()))
    world.shell(f"rm {MODE}")
    other = world.vm()
    world.wait_told(other)


@pytest.mark.parametrize(("tls", "port"), [("starttls", "25"), ("tls", "465")])
def test_a_server_with_tls_and_a_login(new_world: Callable[..., World], tmp_path: Path, tls: str, port: str) -> None:
    world = new_world()
    certify(world, tmp_path)
    serve(world, port, "/root/mx.pem", "/root/mx.key", tls)
    right = {
        "UNCLOUD_SMTP": f"127.0.0.1:{port}", "UNCLOUD_SMTP_TLS": tls, "UNCLOUD_SMTP_CA": "/etc/uncloud-host/ca.pem",
        "UNCLOUD_SMTP_USER": "host1", "UNCLOUD_SMTP_PASSWORD_FILE": "/etc/uncloud-host/secrets/smtp",
    }  # fmt: skip
    wrong = {
        "certificate verify failed": {"UNCLOUD_SMTP_CA": "/etc/uncloud-host/other.pem"},
        "535 5.7.8 Authentication credentials invalid": {
            "UNCLOUD_SMTP_PASSWORD_FILE": "/etc/uncloud-host/secrets/wrong"
        },
    }
    uuid = ""
    for said, changed in wrong.items():
        world.configure(**right | changed)
        world.shell("systemctl restart uncloud-host")
        uuid = uuid or world.vm(name="web-1")
        eventually(lambda said=said: waits(world, said), what=lambda: f"a line in {world.agent_lines()}")
        assert len(waits(world, said)) == 1
        assert world.mails() == []
    world.configure(**right)
    world.shell("systemctl restart uncloud-host")
    world.wait_mail(uuid, "web-1 started")
    assert world.agent_is_well()
    assert "secret" not in world.shell("journalctl --no-pager -o cat")
