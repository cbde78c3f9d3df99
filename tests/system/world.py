"""A VM host as its users see it: etcdctl, systemctl, journalctl, kill, a mailbox; nothing here looks inside."""

import email
import email.policy
import json
import re
import uuid as uuids
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from lab import Host, guests
from system.etcds import Etcds
from waiting import eventually

IMAGES = "/var/lib/uncloud-host/images"
MAILBOX = "/var/mail/sre"
DEFAULTS = {
    "UNCLOUD_ACCEL": "tcg",  # no KVM that works in the lab
    "UNCLOUD_MAIL_TO": "sre@example.org",
    "UNCLOUD_SMTP": "127.0.0.1:25",
    "UNCLOUD_STOP_TIMEOUT": "20",
}


class World:
    """One host with the package installed and an SMTP server. Its etcd runs on it, or on the host or hosts given."""

    def __init__(self, host: Host, etcd: Host | Etcds | None = None) -> None:
        self.host = host
        self.etcd = etcd or host
        self.name = host.name
        self._mails: dict[str, EmailMessage] = {}

    def install(self, package: Path, **variables: str) -> None:
        """Set up a host as an administrator would, and wait for the agent.

        By dpkg: apt takes 2 s of a core to find that nothing is missing.
        """
        self.serve()
        self.host.push(package, f"/root/{package.name}")
        self.host.run("dpkg", "--install", f"/root/{package.name}", timeout=120)
        # Tests that are not about it would be told at any moment what it finds.
        self.host.run("systemctl", "disable", "--quiet", "--now", "uncloud-host-audit.timer")
        self.host.push(guests.tiny(), "/root/tiny.img")
        self.configure(**variables)
        self.host.run("systemctl", "restart", "uncloud-host")

    def serve(self) -> None:
        """Start etcd, unless it is another host's, and an SMTP server that keeps what it gets."""
        if self.etcd is self.host:
            self.host.run("systemctl", "enable", "--quiet", "--now", "etcd.service")
        self.host.run("mkdir", "-p", "/var/mail")
        words = ["-n", "-u", "-l", "127.0.0.1:25", "-c", "aiosmtpd.handlers.Mailbox", MAILBOX]
        self.host.run("systemd-run", "--quiet", "--unit=lab-smtp", "python3", "-m", "aiosmtpd", *words)
        eventually(lambda: ":25 " in self.host.run("ss", "-ltn").stdout, what="the SMTP server listens")

    def configure(self, **variables: str) -> None:
        """Write /etc/default/uncloud-host; an empty value leaves a variable out."""
        urls = self.etcd.urls if isinstance(self.etcd, Etcds) else f"http://{self.etcd.address}:2379"
        where = {} if self.etcd is self.host else {"UNCLOUD_ETCD": urls}
        lines = [f'{key}="{value}"\n' for key, value in (DEFAULTS | where | variables).items() if value]
        self.host.push("".join(lines).encode(), "/etc/default/uncloud-host")

    def hurry(self, *constants: str) -> None:
        """Run agent and audit with shorter times, as in `hurry("trust.LONG = 2.0")`; all else is as installed."""
        lines = [f"from uncloud_host import {line.partition('.')[0]}\n{line}\n" for line in constants]
        program = "import sys\nfrom uncloud_host.__main__ import main\n" + "".join(lines) + "sys.exit(main())\n"
        self.host.push(program, "/root/hurry.py")
        unit = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /root/hurry.py run\nProtectHome=no\n"
        self.shell("mkdir -p /etc/systemd/system/uncloud-host.service.d")
        self.host.push(unit, "/etc/systemd/system/uncloud-host.service.d/hurry.conf")
        self.shell("mkdir -p /etc/systemd/system/uncloud-host-audit.service.d")
        unit = unit.replace("run\n", "audit --tell\n").replace("ProtectHome=no", "ProtectHome=read-only")
        self.host.push(unit, "/etc/systemd/system/uncloud-host-audit.service.d/hurry.conf")
        self.shell("systemctl daemon-reload && systemctl restart uncloud-host")

    def wait_ready(self) -> None:
        eventually(
            lambda: self.host.run("systemctl", "is-active", "uncloud-host", check=False).stdout == "active\n",
            what="uncloud-host is ready",
        )

    def shell(self, script: str, *, check: bool = True, timeout: float = 60) -> str:
        return self.host.run("sh", "-c", script, check=check, timeout=timeout).stdout

    # etcd

    def put(self, uuid: str, entry: dict[str, Any] | str | None = None, **fields: Any) -> str:
        """Write an entry as a user would; what is not said is the smallest VM that prints something."""
        if not isinstance(entry, str):
            entry = json.dumps({"host": self.name, "memory": 16} | (entry or {}) | fields)
        self.etcd.run("etcdctl", "put", f"/v1/vm/{uuid}", input=entry)
        return uuid

    def raw(self, key: str) -> str:
        return self.etcd.run("etcdctl", "get", "--print-value-only", key).stdout.removesuffix("\n")

    def entry(self, uuid: str) -> dict[str, Any]:
        """The entry; empty if there is none."""
        value = self.raw(f"/v1/vm/{uuid}")
        return json.loads(value) if value else {}

    def claim(self, uuid: str) -> dict[str, Any]:
        value = self.raw(f"/v1/claim/{uuid}")
        return json.loads(value) if value else {}

    def ask(self, uuid: str, **fields: Any) -> None:
        """Change fields of an entry, as `etcdctl get | edit | etcdctl put` does."""
        self.put(uuid, json.dumps(self.entry(uuid) | fields))

    def delete(self, uuid: str) -> None:
        self.etcd.run("etcdctl", "del", f"/v1/vm/{uuid}")

    def wait_status(self, uuid: str, status: str, *, within: float = 30) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            entry = self.entry(uuid)
            return entry if entry.get("status") == status else {}

        return eventually(reached, within=within, what=lambda: f"{status}: {self.entry(uuid)}\n{self.journal(uuid)}")

    def wait_reason(self, uuid: str, pattern: str) -> dict[str, Any]:
        def said() -> dict[str, Any]:
            entry = self.entry(uuid)
            return entry if re.search(pattern, str(entry.get("status_reason", ""))) else {}

        return eventually(said, what=f"a status_reason like {pattern}")

    def records(self, uuid: str, *events: str) -> list[dict[str, Any]]:
        """What /v1/log/ says about a VM, oldest first."""
        lines = self.etcd.run("etcdctl", "get", "--prefix", "--print-value-only", f"/v1/log/{self.name}/").stdout
        found = [json.loads(line) for line in lines.splitlines() if line]
        return [record for record in found if record["vm"] == uuid and (not events or record["event"] in events)]

    def events(self, uuid: str) -> list[str]:
        return [record["event"] for record in self.records(uuid)]

    def wait_events(self, uuid: str, *events: str) -> list[dict[str, Any]]:
        """Wait until exactly these events have been recorded, in this order."""
        eventually(lambda: self.events(uuid) == list(events), what=lambda: f"{self.events(uuid)} is {events}")
        return self.records(uuid)

    def runs(self, uuid: str = "") -> list[dict[str, Any]]:
        """The records of how long a VM ran (or all), as they began."""
        lines = self.etcd.run("etcdctl", "get", "--prefix", "--print-value-only", f"/v1/runtime/{uuid}").stdout
        # Keys sort by second.
        return sorted((json.loads(line) for line in lines.splitlines() if line), key=lambda run: str(run["started"]))

    # VMs

    def disk(self, name: str, image: str = "/root/tiny.img") -> dict[str, str]:
        """Make a disk with the tiny guest on it."""
        made = self.image(name)
        self.host.run("install", "-m600", image, made["file"])
        return made

    def image(self, name: str) -> dict[str, str]:
        """A disk, as entries have it."""
        return {"file": f"{IMAGES}/{name}.img"}

    def occupied(self, name: str) -> dict[str, str]:
        """Make a disk that a QEMU writes to which somebody has started by hand."""
        disk = self.disk(name)
        words = ["-S", "-display", "none", "-m", "16", "-drive", f"file={disk['file']},format=raw,if=virtio"]
        self.host.run("qemu-system-x86_64", "-daemonize", *words)  # returns when it has its disk
        return disk

    def vm(self, **fields: Any) -> str:
        """Put a VM with the tiny guest and wait until the guest has said that it is up."""
        uuid = self.new(**fields)
        self.wait_status(uuid, "RUNNING")
        self.wait_boots(uuid, 1)
        return uuid

    def new(self, **fields: Any) -> str:
        uuid = str(uuids.uuid4())
        return self.put(uuid, {"disks": [self.disk(uuid)]} | fields)

    def show(self, uuid: str, *names: str) -> dict[str, str]:
        shown = self.host.run("systemctl", "show", f"vm-{uuid}.service", "-p", ",".join(names)).stdout
        return dict(line.partition("=")[::2] for line in shown.splitlines())

    def exposure(self, unit: str) -> float:
        """The figure from 0, nothing is open to attack, to 10 that systemd gives a unit."""
        told = self.host.run("systemd-analyze", "security", "--no-pager", unit).stdout
        found = re.search(r"Overall exposure level for .*: ([0-9.]+)", told)
        assert found, told
        return float(found[1])

    def state(self, uuid: str) -> str:
        return "/".join(self.show(uuid, "ActiveState", "SubState").values())

    def pid(self, uuid: str) -> int:
        return int(self.show(uuid, "MainPID")["MainPID"])

    def qemus(self, uuid: str) -> list[int]:
        """Processes of this VM as the kernel shows them, whatever systemd believes."""
        found = self.shell(f"pgrep -f -- '^/usr/bin/qemu-system-x86_64 .*-uuid {uuid}'", check=False)
        return [int(pid) for pid in found.split()]

    def journal(self, uuid: str) -> str:
        return self.host.run("journalctl", "--no-pager", "-o", "cat", "-u", f"vm-{uuid}").stdout

    def dated_journal(self, uuid: str) -> str:
        return self.host.run("journalctl", "--no-pager", "-o", "short-precise", "-u", f"vm-{uuid}").stdout

    def wait_journal(self, uuid: str, pattern: str, *, within: float = 30) -> str:
        eventually(lambda: re.search(pattern, self.journal(uuid)), within=within, what=lambda: self.journal(uuid))
        return self.journal(uuid)

    def wait_boots(self, uuid: str, boots: int) -> None:
        """The tiny guest counts its boots on its own disk."""
        self.wait_journal(uuid, rf"TINY-GUEST boot {boots}w")

    def type(self, uuid: str, letters: str) -> None:
        """Type on the guest's serial console."""
        self.host.run("python3", "-c", TYPE, f"/run/uncloud-vm/{uuid}/console.sock", letters)

    def wait_gone(self, uuid: str) -> None:
        eventually(lambda: not self.qemus(uuid), what="no qemu of this VM")
        eventually(lambda: self.state(uuid) == "inactive/dead", what="no unit of this VM")

    # mail

    def mails(self, text: str = "") -> list[EmailMessage]:
        """The mails that arrived, those with this text in them."""
        names = self.shell(f"ls {MAILBOX}/new 2>/dev/null || true").split()
        for name in names:
            if name not in self._mails:  # a file in a Maildir is never changed, and those who wait look often
                raw = self.host.pull(f"{MAILBOX}/new/{name}")
                self._mails[name] = email.message_from_bytes(raw, policy=email.policy.default)  # type: ignore[assignment]
        mails = [self._mails[name] for name in names]
        return [mail for mail in mails if text in mail.as_string()] if text else mails

    def wait_mail(self, text: str, subject: str) -> EmailMessage:
        def arrived() -> list[EmailMessage]:
            return [mail for mail in self.mails(text) if subject in mail["Subject"]]

        return eventually(arrived, what=lambda: f"{subject} in {[m['Subject'] for m in self.mails(text)]}")[0]

    def mailed(self) -> dict[str, set[str]]:
        """For each event the Message-IDs of the mails that tell it: one, however often they are delivered."""
        found: dict[str, set[str]] = {}
        for mail in self.mails():
            for event in str(mail["X-Uncloud-Events"] or "").split():
                found.setdefault(event, set()).add(mail["Message-ID"])
        return found

    def wait_told(self, uuid: str) -> None:
        """Wait until all that was recorded about a VM has been mailed."""
        ids = {record["id"] for record in self.records(uuid)}
        eventually(lambda: ids <= self.mailed().keys(), within=60, what=lambda: f"mails: {ids - self.mailed().keys()}")

    def agent_lines(self, since: str = "") -> list[str]:
        """What the agent itself said since its last start."""
        words = ["journalctl", "--no-pager", "-o", "cat", "_SYSTEMD_UNIT=uncloud-host.service"]
        return self.host.run(*words, *([f"--since={since}"] if since else [])).stdout.splitlines()

    def agent_is_well(self) -> bool:
        """It has not been restarted by systemd, and has shown no traceback."""
        shown = self.host.run("systemctl", "show", "uncloud-host", "-p", "NRestarts", "--value").stdout
        return shown.strip() == "0" and not any("Traceback" in line for line in self.agent_lines())


TYPE = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(sys.argv[2].encode())
"""
