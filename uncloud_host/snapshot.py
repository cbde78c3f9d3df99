"""How things stand now: etcd and systemd, read afresh for one command."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from uncloud_host import config, machine, view
from uncloud_host.desired import read
from uncloud_host.etcd import Connection, EtcdError, KeyValue
from uncloud_host.facts import Claim, Gone
from uncloud_host.models import host_of, is_uuid, names
from uncloud_host.observe import Units
from uncloud_host.store import Store
from uncloud_host.systemd import Systemd, SystemdError
from uncloud_host.troubles import Troubles
from uncloud_host.unit import State
from uncloud_host.view import Seen, Step

DEFAULTS = "/etc/default/uncloud-host"


class Wrong(Exception):
    """The command makes no sense; one line says what was expected."""


class Unknown(Wrong):
    """There is no such VM."""


NOT_RUNNING = (State.ABSENT, State.EXITED, State.FAILED)
COULD_NOT_LOOK = (EtcdError, SystemdError, config.ConfigError)


def configured() -> config.Config:
    """Read the agent's configuration: the environment, and the file for what is not set there. Raises ConfigError."""
    found: dict[str, str] = {}
    try:
        found = config.variables(Path(DEFAULTS).read_text(errors="replace"))
    except FileNotFoundError:
        pass
    except OSError as error:
        if not os.environ.get("UNCLOUD_ETCD"):
            print(f"uncloud-host: {DEFAULTS}: {error.strerror}; using defaults instead", file=sys.stderr)
    return config.read(found | {name: value for name, value in os.environ.items() if value})


def one(word: str, names: Mapping[str, str]) -> str:
    """Find the one VM (uuid: name) that is meant; nothing if there is none. Raises Wrong if there are several."""
    found = view.matching(word, names)
    if len(found) > 1:
        listed = ", ".join(uuid if names[uuid] == uuid else f"{uuid} ({names[uuid]})" for uuid in found)
        raise Wrong(f"{word!r}: expected one VM, this may be {listed}")
    return found[0] if found else ""


class Snapshot:
    """The neighbours of a command. Everything raises EtcdError or SystemdError: what cannot be read is not guessed."""

    def __init__(self, known: config.Config) -> None:
        self.me = machine.me(known.host)
        self.store = Store(Connection(known.etcd), known.prefix)
        self._units = Units(Systemd())
        self._troubles: dict[str, str] = {}
        with suppress(OSError):  # only root may look
            self._troubles = {one.about: one.reason for one in Troubles().all() if one.kind == "disk"}
        self.look()

    def look(self) -> None:
        """Look at the units again."""
        self._units.look([])

    def vm(self, uuid: str) -> Seen:
        """Look at one VM in etcd."""
        entry, claim = self.store.read(uuid)
        return self.seen(uuid, entry, claim)

    def vms(self, *, everywhere: bool) -> list[Seen]:
        """Look at the VMs that concern this host, or at all."""
        is_ours = names(self.me.host)
        found = self._vms(lambda _uuid, value: everywhere or is_ours(value))
        return sorted(found, key=lambda seen: (seen.host if everywhere else "", seen.name, seen.uuid))

    def _vms(self, wanted: Callable[[str, bytes], bool]) -> list[Seen]:
        """Look at what is wanted and at what is here; only that is parsed, of what may be a hundred thousand."""
        store, machine_id = self.store, self.me.machine_id.encode()
        claims = {kv.key.removeprefix(store.claims): kv for kv in store.listed(store.claims)}
        ours = {uuid for uuid, kv in claims.items() if machine_id in kv.value and store.as_claim(kv).is_of(self.me)}
        here = ours | self._units.observed.keys()
        listed = ((kv.key.removeprefix(store.vms), kv) for kv in store.listed(store.vms))
        entries = {uuid: kv for uuid, kv in listed if uuid in here or wanted(uuid, kv.value)}
        there = {uuid: store.as_claim(claims[uuid]) for uuid in (entries.keys() | here) & claims.keys()}
        return [self.seen(uuid, entries.get(uuid), there.get(uuid)) for uuid in entries.keys() | here]

    def find(self, word: str) -> str:
        """Tell which VM is meant. Raises Wrong."""
        if is_uuid(word):
            return word
        start, name = word.lower(), word.encode(errors="replace")  # a name may be written with escapes
        may_be = self._vms(lambda uuid, value: uuid.lower().startswith(start) or name in value or b"\\" in value)
        if found := one(word, {seen.uuid: seen.name for seen in may_be}):
            return found
        raise Unknown(f"{word!r}: there is no such VM; expected a uuid, the beginning of one, or a name")

    def running(self, word: str) -> tuple[str, str]:
        """Give uuid and name of the VM on this host that is meant; without etcd if it is here. Raises Wrong."""
        ours = {uuid: one for uuid, one in self._units.observed.items() if one.evidence}
        names = {uuid: one.evidence.name for uuid, one in ours.items() if one.evidence}
        uuid = one(word, names) or self.find(word)
        if uuid in ours and ours[uuid].state not in NOT_RUNNING:
            return uuid, names[uuid]
        raise Unknown(f"{word}: it does not run on this host: its unit is {view.state_word(self._units.get(uuid))}")

    def steps(self, seen: Seen) -> list[Step]:
        """Say what a pass would do about a VM."""
        for uuid, observed in self._units.observed.items():
            if observed.evidence and observed.evidence.host != self.me.host:
                was = f"VM {uuid} was started on it as {observed.evidence.host}"
                return [Step("wait", f"UNCLOUD_HOST_NAME: this host is {self.me.host} now, but {was}")]
        return view.steps(seen, self.me, now=time.time())

    def seen(self, uuid: str, entry: KeyValue | None, claim: Claim | None) -> Seen:
        """Put together what is known of a VM."""
        written: dict[str, object] = {"host": host_of(entry.value)} if entry else {}
        with suppress(ValueError, RecursionError):
            found = json.loads(entry.value) if entry else {}
            written |= found if isinstance(found, dict) else {}
        trouble = self._troubles.get(uuid, "")
        return Seen(read(uuid, entry) if entry else Gone(uuid), written, self._units.get(uuid), claim, trouble)
