"""What is known of one VM: desired (its entry), observed (its unit), and the claim that says who may run it. Pure."""

from dataclasses import dataclass

from uncloud_host.models import VM
from uncloud_host.unit import Evidence, State


@dataclass(frozen=True, slots=True)
class Me:
    """Who this agent is. The name is what entries call the host; claims are compared by it and the machine id."""

    host: str
    machine_id: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Which machine may run a VM now, as read from etcd at `mod_revision`."""

    uuid: str
    host: str
    machine_id: str
    boot_id: str
    id: str
    entry: int  # the entry's create_revision; 0 if it was gone when the claim was written
    since: str
    held: bool | None = None  # True: what etcd said before this claim is not believed; False: a person confirmed it
    why: str = ""  # it is held
    said: str = ""  # host and status in the entry when it was held; nothing if there was no entry
    replaces: str = ""  # the id of the claim that was taken over
    mod_revision: int = 0

    def is_of(self, me: Me) -> bool:
        """Tell whether it is this machine's. By its name, too: a cloned installation has the machine id of another."""
        return (self.machine_id, self.host) == (me.machine_id, me.host)

    def is_of_boot(self, me: Me) -> bool:
        """Tell whether it is this machine's and of the present boot: else what ran for it is over."""
        return self.is_of(me) and self.boot_id == me.boot_id


@dataclass(frozen=True, slots=True)
class Invalid:
    """An entry that nobody can start; what runs is left alone."""

    uuid: str
    reason: str
    create_revision: int
    mod_revision: int
    told: bool  # its status_reason already says so


@dataclass(frozen=True, slots=True)
class Gone:
    """etcd was read and has no entry for this uuid."""

    uuid: str


Desired = VM | Invalid | Gone


@dataclass(frozen=True, slots=True)
class Observed:
    """What systemd says about the VM's unit."""

    state: State
    evidence: Evidence | None = None  # None on a unit that exists: it is foreign
    invocation: str = ""
    restarts: int = 0  # by systemd, since the last start by somebody
    since: float = 0.0  # when this state began, seconds since 1970


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why what etcd says now is not believed: that an entry is absent, or, if history went backwards, anything."""

    reason: str
    everything: bool = False
