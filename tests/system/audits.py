"""Audits of a host, and what is told of them; with shorter times."""

import json
from typing import Any

from system.world import World
from waiting import eventually

HURRY = (
    "audit.SOON = 1.0",
    "audit.LATE = 2.0",
    "audit.SILENT = 3.0",
    "reconcile.HEALTHY = 1.0",
    "agent.FULL_PASS = 2.0",
)


def audit(world: World, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Audit a host, with shorter times; its exit status, and what it found."""
    done = world.host.run("python3", "/root/hurry.py", "audit", "--json", *words, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def found(world: World, *words: str) -> list[tuple[str, str]]:
    status, findings = audit(world, *words)
    assert status == (1 if findings else 0)
    return [(finding["code"], finding["about"]) for finding in findings]


def tell(world: World) -> None:
    """Do what the timer does."""
    world.host.run("systemctl", "start", "uncloud-host-audit")


def records(world: World, text: str) -> list[str]:
    """The audit's events with this text in their records, as the log has them."""
    lines = world.etcd.run("etcdctl", "get", "--prefix", "--print-value-only", f"/v1/log/{world.name}/").stdout
    return [event for line in lines.splitlines() if text in line and (event := json.loads(line)["event"]) in NAMES]


def told(world: World, text: str, *events: str) -> None:
    """Wait until exactly these events, with this text in them, are in the log, and each in a mail of its own."""
    eventually(lambda: records(world, text) == list(events), what=lambda: f"{records(world, text)} is {events}")
    eventually(lambda: len(mails(world, text)) == len(events), what=lambda: f"{mails(world, text)} tell {events}")


def mails(world: World, text: str) -> list[str]:
    found = ((mail["Subject"], mail.get_content().replace("\n", " ")) for mail in world.mails())
    return [subject for subject, body in found if text in body and any(words in subject for words in PHRASES)]


NAMES = ("missing", "foreign", "wrong-host", "unknown-host", "host-silent", "agent-down", "resolved")
PHRASES = ("missing", "belong here", "another host", "nobody knows", "misses", "no agent", "well again")
