"""A VM, its unit and claims on it, for tables; and actions as words."""

import dataclasses
import json

from uncloud_host.actions import Action, Limit, Release, Reset, Secure, SetStatus, Start, Stop, Tell, Wait
from uncloud_host.facts import Claim, Me, Observed
from uncloud_host.models import VM, parse
from uncloud_host.unit import Evidence, State

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
ME = Me("vmhost1", "m1", "b1")
MINE = Claim(UUID, "vmhost1", "m1", "b1", "c1", 3, "", mod_revision=4)
OTHERS = Claim(UUID, "vmhost2", "m2", "b2", "c2", 3, "", mod_revision=4)
HELD = dataclasses.replace(MINE, held=True, why="why", said="vmhost1 RUNNING", since="then", mod_revision=20)
CONFIRMED = dataclasses.replace(HELD, held=False, mod_revision=30)
ABSENT = Observed(State.ABSENT)


def vm(status: str | None = None, *, revision: int = 9, created: int = 3, **fields: object) -> VM:
    entry = {"host": "vmhost1"} | ({"status": status} if status else {}) | fields
    return VM(UUID, parse(json.dumps(entry).encode()), create_revision=created, mod_revision=revision)


def unit(state: str, *, revision: int = 5, since: float = 0.0) -> Observed:
    if state == "absent":
        return ABSENT
    return Observed(State(state), Evidence("vmhost1", "c1", revision, "f", "web-1", ""), "i1", 0, since)


def short(actions: list[Action]) -> list[str]:
    """Actions as words, for tables."""
    return [_word(action) for action in actions]


def _word(action: Action) -> str:
    match action:
        case Start():
            return "start"
        case Wait():
            return "wait"
        case Stop(_, _, event):
            return f"stop({event})"
        case Reset():
            return "reset"
        case Limit():
            return "limit"
        case Release():
            return "release"
        case Secure(claim):
            return {None: "claim", True: "hold", False: "confirmed"}[claim.held]
        case SetStatus(_, status, text):
            return f"{status}({text})" if text else str(status)
        case Tell(event):
            return f"tell {event}"
